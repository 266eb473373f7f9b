"""edgesim cost: estimate the monthly bill of the pipeline on Cloudflare.

Without options: for a billion events per day. The prices come from a dated table in edgesim.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import anyio
import msgspec

from edgesim.cli import logs
from edgesim.cli.arguments import add_project, project_of
from edgesim.cli.running import ask, opened, serving
from edgesim.config import Project
from edgesim.cost.bill import Bill, bill
from edgesim.cost.prices import read_prices
from edgesim.cost.usage import Load, measured, planned, roles_of, used
from edgesim.errors import RunError, UsageError

_LOAD = {
    "events_per_day": "events per day",
    "event_bytes": "size of one event as JSON, in bytes",
    "events_per_request": "events per request",
    "window_seconds": "length of a pipeline window, in seconds",
    "object_bytes_max": "largest object of a pipeline before compression, in bytes",
    "compression": "compression ratio of the objects in R2",
    "retention_days": "days for which R2 keeps an object",
    "receiver_cpu_ms": "CPU time of one request, in milliseconds",
    "tail_cpu_ms": "CPU time of one event in the Tail Worker, in milliseconds",
    "insert_cpu_ms": "CPU time of the insert of one object, in milliseconds",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim cost``."""
    add_project(parser)
    defaults = Load()
    for name, what in _LOAD.items():
        shown = f"{getattr(defaults, name):g}"
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=_positive, metavar="N", help=f"{what} (default: {shown})")
    parser.add_argument(
        "--rate",
        type=_positive,
        metavar="N",
        help="events per second, instead of --events-per-day",
    )
    parser.add_argument(
        "--used",
        action="store_true",
        help="bill the running project for its usage since its start, and a month at that usage",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="the same for a report of `replay --speed realtime --report json`",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the bill of a month, and of the run if one is selected."""
    logs.configure(verbose=False)
    stats = _stats(arguments)
    load = Load() if stats is None else measured(stats, Load())
    load = msgspec.structs.replace(load, **_given(arguments))
    prices = read_prices()
    month = bill(planned(load), prices)
    run_bill = None
    if stats is not None:
        run_bill = bill(used(stats, roles_of(project_of(arguments))), prices, included=False)
    if arguments.json:
        shown = {"load": load, "month": month, "used": run_bill}
        print(json.dumps(msgspec.to_builtins(shown), indent=2))
        return 0
    if run_bill is not None:
        print(f"Used by the run, every unit paid for (prices of {prices.as_of}):\n")
        print(_table(run_bill, article=False))
        print()
    print(_headline(load, month))
    print()
    print(_table(month, article=True))
    print()
    print(_shares(month))
    return 0


def _given(arguments: argparse.Namespace) -> dict[str, float]:
    given = {name: getattr(arguments, name) for name in _LOAD}
    if arguments.rate is not None:
        if arguments.events_per_day is not None:
            raise UsageError("give --rate or --events-per-day, not both")
        given["events_per_day"] = arguments.rate * 86_400
    return {name: value for name, value in given.items() if value is not None}


def _stats(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Counters of the selected run; None if neither --used nor --report is passed."""
    if arguments.report is not None:
        return _reported(arguments.report)
    if not arguments.used:
        return None
    project = project_of(arguments)
    owner = serving(project)
    if owner is None:
        return anyio.run(_stored, project)
    with ask(owner, "/stats", method="GET") as answer:
        if answer.status != 200:
            raise RunError(answer.read().decode("utf-8", "replace").strip())
        stats: dict[str, Any] = json.loads(answer.read())
        return stats


def _reported(path: Path) -> dict[str, Any]:
    try:
        stats: dict[str, Any] = json.loads(path.read_bytes())["stats"]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} is no report of `edgesim replay --report json`") from error
    if "cpu_ms" not in stats:
        problem = "is of virtual time, which has no CPU and no bytes; replay with --speed realtime"
        raise UsageError(f"{path} {problem}")
    return stats


async def _stored(project: Project) -> dict[str, Any]:
    """Stats of a project that is not running: bucket contents only, since counters are per run."""
    async with opened(project) as simulator:
        return await simulator.stats()


def _headline(load: Load, month: Bill) -> str:
    per_second = load.events_per_day / 86_400
    return (
        f"A month of {load.events_per_day:,.0f} events a day ({per_second:,.0f}/s) of "
        f"{load.event_bytes:,.0f} bytes; prices of {month.prices_as_of}, "
        f"the article's of {month.article_as_of}:"
    )


def _table(what: Bill, *, article: bool) -> str:
    rows = [
        (
            line.stage,
            line.title,
            f"{line.quantity:,.0f}" if line.quantity >= 100 else f"{line.quantity:,.3g}",
            _dollars(line.usd),
            "-" if line.article_usd is None else _dollars(line.article_usd),
        )
        for line in what.lines
    ]
    if what.plan_usd:
        rows.append(("account", "Workers Paid plan", "1", _dollars(what.plan_usd), "-"))
    rows.append(("all", "", "", _dollars(what.usd), _dollars(what.article_usd)))
    heads = ("stage", "what", "quantity", "USD", "article USD")
    columns = 5 if article else 4
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(columns)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if at < 2 else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in (heads, *rows)
    )


def _dollars(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 0.01 or not amount else f"{amount:.2g}"


def _shares(what: Bill) -> str:
    parts = [f"{stage} {usd / what.usd:.1%}" for stage, usd in what.stages().items()]
    return "Shares: " + ", ".join(parts)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
