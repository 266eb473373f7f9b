"""Outage drill: ClickHouse fails while events are ingested, and every event must arrive.

    python examples/outage/drill.py

There are two outages.  In the short one its process is stopped (SIGSTOP), so that it does not
reply, and continued; R2 and the queue buffer the data and drain without intervention.  The long one
outlasts the retries: the process is killed (SIGKILL) and cannot restart; failed objects wait in the
dead-letter queue and in insert_failures, and are redriven after the recovery.  At the end each
accepted event must be in ClickHouse exactly once, by its id.

Without arguments ClickHouse is the engine embedded in edgesim, and it cannot restart because its
folder has been moved.  With ``--server COMMAND --clickhouse URL`` it is a real server, which the
drill starts, stops and kills.  Exit status 0 on success, 1 on failure.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
ADMIN = "/cdn-cgi/edgesim"
PATIENCE_SECONDS = 60
START_MS = 1_767_225_600_000


class DrillError(Exception):
    """An expectation of the drill failed."""


class Embedded:
    """The embedded engine's process; edgesim starts a new one if it has exited."""

    url = None

    def __init__(self, state):
        self._folder = state / "clickhouse"
        self._aside = state / "out-of-reach"

    def start(self):
        """Do nothing: edgesim starts the process with the first statement."""

    def stop(self, *, for_good):
        """Pause the process; ``for_good``: kill it, and move its folder to prevent a restart."""
        self._pid = self._find()
        os.kill(self._pid, signal.SIGKILL if for_good else signal.SIGSTOP)
        if for_good:
            self._folder.rename(self._aside)
            self._folder.touch()

    def go_on(self, *, for_good):
        """Continue the process, or with ``for_good`` restore its folder."""
        if for_good:
            self._folder.unlink()
            self._aside.rename(self._folder)
        else:
            os.kill(self._pid, signal.SIGCONT)

    def close(self):
        """Do nothing: edgesim ends the process."""

    def _find(self):
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().decode().split("\0")
            except OSError:  # the process has exited
                continue
            if "edgesim.clickhouse.chdb.process" in words and str(self._folder) in words:
                return int(folder.name)
        raise DrillError("there is no process of the embedded ClickHouse")


class Server:
    """A ClickHouse server that the drill starts with ``command``."""

    def __init__(self, command, url):
        self.url = url
        self._command = shlex.split(command)
        self._process = None

    def start(self):
        """Start the server without waiting until it is ready; statements are retried."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self, *, for_good):
        """Pause the server, or with ``for_good`` kill it."""
        self._process.send_signal(signal.SIGKILL if for_good else signal.SIGSTOP)
        if for_good:
            self._process.wait()

    def go_on(self, *, for_good):
        """Continue the server, or with ``for_good`` start it anew."""
        if for_good:
            self.start()
        else:
            self._process.send_signal(signal.SIGCONT)

    def close(self):
        """Kill the server, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Edgesim:
    """A process of ``edgesim dev`` with its own state directory."""

    def __init__(self, project, state, url, isolation):
        more = ["--clickhouse", url] if url else []
        self._common = ["--state", str(state), *more]
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "edgesim.cli", "dev", str(project), "--port", "0"),
                *("--no-reload", "--quiet", "--isolation", isolation, *self._common),
            ],
            stdout=subprocess.PIPE,
            stderr=(state / "edgesim.log").open("wb"),
            text=True,
        )
        self._project = str(project)
        ready = self._process.stdout.readline()
        if not ready.startswith("Ready on "):
            raise DrillError((state / "edgesim.log").read_text())
        self.url = ready.removeprefix("Ready on ").strip()

    def request(self, path, body=None):
        """Body of the response (GET, or POST with ``body``); OSError for an error status."""
        with urllib.request.urlopen(self.url + path, body, timeout=30) as answer:
            return answer.read()

    def stats(self):
        return json.loads(self.request(f"{ADMIN}/stats"))

    def sql(self, query):
        """Result rows as lists; retried while ClickHouse starts, for up to PATIENCE_SECONDS."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self.request(f"{ADMIN}/sql?format=JSONCompact", query.encode())
                return json.loads(answer)["data"]
            except OSError as error:
                if time.monotonic() > deadline:
                    raise DrillError(f"{query}: {error}") from error
                time.sleep(0.2)

    def command(self, *words):
        """Run one edgesim command on the running project; DrillError if it fails."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "edgesim.cli", *words),
                *("--project", self._project, *self._common),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DrillError(done.stderr)
        print(f"  edgesim {' '.join(words)}: {done.stdout.strip()}")

    def close(self):
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()


class Load:
    """Sends one event per request inside ``on``; ``accepted``: player ids of those with 200."""

    def __init__(self, edgesim):
        self.accepted = []
        self.refused = 0
        self._edgesim = edgesim

    @contextmanager
    def on(self):
        off = threading.Event()
        thread = threading.Thread(target=self._run, args=[off])
        thread.start()
        try:
            yield
        finally:
            off.set()
            thread.join()

    def _run(self, off):
        while not off.wait(0.02):
            number = len(self.accepted) + self.refused
            event = {"event": "kill", "player_id": f"player-{number}", "ts": START_MS + number}
            try:
                self._edgesim.request("/", json.dumps(event).encode())
            except OSError:
                self.refused += 1
            else:
                self.accepted.append(event["player_id"])


