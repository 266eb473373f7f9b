"""Not in edgesim: ``import workers.workflows`` says so in place of ModuleNotFoundError."""

from workers import not_here

raise not_here("workflows")
