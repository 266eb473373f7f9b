"""Queues that fill up because they have no consumer."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgesim.config.project import Project


class Unconsumed(msgspec.Struct, frozen=True):
    """A notification rule or producer whose queue has no consumer: queue, file, key, problem."""

    queue: str
    file: Path
    key: str
    problem: str


CURE = "Consume it in a Worker (queues.consumers) or give it [queues.NAME.pull] in edgesim.toml"


def unheard_notifications(project: Project) -> list[Unconsumed]:
    """Notification rules whose queue has neither a push nor a pull consumer.

    A dead-letter queue needs no consumer: its messages wait to be redriven.
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
    """Producers whose queue has neither a push nor a pull consumer.

    This is valid if a Worker of another project consumes the queue; in edgesim the messages
    accumulate until they expire.
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
