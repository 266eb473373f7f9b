"""Reports of a replay: a table for people, JSON or JUnit XML for programs.

The content is independent of the machine and of the real duration, so two reports of the same
replay are byte-identical.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from xml.etree import ElementTree as ET

import msgspec

from edgesim.replay.expectations import Mismatch
from edgesim.replay.runner import ReplayReport
from edgesim.replay.stages import Stage

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HEAD = ("stage", "in", "out", "lost", "retried", "dead", "p50", "p99", "max")


def text(report: ReplayReport) -> str:
    """Summary for people."""
    answers = ", ".join(f"{count} x {status}" for status, count in report.responses.items())
    head = f"{report.requests} requests in {duration(report.seconds * 1000)} of virtual time"
    lines = [f"{head}, seed {report.seed}: {answers or 'no answers'}"]
    if report.unanswered:
        lines[0] += f", {report.unanswered} unanswered"
    lines += _table([_HEAD, *(_row(stage) for stage in report.stages)])
    lines += [f"  fault x{count}: {fault}" for fault, count in report.fault_counts.items()]
    lines += [f"  disk x{count}: {effect}" for effect, count in report.disk.items()]
    if not report.drained:
        lines.append("FAILED: work was still in progress when the time was over")
    for violation in report.violations:
        lines.append(f"FAILED: {violation.checker}: {violation.problem}")
    for mismatch in report.mismatches:
        lines.append(f"FAILED: {mismatch.what}")
        lines += [f"  {line}" for line in difference(mismatch)]
    if report.ok:
        looked = [
            f"{len(report.expectations)} expectations met" if report.expectations else "",
            f"{len(report.checked)} checks passed" if report.checked else "",
        ]
        lines.append("OK" + "".join(f", {each}" for each in looked if each))
    return "\n".join(lines)


def _row(stage: Stage) -> tuple[str, ...]:
    counts = (stage.entered, stage.left, stage.lost, stage.retried, stage.dead)
    latency = stage.latency
    times = (latency.p50, latency.p99, latency.max) if latency else (None,) * 3
    return (
        stage.name,
        *("-" if count is None else str(count) for count in counts),
        *("-" if time is None else duration(time) for time in times),
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + row[0].ljust(widths[0])
        + "".join(f"  {cell.rjust(width)}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def duration(ms: float) -> str:
    """Format milliseconds for people."""
    if ms < 1000:
        return f"{ms:g} ms"
    if ms < 100_000:
        return f"{ms / 1000:.3g} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    if minutes < 100:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def json(report: ReplayReport) -> str:
    """The whole report as JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def difference(mismatch: Mismatch) -> list[str]:
    """Lines that show expected and actual value, as a diff if there are several lines."""
    diff = mismatch.diff()
    if len(diff) > 2:
        return diff
    return [f"- expected {mismatch.expected!r}", f"+ got      {mismatch.got!r}"]


def junit(report: ReplayReport, name: str = "replay") -> str:
    """JUnit XML with a test case for the drain, for each expectation and for each check.

    ``name`` is the name of the suite and part of each case's class, by which CI distinguishes
    replays.
    """
    suite = ET.Element("testsuite", name=f"edgesim {name}", time=f"{report.seconds:.3f}")
    add = partial(_case, suite, f"edgesim.{name}")
    add("drained", "" if report.drained else "work was still in progress", [])
    for checker in report.checked:
        broken = [each.problem for each in report.violations if each.checker == checker]
        add(checker, "; ".join(broken), broken)
    wrong = {each.what: each for each in report.mismatches}
    for what in report.expectations:
        found = wrong.get(what)
        message = f"expected {found.expected!r}, got {found.got!r}" if found else ""
        add(what, message, difference(found) if found else [])
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("testcase/failure/.."))))
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)


def _case(suite: ET.Element, kind: str, name: str, failure: str, details: list[str]) -> None:
    case = ET.SubElement(suite, "testcase", classname=kind, name=name)
    if failure:
        found = ET.SubElement(case, "failure", message=_for_xml(failure))
        found.text = _for_xml("\n".join(details))


def _for_xml(text: str) -> str:
    """Replace characters that XML 1.0 cannot represent."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


FORMATS: dict[str, Callable[[ReplayReport], str]] = {"text": text, "json": json}
