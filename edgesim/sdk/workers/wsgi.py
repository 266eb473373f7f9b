"""Placeholder: ``import workers.wsgi`` raises an ImportError with the reason."""

from workers import not_here

raise not_here("wsgi")