def wait(edgesim, what, condition):
    """Poll the stats until ``condition`` is true, and print them once a second.

    Returns the stats; DrillError, with ``what``, after PATIENCE_SECONDS.
    """
    began = shown = time.monotonic()
    while True:
        stats = edgesim.stats()
        now = time.monotonic()
        done = condition(stats)
        if done or now - shown >= 1:
            print(f"  {state_of(stats)}", flush=True)
            shown = now
        if done:
            return stats
        if now - began > PATIENCE_SECONDS:
            raise DrillError(f"waited {PATIENCE_SECONDS} s in vain: {what}")
        time.sleep(0.1)


def state_of(stats):
    """The relevant stats on one line."""
    events, ingest = stats["pipelines"]["events"], stats["queues"].get("ingest", {})
    return (
        f"answered {stats['receiver']['requests']}, in the pipeline {events['pending']}, "
        f"objects {stats['r2'].get('events', {}).get('objects', 0)}, "
        f"queue {ingest.get('backlog', 0)} after {ingest.get('retried', 0)} retries, "
        f"dead letters {waiting(stats, 'ingest-dlq')}"
    )


def waiting(stats, queue="ingest"):
    """Number of messages in a queue."""
    return stats["queues"].get(queue, {}).get("backlog", 0)


def is_quiet(stats):
    """True if every accepted event is in ClickHouse or in the dead-letter queue."""
    return not (
        stats["tail"]["pending"] or stats["pipelines"]["events"]["pending"] or waiting(stats)
    )


def check(edgesim, load):
    """Raise DrillError unless each accepted event is in ClickHouse exactly once, and no other."""
    if load.refused:
        raise DrillError(f"{load.refused} requests were not answered with 200")
    rows = [row[0] for row in edgesim.sql("SELECT player_id FROM events")]
    missing, extra = set(load.accepted) - set(rows), set(rows) - set(load.accepted)
    print(f"  accepted {len(load.accepted)}, rows {len(rows)}, missing {len(missing)}")
    if missing or extra or len(rows) != len(set(rows)):
        twice = len(rows) - len(set(rows))
        raise DrillError(f"{len(missing)} missing, {twice} twice, {len(extra)} from nowhere")


def a_moment(edgesim, database):
    """Short outage: pause ClickHouse until an insert has been retried."""
    print("All is well:", flush=True)
    stats = wait(edgesim, "an insert", lambda stats: stats["queues"]["ingest"]["delivered"])
    retried = stats["queues"]["ingest"]["retried"]
    print("ClickHouse is stopped for a moment:", flush=True)
    database.stop(for_good=False)
    wait(edgesim, "a retry", lambda stats: stats["queues"]["ingest"]["retried"] > retried)
    database.go_on(for_good=False)
    print("It goes on, and so does all the rest:", flush=True)


def for_long(edgesim, database):
    """Long outage: kill ClickHouse until an object is in the dead-letter queue."""
    print("ClickHouse is killed, and down for longer than the retries:", flush=True)
    database.stop(for_good=True)
    wait(edgesim, "a dead letter", lambda stats: waiting(stats, "ingest-dlq"))


def recover(edgesim, database):
    """Restore ClickHouse, wait for the recorded failures, and redrive the dead letters."""
    stats = wait(edgesim, "the retries to end", is_quiet)
    dead = waiting(stats, "ingest-dlq")
    database.go_on(for_good=True)
    print("It is back, and the failures are recorded:", flush=True)
    query = "SELECT count(), uniqExact(object) FROM insert_failures"
    began = time.monotonic()
    while (counted := [int(count) for count in edgesim.sql(query)[0]]) != [dead, dead]:
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise DrillError(f"{dead} dead letters, but {counted} failures and their objects")
        time.sleep(0.25)
    for error, count in edgesim.sql("SELECT error, count() FROM insert_failures GROUP BY error"):
        print(f"  {count} x {error[:90]}")
    print("The dead letters are put back; twice, and all objects once more, doubles nothing:")
    for _ in range(2):
        edgesim.command("queue", "redrive", "ingest-dlq", "--to", "ingest")
    edgesim.command("r2", "requeue", "events")
    wait(edgesim, "the redriven objects", is_quiet)


def drill(edgesim, database):
    """Run both outages under load; DrillError if an expectation fails."""
    edgesim.sql("SELECT 1")  # wait for its start, which is not part of the drill
    load = Load(edgesim)
    with load.on():
        a_moment(edgesim, database)
    stats = wait(edgesim, "the queue to drain by itself", is_quiet)
    if waiting(stats, "ingest-dlq"):
        raise DrillError("a moment's outage has made dead letters")
    check(edgesim, load)
    with load.on():
        for_long(edgesim, database)
    recover(edgesim, database)
    check(edgesim, load)


def main():
    """Parse the command line, and run the drill; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", type=Path, default=HERE)
    parser.add_argument("--isolation", default="process", help="where handlers run")
    parser.add_argument("--server", help="the command that starts a ClickHouse server")
    parser.add_argument("--clickhouse", metavar="URL", help="where that server is reached")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgesim-outage-") as folder:
        state = Path(folder)
        if options.server is None:
            database = Embedded(state)
        else:
            database = Server(options.server, options.clickhouse)
        database.start()
        try:
            edgesim = Edgesim(options.project, state, database.url, options.isolation)
            try:
                drill(edgesim, database)
            finally:
                edgesim.close()
        except DrillError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
        finally:
            database.close()
    print("Every accepted event is there exactly once.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
