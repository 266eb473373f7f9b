"""The folder in which the blocks of each page run, and the blocks that do not run, with the reason.

``test_blocks.py`` fails for a block that it can neither run nor find here, and for an entry here
that no page has any more.
"""

TEMPLATE = {
    "docs/how-to/debug.md",
    "docs/how-to/deploy-to-cloudflare.md",
    "docs/how-to/replay-in-ci.md",
    "docs/how-to/use-packages.md",
    "docs/how-to/use-real-servers.md",
}
"""Pages whose blocks run in a new project of ``edgesim init``; the blocks of all others run in a
copy of this repository."""

SERVERS = {"docs/how-to/use-real-servers.md"}
"""Pages whose ports 4222 and 8333 lead to a real NATS and S3 server."""

GENERATED = {"docs/reference/commands.md"}
"""Pages that another test compares with their source."""

DIAGRAM = "a diagram"
INSTALLS = "installs packages from the network; `make` installs the same before the tests"
WHEEL = "tests/packaging/test_wheel.py runs it in an empty environment"
FIXED_PORT = "needs a port that may be taken here"

NOT_RUN: dict[str, dict[str, str]] = {
    "README.md": {"flowchart LR": DIAGRAM},
    "CONTRIBUTING.md": {
        "make test ": "it would run this test",
        ".venv/bin/pytest tests/unit": "the same tests run beside this one",
    },
    "docs/explanation/architecture.md": {" client": DIAGRAM, " " * 26 + "edgesim dev": DIAGRAM},
    "docs/explanation/differences-from-cloudflare.md": {
        "make portability": INSTALLS,
        "pip install": "needs a project of others and the network",
    },
    "docs/how-to/add-a-driver.md": {
        "[project.entry-points": "a part of examples/driver/pyproject.toml",
        "pip install": "installs a package; tests/cli/test_installed_driver.py does it",
        "pytest tests": "tests/cli/test_installed_driver.py runs the suite on such a driver",
    },
    "docs/how-to/connect-an-editor.md": {"pip install": INSTALLS},
    "docs/how-to/deploy-to-cloudflare.md": {
        "cd cloudflare": "needs an account; tests/portability runs it against a simulated one",
    },
    "docs/how-to/install.md": {
        "python3 -m venv": WHEEL,
        "pip install": WHEEL,
        "edgesim --version": WHEEL,
        "edgesim dev": WHEEL,
        "# test_orders.py": "tests/packaging/test_wheel.py checks the types of such a test",
    },
    "docs/how-to/query-clickhouse.md": {
        "curl 'http://127.0.0.1:8123": "tests/cli/test_clickhouse_port.py runs it on a free port",
    },
    "docs/how-to/read-iceberg-tables.md": {
        "pip install": INSTALLS,
        "SELECT *": "tests/cli/test_iceberg.py runs it with the folder of a table",
    },
    "docs/how-to/export-traces.md": {"pip install": INSTALLS},
    "docs/how-to/use-s3-clients.md": {
        "export AWS_ACCESS_KEY_ID": "needs the AWS command line; put.py does the same with boto3",
        "SELECT *": "tests/cli/test_s3_other_clients.py runs it on a free port",
    },
    "docs/how-to/run-javascript.md": {
        "edgesim init": "tests/cli/test_init.py runs it with the packages of `make portability`",
        "npm install": INSTALLS,
        "uncaught exception": "an example of a log line",
    },
    "docs/how-to/run-in-production.md": {
        "edgesim serve --host": "needs several machines; tests/nodes runs nodes on real servers",
    },
    "docs/how-to/use-packages.md": {
        "pip install": "installs from the network; tests/packages runs thirty packages",
        "uv run": "installs from the network with Cloudflare's own tool",
    },
    "docs/how-to/use-real-servers.md": {
        "pip install": INSTALLS,
        "nats-server": "the test starts both servers on free ports",
        "edgesim dev --clickhouse": "needs a ClickHouse server; tests/nodes runs one",
    },
    "docs/reference/analytics-engine.md": {
        "self.env.WEATHER": "tests/conformance/test_analytics.py writes such points",
    },
    "docs/reference/event-pipeline.md": {"receiver -> tail": DIAGRAM},
    "docs/reference/javascript.md": {"npm install": INSTALLS},
    "docs/reference/kv.md": {
        "await self.env": "tests/conformance/test_kv_workers.py calls each",
        "edgesim kv put": "needs a project with that binding; tests/cli/test_kv.py has one",
    },
    "docs/reference/streams.md": {
        "[streams.clicks] ": "names a schema file; tests/unit/config/test_dataflow.py has it",
        "INSERT INTO posts": "needs that project; tests/conformance runs such statements",
        "curl -X POST": "needs that project; tests/cli/test_ingest.py runs one",
    },
    "docs/tutorial/first-pipeline.md": {"make setup": INSTALLS, "client -> receiver": DIAGRAM},
    "examples/deploy/README.md": {
        "python3 -m venv /opt": "installs a service on the machine",
        "cp examples/deploy": "needs Docker and images from a registry",
    },
    "examples/driver/README.md": {
        "pip install": "installs a package; tests/cli/test_installed_driver.py does it",
    },
    "examples/javascript/README.md": {
        "cd examples/javascript": "tests/javascript/test_virtual_time.py replays it",
    },
    "examples/mixed/README.md": {
        "(cd ../javascript": "tests/javascript/test_virtual_time.py replays it",
    },
    "examples/outage/README.md": {
        "python examples/outage/drill.py": "takes a minute; tests/drills runs it",
    },
}
"""Page -> beginning of a block's first line -> why no test runs it."""
