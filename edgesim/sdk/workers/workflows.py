"""Not in edgesim: ``import workers.workflows` says so in place of ModuleNotFoundError."""

import workers

raise ImportError(f"workers.workflows is in Cloudflare's SDK but not in edgesim: {workers._ELSEWHERE['workflows']}")
