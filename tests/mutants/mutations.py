"""The mutations: a small change of the product each, that loses, doubles or holds up data.

``caught_by`` is a seed of the simulation that is known to notice it (another of the first 300 will
do), or the test that does.
"""

from typing import NamedTuple


class Edit(NamedTuple):
    """Replace a text that stands in the file exactly once."""

    file: str
    old: str
    new: str


class Mutation(NamedTuple):
    """A fault; its name says what it does wrong."""

    name: str
    caught_by: int | str
    edits: list[Edit]


LOG = "edgesim/pipelines/log.py"
PIPELINE = "edgesim/pipelines/pipeline.py"
DURABLE = "edgesim/durable.py"
FILE = "edgesim/r2/file.py"
INDEXED = "edgesim/r2/indexed.py"
UPLOADS = "edgesim/r2/indexed_uploads.py"
NOTIFICATIONS = "edgesim/r2/notifications.py"
CONSUMER = "edgesim/queues/consumer.py"
SQLITE = "edgesim/queues/sqlite.py"
INSERT = "workers/insert/insert.py"

MUTATIONS = [
    # --- Pipelines ---
    Mutation(
        "pipeline log not flushed before the acknowledgement",
        169,
        [Edit(LOG, "            durable.flush(self._file.fileno())\n", "")],
    ),
    Mutation(
        "name of a new pipeline log not flushed",
        124,
        [Edit(LOG, "        durable.flush_folder(path.parent)\n", "")],
    ),
    Mutation(
        "seal of a pipeline log ignored after a crash: a second key",
        124,
        [Edit(LOG, "segment.seal = msgspec.json.decode(payload, type=Seal)", "pass")],
    ),
    Mutation(
        "half a frame left in the pipeline log after a failed write",
        171,
        [
            Edit(
                LOG,
                "            self._cut()  # what a failed write left",
                "            # what a failed write left",
            ),
            Edit(
                LOG,
                "            with suppress(OSError):\n                self._cut()\n",
                "",
            ),
        ],
    ),
    Mutation(
        "records acknowledged although the log refused them",
        178,
        [Edit(PIPELINE, "        if entry.error is not None:\n", "        if False:\n")],
    ),
    Mutation(
        "only the first of several sends at once goes into the log",
        "tests/conformance/test_pipelines.py::test_sends_at_the_same_time",
        [Edit(PIPELINE, 'b"".join(entry.lines for entry in entries)', "entries[0].lines")],
    ),
    Mutation(
        "pipeline object written again after a crash without looking",
        124,
        [Edit(PIPELINE, "if await self._bucket.head(segment.seal.key) is None:", "if True:")],
    ),
    Mutation(
        "pipeline log deleted although its object could not be written",
        20,
        [
            Edit(
                PIPELINE,
                "                    await anyio.sleep(delay)\n                    continue\n",
                "                    await anyio.sleep(delay)\n",
            )
        ],
    ),
    # --- durable files ---
    Mutation(
        "SQLite commits not flushed",
        214,
        [Edit(DURABLE, "'OFF' if skip else 'FULL'", "'OFF' if skip else 'NORMAL'")],
    ),
    Mutation(
        "new folders not flushed",
        122,
        [Edit(DURABLE, "        flush_folder(each.parent)\n", "")],
    ),
    # --- R2 ---
    Mutation(
        "object's bytes not flushed before its commit",
        214,
        [
            Edit(
                FILE,
                "            unflushed = 0\n    with _explained(path):\n"
                "        durable.flush(file.fileno())",
                "            unflushed = 0",
            )
        ],
    ),
    Mutation(
        "name of an object's file not flushed",
        214,
        [Edit(FILE, "            durable.flush_folder(self._directory)\n", "            pass\n")],
    ),
    Mutation(
        "notification in a transaction of its own",
        201,
        [
            Edit(
                INDEXED,
                "self._objects.store(bucket, finished.object, blob, finished.outbox)",
                "self._objects.store(bucket, finished.object, blob, ())",
            ),
            Edit(
                INDEXED,
                "        self._drop(left_over)\n        return is_expected",
                "        with self._database.transaction():\n"
                "            self._objects.outbox.add(finished.outbox if is_expected else ())\n"
                "        self._drop(left_over)\n        return is_expected",
            ),
        ],
    ),
    Mutation(
        "notification of a joined upload forgotten",
        190,
        [
            Edit(
                UPLOADS,
                "self._objects.store(bucket, stored, blob, outbox)",
                "self._objects.store(bucket, stored, blob, ())",
            )
        ],
    ),
    Mutation(
        "outbox not replayed at start",
        243,
        [
            Edit(
                NOTIFICATIONS,
                "            await self._drain(driver, send)\n"
                "            await self._woken.wait()\n",
                "            await self._woken.wait()\n"
                "            await self._drain(driver, send)\n",
            )
        ],
    ),
    Mutation(
        "notification forgotten before it is sent",
        244,
        [
            Edit(
                NOTIFICATIONS,
                "            await send(entry.queue, entry.body)\n"
                "            sent.append(entry.id)\n",
                "            await driver.settle([entry.id])\n"
                "            await send(entry.queue, entry.body)\n",
            )
        ],
    ),
    # --- Queues ---
    Mutation(
        "message acknowledged before its handler has ended",
        238,
        [
            Edit(
                CONSUMER,
                "            result = await self._result(batch)\n",
                "            await self._insist(\n"
                "                partial(self.queue.ack, [each.lease_id for each in batch])\n"
                "            )\n"
                "            result = await self._result(batch)\n",
            )
        ],
    ),
    Mutation(
        "one retry too few",
        52,
        [
            Edit(
                CONSUMER,
                "message.attempts > self.settings.max_retries",
                "message.attempts >= self.settings.max_retries",
            ),
            Edit(
                CONSUMER,
                "message.attempts <= self.settings.max_retries",
                "message.attempts < self.settings.max_retries",
            ),
        ],
    ),
    Mutation(
        "messages of a lease whose reply was lost never come back",
        4,
        [
            Edit(
                CONSUMER,
                "            self._orphans_back.append(now + LEASE_SECONDS)\n",
                "",
            )
        ],
    ),
    Mutation(
        "batch acknowledged although it was not delivered",
        "tests/conformance/test_queues.py::test_failed_delivery_retries_the_whole_batch",
        [
            Edit(
                CONSUMER,
                "BatchResult(retries=[Retry(message.id) for message in batch], failed=True)",
                "BatchResult(acks=[message.id for message in batch], failed=True)",
            )
        ],
    ),
    Mutation(
        "lease without expiry",
        4,
        [Edit(SQLITE, "AND leased_until <= ?", "AND leased_until <= 0 * ?")],
    ),
    Mutation(
        "leases of a killed platform kept",
        213,
        [
            Edit(
                SQLITE,
                "            db.execute("
                '"UPDATE message SET leased_until = NULL WHERE leased_until IS NOT NULL")\n',
                "",
            )
        ],
    ),
    Mutation(
        "deliveries not counted",
        169,
        [Edit(SQLITE, "attempts = attempts + 1\nWHERE", "attempts = attempts + 0\nWHERE")],
    ),
    Mutation(
        "dead letter deleted and not moved",
        52,
        [
            Edit(
                "edgesim/queues/dead_letters.py",
                "if self._dead_letter is None:",
                "if True:",
            )
        ],
    ),
    # --- Workers between them ---
    Mutation(
        "messages of a handler that threw are acknowledged",
        178,
        [
            Edit(
                "edgesim/runtime/delivery.py",
                '"ack" if done.outcome == "ok" else "retry"',
                '"ack"',
            )
        ],
    ),
    Mutation(
        "last trace of a batch not delivered",
        190,
        [
            Edit(
                "edgesim/runtime/tail.py",
                "for _ in range(count)]",
                "for _ in range(count)][:-1]",
            )
        ],
    ),
    Mutation(
        "insert without its deduplication token",
        3,
        [
            Edit(
                "workers/insert/tables.py",
                '        settings = SETTINGS | {"insert_deduplication_token": token}\n',
                "        settings = SETTINGS\n",
            )
        ],
    ),
    Mutation(
        "insert Worker acknowledges what it could not insert",
        238,
        [
            Edit(
                INSERT,
                '            print(f"insert failed, attempt {message.attempts}: {error}")\n'
                "            self._retry(message)\n",
                '            print(f"insert failed, attempt {message.attempts}: {error}")\n'
                "            message.ack()\n",
            )
        ],
    ),
    Mutation(
        "insert Worker acknowledges a dead letter that it could not send",
        "tests/unit/workers/test_insert.py::test_a_dead_letter_that_cannot_be_sent_is_tried_again",
        [
            Edit(
                INSERT,
                '            print(f"dead letter not sent: {second}")\n'
                "            self._retry(message)\n",
                '            print(f"dead letter not sent: {second}")\n            message.ack()\n',
            )
        ],
    ),
]
