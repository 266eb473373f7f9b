"""Install small packages into a folder, as pip leaves them: modules and a dist-info folder."""

import shutil
import tomllib
from pathlib import Path

from tests.processes import ROOT

DRIVER = ROOT / "examples" / "driver"


def install(site: Path, package: str, points: dict[str, dict[str, str]], **modules: str) -> Path:
    """Install a package with these entry points (group: {name: value}) and module sources."""
    info = site / f"{package.replace('-', '_')}-1.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0.0\n")
    lines = []
    for group, names in points.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in names.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for name, source in modules.items():
        (site / f"{name}.py").write_text(source)
    return site


def install_example(site: Path) -> Path:
    """Install examples/driver, with the entry points of its pyproject.toml."""
    project = tomllib.loads((DRIVER / "pyproject.toml").read_text())["project"]
    install(site, project["name"], project["entry-points"])
    for module in DRIVER.glob("*.py"):
        shutil.copy(module, site)
    return site
