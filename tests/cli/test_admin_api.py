"""The admin API as its OpenAPI description says, on a real running project."""

import inspect
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from edgesim.dev import admin
from tests.processes import WORKERS, Dev, dev

PREFIX = "/cdn-cgi/edgesim"
DESCRIBED_ELSEWHERE = (
    f"{PREFIX}/catalog/",
    "/cdn-cgi/local/r2/s3",
    "/cdn-cgi/local/r2/s3/",
    f"{PREFIX}/ui/",
)
"""Iceberg's catalog, the S3 API, and the pages."""
EVENT = {"event": "kill", "player_id": "p1", "ts": 1_767_225_600_000}
JSON = "application/json"
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=5,
)
WORDS = st.sampled_from(
    ["events", "errors", "ingest", "receiver", "main", "0", "-1", "1e400", "nan", "", "💥", "\x00"]
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A project through which an event has gone, and another that failed."""
    with dev(
        WORKERS, tmp_path_factory.mktemp("state"), "--no-reload", "--isolation", "inline"
    ) as running:
        running.post(EVENT)
        running.post("no event")
        running.drain()
        yield running


@pytest.fixture(scope="module")
def described(running: Dev) -> dict[str, Any]:
    """The description that the running project serves."""
    status, body = running.request(f"{PREFIX}/openapi.json", method="GET")
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


def operations(described: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method.upper(), operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


def schema_of(described: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    """A validator of one schema of the description."""
    return Draft202012Validator(schema | {"components": described["components"]})


def test_the_description_has_every_route(described):
    """Each path and method of the server is described, and no other."""
    parameters = inspect.signature(admin.admin_app).parameters
    app: Any = admin.admin_app(**dict.fromkeys(parameters))  # type: ignore[arg-type]
    routes = {
        (route.path, method)
        for route in app.routes
        for method in set(getattr(route, "methods", None) or ()) - {"HEAD"}
        if not route.path.startswith(DESCRIBED_ELSEWHERE)
        and route.path not in {PREFIX, f"{PREFIX}/", "/cdn-cgi"}
    }
    assert {(path, method) for path, method, _ in operations(described)} == routes
    identifiers = [each["operationId"] for _, _, each in operations(described)]
    assert len(set(identifiers)) == len(identifiers)
    assert all(each["summary"] for _, _, each in operations(described))


def references(value: Any) -> Iterator[str]:
    """All references in a JSON value."""
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from references(inner)
    if isinstance(value, dict) and "$ref" in value:
        yield value["$ref"]


def test_the_description_is_valid(described):
    """Each reference leads to a part, and each schema is a JSON Schema."""
    assert described["openapi"] == "3.1.0"
    found = set(references(described))
    assert len(found) > 10
    for reference in found:
        part: Any = described
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    for schema in described["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_replies_are_as_described(running, described):
    """Each JSON reply to a plain GET has the schema of the description."""
    recent = json.loads(running.request(f"{PREFIX}/invocations?limit=1", method="GET")[1])
    queries = {
        f"{PREFIX}/trace": "?q=p1",
        f"{PREFIX}/invocations": "?limit=5",
        f"{PREFIX}/invocation": f"?id={recent['invocations'][0]['id']}",
    }
    checked = set()
    for path, method, operation in operations(described):
        content = operation["responses"]["200"]["content"]
        if method != "GET" or JSON not in content or "{" in path or "scheduled" in path:
            continue
        status, body = running.request(path + queries.get(path, ""), method="GET")
        assert status == 200, path
        schema_of(described, content[JSON]["schema"]).validate(json.loads(body))
        checked.add(path.removeprefix(f"{PREFIX}/"))
    assert checked >= {
        "trace",
        "invocations",
        "invocation",
        "flow",
        "cost",
        "stats",
        "faults",
        "health",
        "ready",
    }


def test_no_other_page_may_use_any(running, described):
    """Each endpoint that is not open to all refuses pages of other sites and Workers."""
    refused = []
    for path, method, operation in operations(described):
        if operation["security"] == [{}]:
            continue
        for headers in (
            {"origin": "https://shop.example"},
            {"sec-fetch-site": "cross-site"},
            {"edgesim-lineage": "x"},
            {"authorization": "Bearer wrong", "x-forwarded-for": "10.0.0.1"},
        ):
            body = None if method == "GET" else b"{}"
            refused.append(running.request(path, body, method=method, headers=headers)[0])
    assert len(refused) > 60
    assert set(refused) == {403}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_request_gets_a_described_reply(running, described, data):
    """Whatever a query, argument or body holds, the status is one that the description lists.

    A wrong request is answered in one line.
    """
    path, method, operation = data.draw(
        st.sampled_from(
            [
                each
                for each in operations(described)
                if "text/event-stream" not in each[2]["responses"]["200"]["content"]
            ]
        )
    )
    query = {
        each["name"]: data.draw(WORDS | st.text(max_size=20)) for each in operation["parameters"]
    }
    url = path.replace("{name}", quote(query.pop("name", ""), safe=""))
    body = _body(described, operation, data)
    given_query = {name: value for name, value in query.items() if data.draw(st.booleans())}
    status, reply = running.request(
        f"{url}?{urlencode(given_query, errors='surrogatepass')}", body, method=method
    )
    if url.endswith("//dropped"):
        assert status == 404
        return
    assert {str(status), f"{status // 100}XX"} & operation["responses"].keys(), reply
    if status == 400 and not path.endswith("/sql"):
        assert reply.count(b"\n") == 1
    if status == 200 and JSON in operation["responses"]["200"]["content"] and reply[:1] in b"{[":
        schema = operation["responses"]["200"]["content"][JSON]["schema"]
        schema_of(described, schema).validate(json.loads(reply))


def _body(
    described: dict[str, Any], operation: dict[str, Any], data: st.DataObject
) -> bytes | None:
    """A body: of an operation with drawn arguments, else any bytes."""
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return None
    if JSON not in content or data.draw(st.booleans()):
        return data.draw(st.binary(max_size=40))
    schemas = described["components"]["schemas"]
    schema = content[JSON]["schema"]
    if "oneOf" not in schema:
        return json.dumps(data.draw(_values_for(_resolved(schemas, schema)))).encode()
    wanted = data.draw(st.sampled_from(schema["oneOf"]))["properties"]
    arguments = data.draw(_values_for(_resolved(schemas, wanted["arguments"])))
    value = {"operation": wanted["operation"]["const"], "arguments": arguments}
    return json.dumps(value).encode()


def _resolved(schemas: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schemas[schema["$ref"].rpartition("/")[2]]
    return found


def _values_for(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of the properties of a schema, and with any values."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(schema["properties"], WORDS | ANYTHING))
