"""Not in edgesim: ``import workers.wsgi`` says so in place of ModuleNotFoundError."""

from workers import not_here

raise not_here("wsgi")
