"""Check of a database through any driver: reach, credentials, version, clock, features.

It reads and changes no user data.  It only needs statements, so drivers have no method for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from edgesim.clickhouse.driver import ClickHouseDriver, Statement
from edgesim.clock import Clock
from edgesim.errors import ClickHouseError, RunError
from edgesim.model import Diagnosis

CLOCK_SECONDS_MAX = 5.0
_ABOUT = "SELECT version(), toUnixTimestamp(now()) FORMAT TabSeparated"
_HAS = "SELECT count() FROM system.{table} WHERE name = '{name}' FORMAT TabSeparated"
_READ_ONLY = "SELECT value FROM system.settings WHERE name = 'readonly' FORMAT TabSeparated"
_RIGHTS = "set EDGESIM_CLICKHOUSE_USER and EDGESIM_CLICKHOUSE_PASSWORD to what it knows"
_CURES = {
    81: "create it there, or name another at the end of the URL",
    **dict.fromkeys((192, 193, 194, 516), _RIGHTS),
    **dict.fromkeys((164, 497), "grant this user what it lacks, or use another"),
}
_FEATURES = [
    (
        *("settings", "insert_deduplication_token"),
        "an insert that is repeated is not recognised by its token",
        "use a current ClickHouse, or a ReplacingMergeTree that is read with FINAL",
    ),
    (
        *("table_functions", "input"),
        "inserts cannot transform rows on their way in (input())",
        "use a current ClickHouse, or insert into the columns as they are",
    ),
]


async def probe(driver: ClickHouseDriver, clock: Clock) -> AsyncIterator[Diagnosis]:
    """Yield one finding per check; stops if a statement fails."""
    try:
        before = clock.now()
        version, theirs = (await _ask(driver, _ABOUT)).split("\t")
        ahead = float(theirs) - (before + clock.now()) / 2
        yield Diagnosis("clickhouse", "ok", f"version {version}")
        yield _clock(ahead)
        if await _ask(driver, _READ_ONLY) not in {"0", ""}:
            said = "this user may only read (its profile says readonly)"
            yield Diagnosis("clickhouse", "problem", said, "let it insert, or use another user")
        for table, name, problem, cure in _FEATURES:
            if await _ask(driver, _HAS.format(table=table, name=name)) == "0":
                yield Diagnosis("clickhouse", "warning", f"no {name}: {problem}", cure)
    except (ClickHouseError, RunError) as error:
        yield Diagnosis("clickhouse", "problem", *described(error))


def described(error: ClickHouseError | RunError) -> tuple[str, str]:
    """Return the problem in one line, and its fix."""
    said = " ".join(error.problem.split())
    if not isinstance(error, ClickHouseError):
        return said, error.cure or "start the server, or name another with --clickhouse URL"
    cure = _CURES.get(
        error.code, "see ClickHouse's documentation of this code, and the server's own log"
    )
    return f"Code {error.code}: {said}", cure


def _clock(ahead: float) -> Diagnosis:
    if abs(ahead) <= CLOCK_SECONDS_MAX:
        return Diagnosis("clickhouse", "ok", "its clock is this machine's, to a few seconds")
    way = "ahead of" if ahead > 0 else "behind"
    said = f"its clock is {abs(ahead):.0f} s {way} this machine's"
    return Diagnosis("clickhouse", "warning", said, "let both keep time by NTP")


async def _ask(driver: ClickHouseDriver, sql: str) -> str:
    answer = await driver.execute(Statement(sql))
    return b"".join([chunk async for chunk in answer.body]).decode().strip()
