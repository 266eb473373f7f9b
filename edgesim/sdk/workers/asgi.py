"""Not in edgesim: ``import workers.asgi` says so in place of ModuleNotFoundError."""

import workers

raise ImportError(f"workers.asgi is in Cloudflare's SDK but not in edgesim: {workers._ELSEWHERE['asgi']}")
