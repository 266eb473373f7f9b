"""edgesim check: what would fail, or be silently different, on the platform.

Three readings of a project: its configuration (settings, sizes), its sources as text (imports,
handlers, state, calls) and its modules as they load (loading).  Every finding names file, line, why
and the cure.  An error would break there; a warning may be meant.
"""

from edgesim.check.findings import Finding
from edgesim.check.project import check_project

__all__ = ["Finding", "check_project"]
