"""The faults of one seed, as rules of the fault language.

Faults end when the traffic ends.  Kills may come a little later, when only recovery can help.
"""

import random

HORIZON_SECONDS = 600.0
"""Seconds in which requests arrive and most faults happen."""

MENU = [
    "r2 error {percent}",
    "r2.put error {percent}",
    "r2.get error {percent}",
    "r2.put lost-answer {percent}",
    "r2.settle lost-answer {percent}",
    "r2.outbox error {percent}",
    "r2 latency {delay} {percent}",
    "r2.create error {percent}",
    "r2.put_part error {percent}",
    "r2.put_part lost-answer {percent}",
    "r2.complete error {percent}",
    "r2.complete lost-answer {percent}",
    "queues error {percent}",
    "queues.send lost-answer {percent}",
    "queues.ack lost-answer {percent}",
    "queues.lease lost-answer {percent}",
    "queues.move lost-answer {percent}",
    "queues.release error {percent}",
    "queues latency {delay} {percent}",
    "queues duplicate {percent}",
    "queues reorder {percent}",
    "clickhouse error {percent}",
    "clickhouse lost-answer {percent}",
    "clickhouse.insert lost-answer {percent}",
    "clickhouse latency {delay} {percent}",
    "pipelines error {percent}",
    "pipelines lost-answer {percent}",
    "pipelines latency {delay} {percent}",
    "workers crash {percent}",
    "insert crash {percent}",
    "tail crash {percent}",
    "receiver crash {percent}",
    "large-payload crash {percent}",
    "dead-letter crash {percent}",
    "uploader crash {percent}",
    "workers error {percent}",
    "workers latency {delay} {percent}",
    "disk failed-fsync {percent}",
    "disk.pipelines failed-fsync {percent}",
    "disk.r2 failed-fsync {percent}",
    "disk.queues failed-fsync {percent}",
    "disk full {percent}",
]
JUMPS = ["1h", "-1h", "1d", "-1d", "2s", "-2s"]
CALM_SECONDS = 200.0
"""Seconds after the last request in which kills may come; only the ends of windows remain then."""
OUTAGES = ["clickhouse", "r2", "queues", "insert", "r2.get", "clickhouse.insert"]


def generate(seed: int, *, zygotes: bool = False) -> list[str]:
    """Return some rules; none for one seed in ten.  ``zygotes``: isolates are processes."""
    chance = random.Random(f"adversity {seed}")
    if chance.random() < 0.1:
        return []
    damage = random.Random(f"damage {seed}")  # a separate generator: the other faults do not change
    rules = [_rule(chance) for _ in range(chance.choice([1, 2, 4, 8]))]
    rules += [_outage(chance) for _ in range(chance.choice([0, 0, 1, 2]))]
    kills = chance.choice([0, 0, 0, 1, 1, 2, 4])
    rules += [f"platform kill at {_kill_time(chance)}s" for _ in range(kills)]
    rules += _aimed(chance)
    if any("failed-fsync" in rule for rule in rules):  # a store may ask for a restart
        rules.append(f"platform kill at {HORIZON_SECONDS + 20:.0f}s")
    if chance.random() < 0.15:
        rules += [f"clock jump {chance.choice(JUMPS)} at {_kill_time(chance)}s" for _ in range(2)]
    if chance.random() < 0.1:
        since = chance.uniform(0, HORIZON_SECONDS - 60)
        rules.append(f"disk full from {since:.1f}s to {since + chance.choice([1, 30]):.1f}s")
    rules += _lies(damage) + _flips(damage)
    if zygotes and chance.random() < 0.2:
        rules.append(f"workers zygote-death 2% to {HORIZON_SECONDS:.0f}s")
    return rules


def _aimed(chance):
    """Kills and power cuts just after a durable step, early or late in a run, and in recovery."""
    rules = []
    for _ in range(chance.choice([0, 0, 1, 2, 3])):
        stop = chance.choice(["kill", "power-cut"])
        since = chance.choice([0, chance.uniform(0, HORIZON_SECONDS + CALM_SECONDS)])
        steps = chance.choice([chance.randint(1, 12), chance.randint(1, 60)])
        rules.append(f"platform {stop} after {steps} steps from {since:.1f}s")
        if chance.random() < 0.3:
            again = chance.choice(["kill", "power-cut"])
            steps = chance.randint(1, 10)
            rules.append(f"platform {again} after {steps} recovery-steps from {since:.1f}s")
    if chance.random() < 0.3:
        rules.append(f"platform power-cut at {_kill_time(chance)}s")
    return rules


def _lies(chance):
    """Flushes that do nothing, and a power cut that exposes them."""
    if chance.random() >= 0.15:
        return []
    place = chance.choice(["disk.pipelines", "disk.pipelines", "disk.blobs", "disk"])
    return [
        f"{place} lying-fsync {chance.choice([20, 60, 100])}% to {HORIZON_SECONDS:.0f}s",
        f"platform power-cut at {_kill_time(chance)}s",
    ]


def _flips(chance):
    """Bit flips, mostly in logs, which exist for one window only."""
    if chance.random() >= 0.2:
        return []
    places = chance.choices(["disk.pipelines", "disk.blobs"], [3, 2], k=chance.choice([1, 2, 6]))
    return [f"{place} bit-flip at {_flip_time(chance)}s" for place in places]


def _flip_time(chance):
    """Sometimes later than all other faults: the checkers still read the objects."""
    return round(chance.uniform(1, HORIZON_SECONDS + chance.choice([0, CALM_SECONDS])), 3)


def _rule(chance):
    text = chance.choice(MENU).format(
        percent=f"{chance.choice([1, 5, 20, 60])}%",
        delay=f"{chance.choice([1, 20])}ms..{chance.choice([50, 500, 20_000])}ms",
    )
    return f"{text} to {HORIZON_SECONDS:.0f}s"


def _outage(chance):
    since = chance.uniform(0, HORIZON_SECONDS)
    until = min(since + chance.choice([5, 60, 400]), HORIZON_SECONDS)
    return f"{chance.choice(OUTAGES)} outage from {since:.1f}s to {until + 0.2:.1f}s"


def _kill_time(chance):
    """Often at a busy moment: around the end of a window."""
    if chance.random() < 0.5:
        return round(chance.choice([90, 91, 180, 270, 361]) + chance.random() * 3, 3)
    return round(chance.uniform(0.1, HORIZON_SECONDS), 3)
