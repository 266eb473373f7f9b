"""edgesim export: a project as Cloudflare deploys it.

``cloudflare`` writes the files, ``script`` the shell script that creates what wrangler files cannot
say, ``notes`` what neither can.
"""

from edgesim.export.cloudflare import export_cloudflare

__all__ = ["export_cloudflare"]
