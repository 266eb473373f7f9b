"""Not in edgesim: ``import workers.wsgi` says so in place of ModuleNotFoundError."""

import workers

raise ImportError(f"workers.wsgi is in Cloudflare's SDK but not in edgesim: {workers._ELSEWHERE['wsgi']}")
