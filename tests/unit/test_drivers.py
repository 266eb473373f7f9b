"""The registry of drivers: built-in ones, those of installed packages, and errors of both."""

import sys

import pytest

from edgesim import drivers
from edgesim.errors import ConfigError, UsageError
from tests.installed import install

DECLARED = "DETERMINISTIC = True\nEMBEDDED = True\nSHARED = False\nDURABLE = False\n"
CREDENTIALS = {
    "s3": {"access_key": "EDGESIM_S3_ACCESS_KEY", "secret_key": "EDGESIM_S3_SECRET_KEY"},
    "nats": {
        "user": "EDGESIM_NATS_USER",
        "password": "EDGESIM_NATS_PASSWORD",
        "token": "EDGESIM_NATS_TOKEN",
    },
    "clickhouse": {"user": "EDGESIM_CLICKHOUSE_USER", "password": "EDGESIM_CLICKHOUSE_PASSWORD"},
}
FILES = {"file": ("", "blobs", "index.db", "index.db-wal"), "sqlite": ("",), "chdb": ("",)}
ALL = [(name, scheme) for name, schemes in drivers.BUILT_IN.items() for scheme in schemes]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages on the import path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [each for each in sys.modules if each.startswith("acme")]:
        del sys.modules[name]


@pytest.mark.parametrize(("primitive", "scheme"), ALL)
def test_built_in_drivers_declare_what_they_are(primitive, scheme):
    """Servers are shared, durable and not deterministic; `memory:` alone keeps nothing."""
    found = drivers.properties(primitive, f"{scheme}:")
    server = scheme in {"s3", "nats"} or scheme.startswith("clickhouse")
    assert (found.embedded, found.shared, found.deterministic) == (not server, server, not server)
    assert found.durable is (scheme != "memory")
    product = "clickhouse" if scheme.startswith("clickhouse") else scheme
    assert found.credentials == CREDENTIALS.get(product, {})
    assert found.files == FILES.get(scheme, ())
    assert callable(drivers.opener(primitive, f"{scheme}:"))


@pytest.mark.parametrize("primitive", sorted(drivers.BUILT_IN))
def test_a_package_adds_a_driver(site, primitive):
    """A module named by an entry point is found by its scheme, with its declarations."""
    source = f"{DECLARED}FILES = ('a',)\ndef open_{primitive}(url): return url\n"
    install(site, "acme", {f"edgesim.{primitive}": {"acme": f"acme_{primitive}"}})
    (site / f"acme_{primitive}.py").write_text(source)
    url = "acme:/data?x=1"
    assert drivers.known(primitive) == [*drivers.BUILT_IN[primitive], "acme"]
    assert drivers.opener(primitive, url)(url) == url
    assert drivers.properties(primitive, url).durable is False
    assert [str(each) for each in drivers.files_of(primitive, url)] == ["/data/a"]


def test_an_unknown_scheme_names_the_known_ones(site):
    """The error has all schemes, the nearest one, and the way to add others; no password."""
    install(site, "acme", {"edgesim.queues": {"acme": "acme_queues"}})
    with pytest.raises(ConfigError) as caught:
        drivers.opener("queues", "natss://u:secret@h")
    assert str(caught.value) == (
        "backends: queues: no driver for 'natss://h'; did you mean nats:? known schemes: memory, "
        "sqlite, nats, acme; a package adds others (entry point group edgesim.queues)"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero; reinstall the package"),
        ("import no_such_one", "ModuleNotFoundError: No module named 'no_such_one'"),
        ("def broken(:\n", "SyntaxError: invalid syntax"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines; reinstall"),
    ],
)
def test_a_package_that_cannot_be_imported_is_one_line(site, source, expected):
    """The error names driver, package, cause and cure."""
    install(site, "acme-store", {"edgesim.r2": {"acme": "acme_broken"}}, acme_broken=source)
    with pytest.raises(UsageError) as caught:
        drivers.opener("r2", "acme:")
    said = str(caught.value)
    assert said.startswith("the r2 driver 'acme' of the package acme-store cannot be imported")
    assert expected in said
    assert said.endswith("pip uninstall acme-store")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (DECLARED.replace("SHARED = False\n", ""), "missing required field `SHARED`"),
        (DECLARED.replace("DURABLE = False", "DURABLE = 'no'"), "Expected `bool`, got `str`"),
        (DECLARED + "CREDENTIALS = ['TOKEN']\n", "Expected `object`, got `array`"),
    ],
)
def test_a_declaration_that_is_missing_or_wrong_is_named(site, source, expected):
    """The error names driver, module, constant and where the constants are described."""
    install(site, "acme", {"edgesim.r2": {"acme": "acme_declared"}}, acme_declared=source)
    with pytest.raises(UsageError) as caught:
        drivers.properties("r2", "acme:")
    assert "the r2 driver 'acme' (module acme_declared): " in str(caught.value)
    assert expected in str(caught.value)
    assert "edgesim.drivers.Properties" in str(caught.value)


def test_a_module_without_the_function_is_named(site):
    """The error names the function that is missing."""
    install(site, "acme", {"edgesim.queues": {"acme": "acme_empty"}}, acme_empty=DECLARED)
    with pytest.raises(UsageError, match=r"module acme_empty.* has no open_queues;"):
        drivers.opener("queues", "acme:")


def test_two_packages_with_one_scheme_are_refused(site):
    """Neither is chosen by chance: the error names both packages."""
    for package in ("acme-one", "acme-two"):
        install(site, package, {"edgesim.queues": {"acme": "acme_queues"}})
    with pytest.raises(UsageError, match=r"acme-one, acme-two\); uninstall all but one"):
        drivers.opener("queues", "acme:")


def test_a_package_cannot_replace_a_built_in_driver(site):
    """The scheme of a built-in driver stays with it."""
    install(site, "acme", {"edgesim.r2": {"file": "acme_file"}}, acme_file="1 / 0")
    assert drivers.known("r2") == list(drivers.BUILT_IN["r2"])
    assert drivers.opener("r2", "file:x").__module__ == drivers.BUILT_IN["r2"]["file"]
