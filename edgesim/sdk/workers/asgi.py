"""Placeholder: ``import workers.asgi`` raises an ImportError with the reason."""

from workers import not_here

raise not_here("asgi")
