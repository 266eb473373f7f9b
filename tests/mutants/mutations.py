"""The mutations: small changes of the product that lose, duplicate or delay data.

``caught_by`` is a seed of the simulation that is known to detect it (another of the first 300 will
do), or the test that does.
"""

from typing import NamedTuple


class Edit(NamedTuple):
    """Replace a text that occurs exactly once in the file."""

    file: str
    old: str
    new: str


class Mutation(NamedTuple):
    """A fault; its name describes the defect."""

    name: str
    caught_by: int | str
    edits: list[Edit]
    scenario: str = "events"
    """The project that a seed in ``caught_by`` runs on: see `tests.simulation.scenarios`."""


SEGMENT = "edgesim/pipelines/segment.py"
PIPELINE = "edgesim/pipelines/pipeline.py"
BUFFER = "edgesim/pipelines/buffer.py"
DURABLE = "edgesim/durable.py"
FILE = "edgesim/r2/local/file.py"
INDEXED = "edgesim/r2/local/indexed.py"
UPLOADS = "edgesim/r2/local/indexed_uploads.py"
NOTIFICATIONS = "edgesim/r2/notifications.py"
CONSUMER = "edgesim/queues/consumer.py"
SQLITE = "edgesim/queues/sqlite/driver.py"
STATEMENTS = "edgesim/queues/sqlite/statements.py"
INSERT = "workers/insert/insert.py"
FRAMES = "edgesim/pipelines/frames.py"
BLOCKS = "edgesim/r2/local/block_sums.py"
ENGINE = "edgesim/clickhouse/chdb/process.py"
CATALOG = "edgesim/pipelines/iceberg/catalog.py"
TABLE = "edgesim/pipelines/sinks/catalog_table.py"
POSITIONS = "edgesim/pipelines/streams/positions.py"
STREAM = "edgesim/pipelines/streams/stream.py"
ICEBERG_TESTS = "tests/conformance/test_iceberg.py"
STREAM_TESTS = "tests/conformance/test_streams.py"
DISK_TESTS = "tests/unit/replay/test_disk.py"

