"""Which faults, when, and of what: a function of a seed, no I/O."""

import random
from enum import StrEnum
from typing import NamedTuple

FAULTS = 30
LONGEST_PAUSE_S = 20.0
LONGEST_STORE_AWAY_S = 30.0


class Kind(StrEnum):
    """What is done."""

    KILL = "kill -9"
    PAUSE = "SIGSTOP"
    JOIN = "join and leave"
    """One more worker, for a while."""
    LEAVE = "leave and join"
    """A worker is asked to end, and started again."""


class Part(StrEnum):
    """To whom. Faults of one part come one after the other, those of different parts as it happens."""

    BROKER = "broker"
    INGEST = "ingest"
    WORKER = "worker"
    STORE = "store"


class Fault(NamedTuple):
    """One fault."""

    part: Part
    kind: Kind
    victim: int
    """Which one, as a number to take the remainder of."""
    after_s: float
    """Since the part's last fault was over."""
    lasts_s: float

    def __str__(self) -> str:
        return f"{self.part} {self.victim}: {self.kind} for {self.lasts_s:.1f} s"


SHARES = {
    (Part.WORKER, Kind.KILL): 5,
    (Part.WORKER, Kind.PAUSE): 3,
    (Part.WORKER, Kind.JOIN): 2,
    (Part.WORKER, Kind.LEAVE): 2,
    (Part.INGEST, Kind.KILL): 5,
    (Part.INGEST, Kind.PAUSE): 3,
    (Part.BROKER, Kind.KILL): 4,
    (Part.BROKER, Kind.PAUSE): 2,
    (Part.STORE, Kind.KILL): 3,
    (Part.STORE, Kind.PAUSE): 1,
}
"""How many of what in 30 faults."""

REBALANCES = {Kind.JOIN, Kind.LEAVE}
_LONGEST_S = {Kind.KILL: 5.0, Kind.PAUSE: LONGEST_PAUSE_S, Kind.JOIN: 8.0, Kind.LEAVE: 5.0}
_LONGEST_GAP_S = 5.0


def make_plan(seed: int, faults: int = FAULTS) -> list[Fault]:
    """Faults in a random order, each kind in its share, as soon as there are enough for each at least once;
    of every part at least one pause (or outage) is as long as can be.
    """
    chosen = random.Random(seed)
    kinds = [what for turn in range(FAULTS) for what, share in SHARES.items() if turn < share]
    many = [kinds[number % len(kinds)] for number in range(faults)]
    chosen.shuffle(many)
    plan = [_fault(chosen, part, kind) for part, kind in many]
    return _with_a_long_one_each(plan)


def _fault(chosen: random.Random, part: Part, kind: Kind) -> Fault:
    longest_s = LONGEST_STORE_AWAY_S if (part, kind) == (Part.STORE, Kind.KILL) else _LONGEST_S[kind]
    least_s = 3.0 if kind is Kind.JOIN else 0.0  # it takes a moment to get partitions
    lasts_s = least_s + chosen.uniform(0, 1) ** 2 * (longest_s - least_s)
    return Fault(part, kind, chosen.randrange(1_000), chosen.uniform(0, _LONGEST_GAP_S), lasts_s)


def _with_a_long_one_each(plan: list[Fault]) -> list[Fault]:
    wanted = {
        (Part.BROKER, Kind.PAUSE): LONGEST_PAUSE_S,
        (Part.INGEST, Kind.PAUSE): LONGEST_PAUSE_S,
        (Part.WORKER, Kind.PAUSE): LONGEST_PAUSE_S,
        (Part.STORE, Kind.KILL): LONGEST_STORE_AWAY_S,
    }
    made = []
    for fault in plan:
        longest_s = wanted.pop((fault.part, fault.kind), None)
        made.append(fault if longest_s is None else fault._replace(lasts_s=longest_s))
    return made
