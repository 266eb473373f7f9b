"""``edgesim export``: write a project in the form that Cloudflare deploys.

``cloudflare`` writes the files, ``script`` the shell script that creates resources which wrangler
files cannot declare, ``notes`` the manual steps and differences.
"""

from edgesim.export.cloudflare import export_cloudflare

__all__ = ["export_cloudflare"]
