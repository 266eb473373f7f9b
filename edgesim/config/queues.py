"""Queues that fill up because nobody consumes them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgesim.config.project import Project


class Unconsumed(msgspec.Struct, frozen=True):
    """A place in a file that fills a queue without a consumer."""

    queue: str
    file: Path
    key: str
    problem: str


CURE = "Consume it in a Worker (queues.consumers) or give it [queues.NAME.pull] in edgesim.toml"


def unheard_notifications(project: Project) -> list[Unconsumed]:
    """Notification rules whose queue no Worker consumes and nobody pulls.

    A dead-letter queue needs no consumer: what is in it waits to be redriven.
    """
    found = [
        Unconsumed(
            rule.queue,
            project.file,
            f"r2.{bucket}.notifications",
            f"notifications of bucket {bucket!r} go to queue {rule.queue!r}, "
            "which no Worker consumes and nobody pulls",
        )
        for bucket, config in project.account.r2.items()
        for rule in config.notifications
    ]
    return _without_consumer(project, found)


def unheard_producers(project: Project) -> list[Unconsumed]:
    """Producers of such queues.

    Right in a project whose queue is consumed by a Worker that is deployed from elsewhere; here its
    messages pile up until they expire.
    """
    found = [
        Unconsumed(
            producer.queue,
            worker.file,
            "queues.producers",
            f"Worker {name!r} sends to queue {producer.queue!r}, "
            "which no Worker consumes and nobody pulls",
        )
        for name, worker in project.workers.items()
        for producer in worker.settings.queues.producers
    ]
    return _without_consumer(project, found)


def _without_consumer(project: Project, found: list[Unconsumed]) -> list[Unconsumed]:
    fine = project.consumers().keys() | project.dead_letter_queues()
    return [each for each in found if each.queue not in fine]
