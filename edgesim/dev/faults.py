"""Faults of stores that are switched on and off while ``edgesim dev`` runs; never in ``serve``."""

from __future__ import annotations

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from edgesim.clickhouse.driver import ClickHouseDriver
from edgesim.clock import Clock
from edgesim.dev.endpoints import json_reply
from edgesim.errors import UsageError
from edgesim.faults.injector import Injector, Life
from edgesim.faults.language import KINDS, FaultRule, parse
from edgesim.faults.stores import FaultyClickHouse, FaultyKv, FaultyQueues, FaultyR2
from edgesim.faults.targets import store_targets
from edgesim.kv.driver import KvDriver
from edgesim.queues.driver import QueueDriver
from edgesim.r2.driver import R2Driver
from edgesim.simulator import Simulator

RULES_MAX = 20
RULES_BYTES_MAX = 10_000

log = structlog.get_logger()


class ActiveFault(msgspec.Struct, frozen=True):
    """A rule that is on, and the number of calls that it struck."""

    rule: str
    struck: int


class FaultsThatAreOn(msgspec.Struct, frozen=True):
    """All rules that are on."""

    rules: list[ActiveFault]


class KnownFaults(FaultsThatAreOn, frozen=True):
    """The rules that are on, and those that can be."""

    allowed: bool
    targets: list[str]
    kinds: list[str]


class StoreFaults:
    """The rules that are on now, in the fault language of replays; see ``backends.Wrapping``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._life = Life()
        self._injector = Injector([], clock.random.getrandbits(32), clock)

    def r2(self, driver: R2Driver) -> R2Driver:
        """The object store with the faults."""
        return FaultyR2(driver, self._injector, self._life)

    def queues(self, driver: QueueDriver) -> QueueDriver:
        """The message store with the faults."""
        return FaultyQueues(driver, self._injector, self._life, self._clock)

    def kv(self, driver: KvDriver) -> KvDriver:
        """The key-value store with the faults."""
        return FaultyKv(driver, self._injector, self._life, self._clock)

    def clickhouse(self, driver: ClickHouseDriver) -> ClickHouseDriver:
        """The database with the faults."""
        return FaultyClickHouse(driver, self._injector, self._life)

    def active(self) -> list[ActiveFault]:
        """The rules that are on."""
        injector = self._injector
        return [ActiveFault(each.text, injector.counts[each.text]) for each in injector.rules]

    def switch(self, rules: list[FaultRule]) -> None:
        """Use these rules from now on; one that is on already keeps its times and its count."""
        wanted = {rule.text: rule for rule in rules}
        for rule in list(self._injector.rules):
            if wanted.pop(rule.text, None) is None:
                self._injector.remove(rule)
        self._injector.add(list(wanted.values()))
        texts = [each.text for each in self._injector.rules]
        if texts:
            log.warning("faults are on", rules="; ".join(texts))
        else:
            log.info("faults are off")


async def show(simulator: Simulator, request: Request) -> KnownFaults:
    """Return the faults that are on, and the targets and kinds that rules may use."""
    faults: StoreFaults | None = request.app.state.faults
    targets = store_targets(simulator.project)
    return KnownFaults(
        [] if faults is None else faults.active(),
        faults is not None,
        [name for names in targets.values() for name in names],
        [name for name, groups in KINDS.items() if set(targets) & set(groups)],
    )


async def switch(simulator: Simulator, request: Request) -> Response:
    """Replace the faults by the rules of the body, one a line; an empty body switches all off."""
    faults: StoreFaults | None = request.app.state.faults
    if faults is None:
        return PlainTextResponse("faults are for `edgesim dev`; `serve` injects none\n", 409)
    text = await _text(request)
    rules = parse(text, "rule ", store_targets(simulator.project))
    if len(rules) > RULES_MAX:
        raise UsageError(f"{len(rules)} rules are too many; {RULES_MAX} can be on at a time")
    faults.switch(rules)
    return json_reply(FaultsThatAreOn(faults.active()))


async def _text(request: Request) -> str:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > RULES_BYTES_MAX:
            raise UsageError(f"the rules are over {RULES_BYTES_MAX} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError("the rules are not UTF-8") from error
