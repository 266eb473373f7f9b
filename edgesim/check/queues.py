"""Rules about consumers of the project's queues."""

from __future__ import annotations

from collections.abc import Iterator

from edgesim.check.findings import Finding, relative
from edgesim.check.lines import line_of
from edgesim.config import Project
from edgesim.config.unconsumed import CURE, unheard_notifications


def check_queues(project: Project) -> Iterator[Finding]:
    """Yield a warning for each bucket notification whose queue has no consumer.

    Producers are not checked: a Worker of another project may consume their queue.
    """
    for each in unheard_notifications(project):
        file = relative(each.file, project.root)
        line = line_of(each.file, "queue", each.queue)
        yield Finding(file, line, "warning", "unconsumed-queue", each.problem, CURE)
