"""Dead letters as they are kept: what is known of each, how they are chosen, and the protocols of those who
write and read them (Kafka and SQLite).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

from schemas.errors import MalformedOtlp
from schemas.records import DeadLetter, Record, TopicPartition

WHOLE, CUT, LEFT_OUT = "whole", "cut", "left out"
"""How much of a record's payload went along."""

REASONS = 100
"""Reasons that are counted apart, the most frequent ones."""


class LetterId(NamedTuple):
    """Where the record is that was set aside, written as ``TOPIC/PARTITION/OFFSET``."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError with the form."""
        topic, *numbers = text.split("/")
        if (
            not topic
            or len(numbers) != 2
            or not all(number.isascii() and number.isdigit() for number in numbers)
        ):
            raise ValueError(
                f"{text!r} is not a dead letter's name; write TOPIC/PARTITION/OFFSET, as `list` does"
            )
        return cls(topic, int(numbers[0]), int(numbers[1]))

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A dead letter as read. ``size``: bytes of OTLP; ``payload`` is empty where it was not asked for."""

    id: LetterId
    append_time_ns: int
    size: int
    reason: str
    extent: str
    payload: bytes = b""
    key: bytes = b""
    labels: Mapping[str, str] = field(default_factory=dict)
    replayed: str = ""
    """How it was sent again; "" it was not."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters; "" and None choose all."""

    topic: str = ""
    partition: int | None = None
    reason: str = ""
    """A part of the reason's text."""
    replayed: bool | None = None
    ids: frozenset[LetterId] | None = None
    limit: int = 100
    """Newest letters that are listed; all are counted."""

    def has(self, id_: LetterId, reason: str) -> bool:
        """Whether a letter is chosen, ``replayed`` apart."""
        return (
            self.topic in ("", id_.topic)
            and self.partition in (None, id_.partition)
            and self.reason in reason
            and (self.ids is None or id_ in self.ids)
        )


@dataclass(frozen=True, slots=True)
class Found:
    """The letters of a selection."""

    letters: list[StoredLetter]
    """The newest ones by log time, newest last."""
    total: int
    reasons: list[tuple[str, int]]
    """Each reason and how many of all letters have it, the most frequent first, at most REASONS."""
    forgotten: int = 0
    """Older letters, of whatever selection, of which only the number is left."""


class DeadLetterWriter(Protocol):
    """Sets records aside."""

    async def write(self, tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
        """Return when all are durable. A letter of the same record and reason is written once, however often
        it comes.
        """

    async def close(self) -> None:
        """Let go."""


class DeadLetterReader(Protocol):
    """Looks at what was set aside. Every method raises LogUnavailable."""

    async def find(self, selection: Selection, *, payloads: bool = False) -> Found:
        """The chosen letters, with their payloads where these are asked for."""

    async def mark_replayed(self, letters: Sequence[StoredLetter], note: str) -> None:
        """Note durably how these letters were sent again."""

    async def close(self) -> None:
        """Let go."""


def payload_of(record: Record) -> tuple[bytes, str]:
    """What there is of a record's payload (packed, where it cannot be unpacked), and how much that is."""
    if record.size and not record.payload:
        return b"", LEFT_OUT
    try:
        return record.unpack(), WHOLE
    except MalformedOtlp:
        return record.payload, WHOLE
