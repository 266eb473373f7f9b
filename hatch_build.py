"""Build hook: the wheel has the SDK a second time, as stub packages.

Workers import ``workers``, ``js`` and ``pyodide``, which exist only inside an isolate. With stub
packages (PEP 561) editors and type checkers find them in the environment in which edgesim is
installed, without a setting; at run time nothing imports them.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = ("workers", "js", "pyodide")


class SdkStubs(BuildHookInterface):
    """Adds each module of the SDK as ``PACKAGE-stubs/MODULE.pyi``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Copy the modules: hatchling leaves out the original of a file that is included.

        An editable installation has no stubs, because they would not follow an edit.
        """
        if version == "editable":
            return
        self._copies = Path(tempfile.mkdtemp())
        for package in PACKAGES:
            source = Path(self.root) / "edgesim" / "sdk" / package
            for module in sorted(source.rglob("*.py")):
                stub = f"{package}-stubs/{module.relative_to(source).with_suffix('.pyi')}"
                copy = self._copies / stub
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(module, copy)
                build_data["force_include"][str(copy)] = stub

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copies."""
        if version != "editable":
            shutil.rmtree(self._copies)
