"""Run ``edgesim dev`` and ``edgesim serve``: own the state, open the stores, serve, close.

uvicorn serves, without its signal handling. Shutdown is controlled here, in this order: the last
responses are sent, traces reach their Tail Workers, (``serve`` only) windows become objects and are
delivered, then the stores close.

granian was tried and rejected: its server for a shared event loop is experimental, and beside the
isolates, on two cores, it reached 0.8 of the throughput of uvicorn with httptools and uvloop.

One process serves, since the pipelines' logs, the outbox and the SQLite stores have a single owner.
If its core is saturated, add another node with its own state, on this machine or elsewhere.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

import anyio
import msgspec
import structlog
import uvicorn
from anyio.abc import TaskGroup, TaskStatus
from starlette.types import ASGIApp

from edgesim import drivers, line_writer
from edgesim.backends import Backends, open_backends
from edgesim.clock import Clock
from edgesim.config import Environment, Project
from edgesim.config.flow_changes import applied_flow
from edgesim.config.flow_changes import changes as changes_on_cloudflare
from edgesim.config.outbound import allowed
from edgesim.config.unconsumed import unheard_notifications, unheard_producers
from edgesim.dev import clickhouse_port
from edgesim.dev.access import Access
from edgesim.dev.account_api import account_api
from edgesim.dev.admin import admin_app
from edgesim.dev.connection import connections
from edgesim.dev.edge import LOOPBACK_HOSTS, Edge
from edgesim.dev.faults import StoreFaults
from edgesim.dev.front import Front
from edgesim.dev.inspector import HEAD_BYTES_MAX, InspectorServer
from edgesim.dev.presence import FILE, Owner, StateWatch, own
from edgesim.dev.record import Recorder, recording
from edgesim.dev.reload import changes, is_configuration, reload_workers
from edgesim.dev.room import Room, limits_here
from edgesim.dev.s3_api.app import S3Api
from edgesim.doctor import refuse_early
from edgesim.errors import (
    ClickHouseError,
    ConfigError,
    EdgesimError,
    RunError,
    UsageError,
    WorkerLoadError,
    reason,
)
from edgesim.isolates.protocol.limits import KERNEL_GUARDS
from edgesim.observation.recent import RecentTraces
from edgesim.runtime.reach import Reach
from edgesim.simulator import Simulator, open_simulator
from edgesim.taps import Taps
from edgesim.telemetry.exporter import open_exporter
from edgesim.urls import same_place
from edgesim.writer_thread import WriterThread

GRACE_SECONDS = 10
LAST_WORDS_SECONDS = 0.5
"""Time to flush the log when exiting without delay."""
STATE_SECONDS = 1.0
"""Polling interval of the state directory."""
SAME_SIGNAL_SECONDS = 0.15
"""Signals within this time count as one: `timeout` and others signal the process and its group."""
CONNECTIONS_MAX = 1024
PORT_CONNECTIONS_MAX = 64

log = structlog.get_logger()


class ServerOptions(msgspec.Struct, frozen=True):
    """Serving options of the command line; port 0 picks a free one."""

    host: str = "127.0.0.1"
    port: int = 8787
    reload: bool = True
    record: Path | None = None
    drain_seconds: float = 0
    """Seconds at shutdown for writing windows and delivering messages."""
    strict: bool = False
    """True if Workers may reach only the public internet and ``[outbound] allow``."""
    notice_seconds: float = 0
    """Seconds at shutdown during which requests are still served, while readiness reports 503."""
    inspect: int | None = None
    """Port of the debugger of JavaScript Workers."""
    s3_port: int | None = None
    """Port of the S3 API; None means ``[server] s3_port``."""


class _Uvicorn(uvicorn.Server):
    """uvicorn as a task of the server: it signals when it is up, and ignores signals."""

    def __init__(self, config: uvicorn.Config, status: TaskStatus[None]) -> None:
        super().__init__(config)
        self._status = status

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._status.started()


class Server:
    """One run of the command."""

    def __init__(
        self, load: Callable[[], Project], options: ServerOptions, environment: Environment
    ) -> None:
        self._load = load
        self._options = options
        self._environment = environment
        self._clock = Clock()
        self._front = Front(loopback=options.host in LOOPBACK_HOSTS, explained=not options.strict)
        self._reach = Reach(strict=options.strict)
        self._taps = Taps(self._clock)
        run = f"{self._clock.random.getrandbits(32):08x}"
        self._recent = RecentTraces(self._taps, run, with_events=not options.strict)
        self._faults = None if options.strict else StoreFaults(self._clock)
        self._leaving = False
        self._state: StateWatch | None = None
        self._stop = anyio.Event()
        self._http_ended = anyio.Event()

    async def run(
        self, ready: Callable[[str], None], ready_port: Callable[[str, str], None]
    ) -> None:
        """Serve until SIGINT or SIGTERM.

        ``ready`` is called with the URL once requests are accepted, ``ready_port`` with the name
        and URL of each further port that the project configures: ClickHouse, S3.
        """
        project = self._load()
        with (
            own(project.state, project.state_name) as ownership,
            _listen(self._options) as listener,
            self._recording() as self._front.recorder,
        ):
            self._reach.add_listener(listener)
            own_token = secrets.token_urlsafe(32)
            access = Access(self._environment.admin_token, own_token)
            self._front.admin = admin_app(
                self._front,
                access,
                self._recent,
                self._taps,
                self._is_ready,
                self._problem,
                self._faults,
            )
            self._front.api = account_api(self._front, access, self._environment.api_token)
            url = f"http://{_shown(self._options.host)}:{listener.getsockname()[1]}"
            places = {
                name: same_place(place)
                for name, place in msgspec.structs.asdict(project.backends).items()
            }

            def up() -> None:
                gc.freeze()  # exclude long-lived start-up objects from garbage collection
                ownership.announce(Owner(os.getpid(), url, own_token, places))
                ready(url)
                for name, address in ports.items():
                    ready_port(name, address)

            await refuse_early(project, self._environment, self._clock)
            ports: dict[str, str] = {}
            async with (
                open_backends(project, self._environment, self._clock, self._faults) as backends,
                open_exporter(project, self._clock, self._recent) as self._front.exporter,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(self._front.watch)
                tasks.start_soon(self._watch_signals)
                tasks.start_soon(self._watch_state)
                await tasks.start(self._serve_http, self._front, listener)
                await self._serve_ports(project, access, tasks, ports)
                await self._serve_inspector(tasks)
                await self._simulate(project, backends, up)
                tasks.cancel_scope.cancel()
                problem = self._problem()  # before the stores close and remove some files
        if problem:
            raise RunError(problem)

    async def _serve_ports(
        self, project: Project, access: Access, tasks: TaskGroup, ports: dict[str, str]
    ) -> None:
        """Serve the ports of ClickHouse and S3 on loopback, if configured; add their URLs.

        A reload does not change the ports.
        """
        s3_key, s3_port = "server.s3_port", project.account.server.s3_port
        if self._options.s3_port is not None:
            s3_key, s3_port = "--s3-port", self._options.s3_port
        edge = Edge(loopback=True)
        for name, key, port, app in (
            (
                "ClickHouse",
                "clickhouse.port",
                project.account.clickhouse.port,
                clickhouse_port.ClickHousePort(self._front, access),
            ),
            ("S3", s3_key, s3_port, S3Api(self._front, access, "", edge)),
        ):
            if port is None:
                continue
            try:
                listener = _listen(ServerOptions(clickhouse_port.HOST, port))
            except UsageError as error:
                problem = f"cannot listen on port {port}: {error.__cause__}; 0 picks a free one"
                if key.startswith("--"):
                    raise UsageError(f"{key}: {problem}") from error
                raise ConfigError(project.file, key, problem) from error
            self._reach.add_listener(listener)
            await tasks.start(self._serve_http, app, listener)
            ports[name] = f"http://{clickhouse_port.HOST}:{listener.getsockname()[1]}"

    async def _serve_inspector(self, tasks: TaskGroup) -> None:
        """Serve the debugger of JavaScript Workers on loopback, if it was asked for."""
        port = self._options.inspect
        if port is None:
            return
        listener = _listen(ServerOptions(port=port), "--inspect")
        self._reach.add_listener(listener)
        self._reach.inspectors = lambda: self._front.inspector_ports().values()
        inspector = InspectorServer(self._front.inspector_ports)
        server = await asyncio.start_server(inspector.serve, sock=listener, limit=HEAD_BYTES_MAX)
        log.info("debugger", url=f"http://127.0.0.1:{listener.getsockname()[1]}/json")

        async def run() -> None:
            async with server:
                await anyio.sleep_forever()

        tasks.start_soon(run)

    def _recording(self) -> AbstractContextManager[Recorder | None]:
        where = self._options.record
        return nullcontext() if where is None else recording(where, self._clock)

    async def _simulate(self, project: Project, backends: Backends, up: Callable[[], None]) -> None:
        """Run the project, and its successors as its configuration changes, until stopped."""
        good: Project | None = None
        successor: Project | None = project
        while successor is not None:
            project = successor
            try:
                reach, exporter = self._reach, self._front.exporter
                if exporter is not None:
                    exporter.use(project)
                reach.allow = allowed(project.file, project.account.outbound.allow)
                async with open_simulator(
                    project,
                    backends,
                    self._clock,
                    reach=reach,
                    sink=exporter or self._recent,
                    taps=self._taps,
                    tracer=None if exporter is None else exporter.tracer,
                ) as simulator:
                    self._front.show(simulator)
                    _say_how_isolated(simulator)
                    _warn_of_queues(project)
                    _warn_of_streams(project)
                    if good is None:
                        self._state = StateWatch(_state_paths(project))
                        up()
                    saved = good is not None and good.schema != project.schema
                    good = project
                    successor = await self._until_changed(simulator, saved_schema=saved)
                    if successor is None:
                        await self._http_ended.wait()  # the last responses still need Workers
                        await self._drain(simulator)
                    self._front.show(None)
            except (ConfigError, WorkerLoadError) as error:
                if good is None or project is good:
                    raise
                log.error("not reloaded, the old configuration goes on", error=str(error))
                successor = good

    async def _drain(self, simulator: Simulator) -> None:
        seconds = self._options.drain_seconds
        if not seconds:
            return
        if await simulator.draining.leave(seconds) and not self._problem():
            log.info("drained")
        else:
            log.error("not drained in time, the rest is for the next start", seconds=seconds)

    def _problem(self) -> str:
        return self._state.look() if self._state else ""

    async def _watch_state(self) -> None:
        """Detect a deleted or replaced state even without requests."""
        while not self._problem():  # noqa: ASYNC110 (file systems send no event)
            await anyio.sleep(STATE_SECONDS)

    def _is_ready(self) -> bool:
        return self._front.serving and not self._leaving

    async def _until_changed(self, simulator: Simulator, *, saved_schema: bool) -> Project | None:
        """Wait for a new configuration or the stop; reload changed modules meanwhile.

        Returns the project to continue with, or None to stop.
        """
        result: list[Project | None] = []
        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                await self._stop.wait()
                result.append(None)
                tasks.cancel_scope.cancel()

            async def watch() -> None:
                async for files in changes(simulator.project):
                    configuration = [
                        file for file in files if is_configuration(file, simulator.project)
                    ]
                    if not configuration:
                        await reload_workers(simulator, files)
                    elif (
                        project := await self._reloaded(configuration, simulator.project)
                    ) is not None:
                        result.append(project)
                        tasks.cancel_scope.cancel()

            tasks.start_soon(stop)
            if saved_schema:
                tasks.start_soon(_apply_schema, simulator)
            if self._options.reload:
                tasks.start_soon(watch)
        return result[0]

    async def _reloaded(self, files: list[Path], old: Project) -> Project | None:
        names = ", ".join(file.name for file in files)
        try:
            # In a thread: reading many files takes longer than one turn of the event loop may.
            with closing(WriterThread("configuration")) as thread:
                project = await thread.run(self._load)
        except EdgesimError as error:
            log.error("not reloaded, the old configuration goes on", error=str(error))
            return None
        log.info("configuration changed, reopening the project", files=names)
        for change in changes_on_cloudflare(
            applied_flow(old.dataflow), applied_flow(project.dataflow)
        ):
            log.info("on Cloudflare this change means", change=str(change))
        return project

    async def _watch_signals(self) -> None:
        with anyio.open_signal_receiver(*_stopping_signals()) as signals:
            async with anyio.create_task_group() as tasks:
                first = 0.0
                async for number in signals:
                    if not self._leaving:
                        first = self._clock.elapsed()
                        log.info("stopping", signal=signal.Signals(number).name)
                        self._leaving = True
                        tasks.start_soon(self._stop_after_notice)
                    elif self._clock.elapsed() - first > SAME_SIGNAL_SECONDS:
                        log.warning("second signal, stopping without delay")
                        line_writer.flush(LAST_WORDS_SECONDS)
                        os._exit(130)

    async def _stop_after_notice(self) -> None:
        await anyio.sleep(self._options.notice_seconds)
        self._stop.set()

    async def _serve_http(
        self, app: ASGIApp, listener: socket.socket, *, task_status: TaskStatus[None]
    ) -> None:
        most = CONNECTIONS_MAX if app is self._front else PORT_CONNECTIONS_MAX
        limits = limits_here(most)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            http=connections(Room(limits)),  # type: ignore[arg-type]  # a factory of protocols
            backlog=limits.backlog,
            proxy_headers=False,  # the front decides which proxies are trusted
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        server = _Uvicorn(config, task_status)
        async with anyio.create_task_group() as tasks:

            async def end() -> None:
                await self._stop.wait()
                self._taps.end()
                self._recent.end()  # or open streams would hold the server back
                server.should_exit = True

            tasks.start_soon(end)
            await server.serve(sockets=[listener])
            tasks.cancel_scope.cancel()
        if app is self._front:
            self._http_ended.set()


def _state_paths(project: Project) -> list[Path]:
    """Files and folders that must not be deleted or replaced while they are open."""
    state = project.state
    paths = [state, state / FILE, state / "r2-local" / "outbox.db"]
    logs = [*project.account.pipelines, *project.dataflow.streams]
    paths += [state / "pipelines" / name for name in logs]
    paths += [state / "analytics" / name for name in project.datasets()]
    for name, url in msgspec.structs.asdict(project.backends).items():
        if project.uses(name):
            paths += drivers.files_of(name, url)
    return paths


async def _apply_schema(simulator: Simulator) -> None:
    """Apply the saved schema; a failure is logged and changes nothing else."""
    project = simulator.project
    file = project.account.clickhouse.schema
    try:
        await simulator.primitives.backends.gateway.change_schema(project.schema)
    except (ClickHouseError, RunError) as error:
        log.error("schema not applied", file=file, error=str(error))
    else:
        log.info("schema applied", file=file)


def _say_how_isolated(simulator: Simulator) -> None:
    """Log each Worker's isolation level and active guards; as a warning if a guard is missing."""
    for worker, guards in simulator.workers.guards.items():
        level = simulator.project.isolation_of(worker)
        say = log.info if set(KERNEL_GUARDS) <= set(guards) or level == "inline" else log.warning
        say("isolation", worker=worker, runs=level, guards=", ".join(guards) or "none")


def _warn_of_streams(project: Project) -> None:
    read = {each.stream for spec in project.dataflow.pipelines.values() for each in spec.statements}
    for name, stream in project.dataflow.streams.items():
        if name not in read:
            log.warning("stream feeds no pipeline: its records are not kept", stream=name)
        if stream.config.http.auth and project.ingest_token is None:
            log.warning("stream refuses HTTP ingest: EDGESIM_INGEST_TOKEN is not set", stream=name)


def _warn_of_queues(project: Project) -> None:
    for each in unheard_notifications(project) + unheard_producers(project):
        log.warning("queue has no consumer", queue=each.queue, file=str(each.file), key=each.key)


def _stopping_signals() -> list[signal.Signals]:
    """Signals that stop the server; SIGHUP unless it is ignored, as under `nohup`."""
    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    return wanted


def _listen(options: ServerOptions, option: str = "--port") -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
    except OSError as error:
        listener.close()
        cure = f"choose another {option} (0 picks a free one)"
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            cure = "choose another --host, an address of this machine"
        where = f"{options.host}:{options.port}"
        raise UsageError(f"cannot listen on {where}: {reason(error)}", cure) from error
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
