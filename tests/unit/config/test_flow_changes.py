"""Changes of streams, sinks and SQL: what must be created again, and what is lost."""

import msgspec
import pytest

from edgesim.config.dataflow import HttpIngestConfig
from edgesim.config.flow_changes import AppliedFlow, AppliedPipeline, AppliedStream, changes
from edgesim.config.pipelines import Field
from edgesim.config.sinks import SinkConfig

HTTP = HttpIngestConfig()
BEFORE = AppliedFlow(
    {"clicks": AppliedStream([Field("string", "id"), Field("int64", "n")], HTTP)},
    {"lake": SinkConfig("lake"), "log": SinkConfig("log", format="json")},
    {
        "flow": AppliedPipeline("INSERT INTO lake SELECT * FROM clicks", ["clicks"], ["lake"]),
        "copy": AppliedPipeline("INSERT INTO log SELECT * FROM clicks", ["clicks"], ["log"]),
    },
)


def after(**changed):
    return AppliedFlow(
        changed.get("streams", BEFORE.streams),
        changed.get("sinks", BEFORE.sinks),
        changed.get("pipelines", BEFORE.pipelines),
    )


def found(new: AppliedFlow, old: AppliedFlow = BEFORE) -> list[tuple[str, str, str]]:
    return [(each.action, each.kind, each.name) for each in changes(old, new)]


def test_nothing_changed():
    """Equal states need nothing."""
    assert changes(BEFORE, after()) == []


def test_a_new_account_needs_everything():
    """Everything is created: streams and sinks before pipelines."""
    assert found(BEFORE, AppliedFlow()) == [
        ("create", "stream", "clicks"),
        ("create", "sink", "lake"),
        ("create", "sink", "log"),
        ("create", "pipeline", "flow"),
        ("create", "pipeline", "copy"),
    ]


def test_another_schema_recreates_the_stream_and_its_pipelines():
    """The change names the columns, and what is lost."""
    fields = [Field("string", "id", required=True), Field("bool", "ok")]
    new = after(streams={"clicks": AppliedStream(fields, HTTP)})
    assert found(new) == [
        ("recreate", "stream", "clicks"),
        ("recreate", "pipeline", "flow"),
        ("recreate", "pipeline", "copy"),
    ]
    shown = str(changes(BEFORE, new)[0])
    assert "new ok; without n; other id" in shown
    assert "records that are in no sink yet are lost" in shown


def test_another_sink_recreates_the_pipelines_that_fill_it():
    """Only the pipelines of that sink are created again."""
    sinks = BEFORE.sinks | {"log": SinkConfig("log", format="json", roll_interval=60)}
    assert found(after(sinks=sinks)) == [
        ("recreate", "sink", "log"),
        ("recreate", "pipeline", "copy"),
    ]
    assert "roll_interval differs" in str(changes(BEFORE, after(sinks=sinks))[0])


def test_other_sql_recreates_the_pipeline_alone():
    """The stream and the sink stay."""
    sql = AppliedPipeline("INSERT INTO lake SELECT id FROM clicks", ["clicks"], ["lake"])
    new = after(pipelines=BEFORE.pipelines | {"flow": sql})
    assert found(new) == [("recreate", "pipeline", "flow")]


@pytest.mark.parametrize(
    "http", [HttpIngestConfig(auth=True), HttpIngestConfig(cors=["*"]), HttpIngestConfig(False)]
)
def test_http_settings_change_in_place(http):
    """They are the only ones that can."""
    new = after(streams={"clicks": AppliedStream(BEFORE.streams["clicks"].fields, http)})
    assert found(new) == [("update", "stream", "clicks")]


def test_what_is_gone_is_deleted():
    """A stream that is not in the project is deleted with its pipelines."""
    assert found(AppliedFlow()) == [
        ("delete", "stream", "clicks"),
        ("delete", "sink", "lake"),
        ("delete", "sink", "log"),
        ("delete", "pipeline", "flow"),
        ("delete", "pipeline", "copy"),
    ]


TABLE = SinkConfig("lake", "r2-data-catalog", namespace="web", table="clicks", roll_interval=60)


@pytest.mark.parametrize(
    ("setting", "needs_drop"), [({"roll_interval": 90}, True), ({"table": "pages"}, False)]
)
def test_a_sink_that_is_created_again_refuses_its_table(setting, needs_drop):
    """The plan says that the rows go with the table, unless the sink gets another one."""
    old = AppliedFlow(sinks={"table": TABLE})
    new = AppliedFlow(sinks={"table": msgspec.structs.replace(TABLE, **setting)})
    [change] = changes(old, new)
    assert change.action == "recreate"
    assert ("drop it with its rows" in change.loss) is needs_drop


def test_both_names_of_the_type_with_a_table_are_one():
    """The newer name changes nothing on the account."""
    renamed = msgspec.structs.replace(TABLE, type="basin-catalog")
    assert changes(AppliedFlow(sinks={"table": TABLE}), AppliedFlow(sinks={"table": renamed})) == []
