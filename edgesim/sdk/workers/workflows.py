"""Placeholder: ``import workers.workflows`` raises an ImportError with the reason."""

from workers import not_here

raise not_here("workflows")
