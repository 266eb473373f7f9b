"""Error messages of failed imports."""

import pytest

from edgesim.isolates.guest.packages import cure_of


def raised(statement):
    with pytest.raises(ImportError) as caught:
        exec(statement, {})
    return caught.value


@pytest.mark.parametrize(
    ("statement", "package"),
    [("import no_such.part", "no_such"), ("import no_such", "no_such")],
)
def test_a_package_that_is_not_vendored(statement, package, tmp_path):
    """The cure names the package, the file that declares it and both commands."""
    cure = str(cure_of(raised(statement), tmp_path / "w.py"))
    assert f"add '{package}' to `dependencies` in pyproject.toml" in cure
    assert "`uv run pywrangler sync`" in cure
    assert f"pip install --target python_modules {package}, in {tmp_path}" in cure


def test_a_project_may_have_another_name_than_its_module(tmp_path):
    """The index knows yaml as PyYAML."""
    cure = str(cure_of(ModuleNotFoundError("no", name="yaml"), tmp_path / "w.py"))
    assert "'PyYAML'" in cure


def test_a_library_for_webassembly(tmp_path):
    """Packages vendored by pywrangler for the platform do not load here; the error names them."""
    package = tmp_path / "python_modules" / "fast"
    package.mkdir(parents=True)
    (package / "_speed.cpython-313-wasm32-emscripten.so").write_bytes(b"\0asm\1\0\0\0")
    cure = str(cure_of(ImportError("cannot import name", name="fast"), tmp_path / "w.py"))
    assert cure.startswith("_speed.cpython-313-wasm32-emscripten.so is for WebAssembly; ")


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("no", name="tkinter"),
        ModuleNotFoundError("no", name="edgesim.isolates"),
        ImportError("workers.wsgi is not in edgesim"),
        ValueError("other"),
        ModuleNotFoundError("no", name="there.part"),
    ],
)
def test_what_no_package_cures(error, tmp_path):
    """The standard library, the SDK, a vendored package's own fault."""
    (tmp_path / "python_modules" / "there").mkdir(parents=True)
    assert cure_of(error, tmp_path / "w.py") is None