MUTATIONS = [
    # --- Streams and Iceberg tables ---
    Mutation(
        "window of a table not recognised after a crash",
        f"{ICEBERG_TESTS}::test_a_failure_at_each_put_loses_and_repeats_nothing",
        [Edit(TABLE, "        if each.summary.get(WINDOW) == window.id:\n", "        if False:\n")],
    ),
    Mutation(
        "catalog changed without compare-and-swap",
        f"{ICEBERG_TESTS}::test_writers_at_the_same_time_lose_nothing",
        [Edit(CATALOG, "content, only_if=unchanged)", "content)")],
    ),
    Mutation(
        "commit on metadata that have changed meanwhile",
        f"{ICEBERG_TESTS}::test_writers_at_the_same_time_lose_nothing",
        [
            Edit(
                CATALOG, '            if tables.get(table, "") != old:\n', "            if False:\n"
            )
        ],
    ),
    Mutation(
        "a stream's log forgotten before every sink is past it",
        f"{STREAM_TESTS}::test_a_slow_sink_keeps_its_records_while_another_goes_on",
        [
            Edit(
                STREAM,
                "if all(reader.is_past(segment) for reader in self.readers)",
                "if any(reader.is_past(segment) for reader in self.readers)",
            )
        ],
    ),
    Mutation(
        "positions of a stream always in one file",
        f"{STREAM_TESTS}::test_one_damaged_file_is_no_loss",
        [Edit(POSITIONS, "self._files[saved.save % len(self._files)]", "self._files[0]")],
    ),
    Mutation(
        "a window named by what is left of it",
        5100178,
        [
            Edit(
                STREAM,
                "reader.position.first, ahead[-1].number, start_of(ahead[0]))",
                "reader.position.first, ahead[-1].number)",
            )
        ],
        "streams",
    ),
    # --- Pipelines ---
    Mutation(
        "pipeline log not flushed before the acknowledgement",
        1,
        [
            Edit(
                SEGMENT,
                "            durable.flush(descriptor, self.path)\n        except OSError:\n",
                "            pass\n        except OSError:\n",
            )
        ],
    ),
    Mutation(
        "name of a new pipeline log not flushed",
        1,
        [Edit(SEGMENT, "            durable.flush_folder(path.parent)\n", "")],
    ),
    Mutation(
        "pipeline log written on after a failed flush",
        "tests/unit/pipelines/test_log.py::test_a_file_whose_sync_failed_is_replaced",
        [
            Edit(
                SEGMENT,
                "            self._suspect = True\n            raise\n",
                "            raise\n",
            )
        ],
    ),
    Mutation(
        "records acknowledged although the log refused them",
        4,
        [Edit(BUFFER, "        if entry.error is not None:\n", "        if False:\n")],
    ),
    Mutation(
        "only the first of several sends at once goes into the log",
        "tests/conformance/test_pipelines.py::test_sends_at_the_same_time",
        [Edit(BUFFER, 'b"".join(entry.lines for entry in entries)', "entries[0].lines")],
    ),
    Mutation(
        "pipeline object written again after a crash without looking",
        1,
        [Edit(PIPELINE, "if await self._bucket.head(segment.key) is None:", "if True:")],
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
    Mutation(
        "records behind a damaged frame dropped",
        211,
        [
            Edit(
                FRAMES,
                "            start = yield from _next_magic(descriptor, start + 1, size)\n",
                "            return\n",
            )
        ],
    ),
    Mutation(
        "damaged records of an open window dropped silently",
        9,
        [
            Edit(
                SEGMENT,
                '            log.error("pipeline log damaged, records lost", **lost)\n',
                "",
            )
        ],
    ),
    Mutation(
        "damaged records of an open window not set aside",
        9,
        [
            Edit(
                SEGMENT,
                "saved = set_aside(self.path, descriptor, place, end)",
                "saved = f'{end} {set_aside is None}'",
            )
        ],
    ),
    Mutation(
        "window goes on although its object may be there",
        "tests/conformance/test_pipelines.py::test_a_window_whose_seal_is_lost_is_not_written_twice",
        [Edit(BUFFER, "if await self._rules.may_resume(self._log.open):", "if True:")],
    ),
    Mutation(
        "names of an earlier run's logs not flushed",
        f"{DISK_TESTS}::"
        "test_a_log_that_was_left_without_its_name_flushed_is_durable_once_it_is_used",
        [Edit("edgesim/pipelines/log.py", "        durable.flush_folder(folder)\n", "")],
    ),
    # --- durable files ---
    Mutation(
        "SQLite commits not flushed",
        1,
        [Edit(DURABLE, "'OFF' if skip else 'FULL'", "'OFF' if skip else 'NORMAL'")],
    ),
    Mutation(
        "new folders not flushed",
        122,
        [Edit(DURABLE, "        flush_folder(each.parent)\n", "        pass\n")],
    ),
    Mutation(
        "folders that an earlier run left not flushed",
        f"{DISK_TESTS}::test_a_folder_that_was_left_without_a_flush_is_durable_once_it_is_used",
        [Edit(DURABLE, "if not _may_be_new(each):", "if each not in missing:")],
    ),
    # --- R2 ---
    Mutation(
        "checksums of blocks not verified",
        200,
        [Edit(BLOCKS, "if zlib.crc32(block).to_bytes(_SUM_BYTES) != expected:", "if False:")],
    ),
    Mutation(
        "damage of an object not said",
        200,
        [Edit(BLOCKS, '            log.error("r2 object damaged", **place)\n', "")],
    ),
    Mutation(
        "object whose file is gone not said",
        "tests/unit/r2/test_r2_damage.py::"
        "test_an_object_whose_bytes_are_gone_is_said_to_be_damaged[None]",
        [Edit(FILE, "if isinstance(error.__cause__, FileNotFoundError):", "if False:")],
    ),
    Mutation(
        "object's bytes not flushed before its commit",
        1,
        [
            Edit(
                FILE,
                "text + footer, flush=True",
                "text + footer, flush=False",
            )
        ],
    ),
    Mutation(
        "name of an object's file not flushed",
        0,
        [Edit(FILE, "        durable.flush_folder(directory)\n", "        pass\n")],
    ),
    Mutation(
        "notification in a transaction of its own",
        40,
        [
            Edit(
                INDEXED,
                "bucket, finished.object, blob, sums.value(), finished.outbox",
                "bucket, finished.object, blob, sums.value(), ()",
            ),
            Edit(
                INDEXED,
                "        is_expected = left_over is not None\n",
                "        is_expected = left_over is not None\n"
                "        with self._database.transaction():\n"
                "            self._objects.outbox.add(finished.outbox if is_expected else ())\n",
            ),
        ],
    ),
    Mutation(
        "notification of a joined upload forgotten",
        190,
        [
            Edit(
                UPLOADS,
                "self._objects.store(bucket, stored, blob, sums, outbox)",
                "self._objects.store(bucket, stored, blob, sums, ())",
            )
        ],
    ),
    Mutation(
        "outbox not replayed at start",
        11,
        [
            Edit(
                NOTIFICATIONS,
                "            await self._drain(driver, send)\n"
                "            with anyio.move_on_after("
                "_DOUBT_SECONDS if driver.in_doubt else math.inf):\n"
                "                await self._woken.wait()\n",
                "            with anyio.move_on_after("
                "_DOUBT_SECONDS if driver.in_doubt else math.inf):\n"
                "                await self._woken.wait()\n"
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
                "            await self._send(entry, send)\n"
                "                sent.append(entry.id)\n",
                "            await driver.settle([entry.id])\n"
                "                await self._send(entry, send)\n",
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
        0,
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
                "BatchResult(retries=retries, failed=True, not_delivered=repr(error))",
                "BatchResult(acks=[message.id for message in batch], failed=True)",
            )
        ],
    ),
    Mutation(
        "lease without expiry",
        4,
        [Edit(STATEMENTS, "AND leased_until <= ? LIMIT", "AND leased_until <= 0 * ? LIMIT")],
    ),
    Mutation(
        "leases of a killed platform kept",
        5,
        [
            Edit(
                SQLITE,
                "        if leased:\n",
                "        if False:\n",
            )
        ],
    ),
    Mutation(
        "deliveries not counted",
        169,
        [Edit(STATEMENTS, "attempts = attempts + 1 WHERE", "attempts = attempts + 0 WHERE")],
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
    Mutation(
        "failures of the platform count as deliveries",
        "tests/conformance/test_queues.py::test_failures_of_the_platform_are_no_attempts",
        [Edit(CONSUMER, "leases, pause, False)", "leases, pause, True)")],
    ),
    Mutation(
        "stored times not adjusted when the clock was set",
        "tests/unit/queues/test_queue_clock.py::test_clock_goes_wrong_between_two_runs",
        [Edit("edgesim/timeline.py", "round(now.shift + step, 3)", "now.shift")],
    ),
    # --- ClickHouse ---
    Mutation(
        "changes of embedded ClickHouse not flushed before the answer",
        "tests/unit/clickhouse/test_disk.py::test_a_change_is_on_disk_before_its_answer",
        [Edit(ENGINE, "        self.disk.flush()\n", "")],
    ),
    Mutation(
        "failed writes of embedded ClickHouse not noticed",
        "tests/unit/clickhouse/test_disk.py::test_a_write_that_failed_is_no_success",
        [Edit(ENGINE, "        self.writes.check(before)\n", "        del before\n")],
    ),
    # --- Workers between them ---
    Mutation(
        "messages of a handler that threw are acknowledged",
        0,
        [
            Edit(
                "edgesim/runtime/decisions.py",
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
                'settings = SETTINGS | {"insert_deduplication_token": token} | more',
                "settings = SETTINGS | more",
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
