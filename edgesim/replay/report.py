"""A replay's report: a table for a person, JSON or JUnit XML for a machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import msgspec

from edgesim.replay.runner import Report


def text(report: Report) -> str:
    """What a person reads in ten seconds."""
    rate = report.requests / report.seconds if report.seconds else 0
    lines = [f"{report.requests} requests in {report.seconds:.1f} s ({rate:.0f}/s)"]
    lines += [f"  answered {status:>3}  {count:>9}" for status, count in report.responses.items()]
    tail = report.stats["tail"]
    lines.append(f"  tail          {tail['items']:>9} traces, {tail['lost']} lost")
    for name, pipeline in report.stats["pipelines"].items():
        lines.append(
            f"  pipeline {name:<10} {pipeline['records']:>9} records, "
            f"{pipeline['objects']} objects, {pipeline['pending']} pending"
        )
    for name, queue in report.stats["queues"].items():
        lines.append(
            f"  queue {name:<13} {queue['delivered']:>9} delivered, {queue['retried']} retried, "
            f"{queue['dead']} dead, {queue['backlog']} waiting"
        )
    if not report.drained:
        lines.append("FAILED: something was still on its way when the time was over")
    for mismatch in report.mismatches:
        lines.append(f"FAILED: {mismatch.what}")
        lines.append(f"  - expected {mismatch.expected!r}")
        lines.append(f"  + got      {mismatch.got!r}")
    return "\n".join(lines)


def json(report: Report) -> str:
    """The whole report."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def junit(report: Report) -> str:
    """One test case for the drain and one for each expectation that failed."""
    failures = len(report.mismatches) + (not report.drained)
    suite = ET.Element("testsuite", name="edgesim replay", tests=str(1 + len(report.mismatches)))
    suite.set("failures", str(failures))
    suite.set("time", f"{report.seconds:.3f}")
    drained = ET.SubElement(suite, "testcase", classname="edgesim", name="drained")
    if not report.drained:
        ET.SubElement(drained, "failure", message="something was still on its way")
    for mismatch in report.mismatches:
        case = ET.SubElement(suite, "testcase", classname="edgesim", name=mismatch.what)
        message = f"expected {mismatch.expected!r}, got {mismatch.got!r}"
        ET.SubElement(case, "failure", message=message)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)


FORMATS: dict[str, Callable[[Any], str]] = {"text": text, "json": json, "junit": junit}
