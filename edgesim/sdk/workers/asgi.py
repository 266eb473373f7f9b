"""Not in edgesim: ``import workers.asgi`` says so in place of ModuleNotFoundError."""

from workers import not_here

raise not_here("asgi")
