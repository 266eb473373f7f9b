"""edgesim check: find code and settings that fail, or silently differ, on the platform.

Three analyses of a project: its configuration (settings, sizes), its source code (imports,
handlers, state, calls) and the import of its modules (loading).  Every finding names file, line,
reason and fix.  An error fails on the platform; a warning may be intended.
"""

from edgesim.check.findings import Finding
from edgesim.check.project import check_project

__all__ = ["Finding", "check_project"]
