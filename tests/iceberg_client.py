"""Ordinary clients of an Iceberg catalog, in processes of their own: pyiceberg and ClickHouse."""

import json
import os
import subprocess
import sys
from typing import Any

_ROWS = """
rows = catalog.load_table(table).scan().to_arrow().to_pylist()
print(json.dumps(rows, default=str))
"""
_CLICKHOUSE = """
import sys, chdb
place, token = sys.argv[1:]
keys = f"'edgesim', 'edgesim'" + (f", '{token}'" if token else "")
print(chdb.query(f"SELECT * FROM icebergS3('{place}', {keys})", "JSONEachRow"))
"""


def run_client(url: str, bucket: str, table: str, code: str, token: str = "") -> str:
    """Run Python code with a pyiceberg ``catalog``, and ``table``; return what it prints."""
    head = (
        "import json, sys\n"
        "from pyiceberg.catalog.rest import RestCatalog\n"
        "uri, warehouse, table, token = sys.argv[1:]\n"
        "more = {'token': token} if token else {}\n"
        "catalog = RestCatalog('local', uri=uri, warehouse=warehouse, **more)\n"
    )
    uri = f"{url}/cdn-cgi/edgesim/catalog/{bucket}"
    return _python(head + code, uri, f"edgesim_{bucket}", table, token)


def rows_of_table(url: str, bucket: str, table: str, token: str = "") -> list[dict[str, Any]]:
    """The rows of a table as pyiceberg reads them."""
    found: list[dict[str, Any]] = json.loads(run_client(url, bucket, table, _ROWS, token))
    return found


def rows_by_clickhouse(url: str, bucket: str, table: str, token: str = "") -> list[dict[str, Any]]:
    """The rows of a table as ClickHouse reads them from its folder."""
    location = run_client(
        url, bucket, table, "print(catalog.load_table(table).location())", token
    ).strip()
    key = location.removeprefix("s3://")
    shown = _python(_CLICKHOUSE, f"{url}/cdn-cgi/local/r2/s3/{key}/", token)
    return [json.loads(line) for line in shown.splitlines() if line]


def _python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
