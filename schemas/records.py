"""The log's records and the protocols of its writers and readers (Kafka and SQLite)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import pyarrow as pa

from schemas.errors import MalformedOtlp

COUNTS = frozenset({"rejected", "refused", "lost", "repaired"})
"""Headers of records that the ledger adds up."""

LABELS = frozenset({"source_cluster", "tenant", "replay_of"})
"""Text headers of records. ``source_cluster`` and ``tenant``: where a record comes from, which decode takes
as defaults; ``replay_of``: ``TOPIC/PARTITION/OFFSET`` of the dead letter that a record was replayed from.
"""

MAX_LABEL_BYTES = 256
"""UTF-8 bytes of a text header's value."""


class TopicPartition(NamedTuple):
    """One ordered log."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Append:
    """What a writer is asked to append.

    ``value`` is a whole OTLP message (``TracesData`` / ``MetricsData`` / ``LogsData``) of one partition;
    empty for a tick or for a record that only carries counts. ``headers`` are counts that the ledger adds up
    (COUNTS): ``rejected`` (items refused as invalid), ``refused`` (items turned away because the log was full
    or away), ``lost`` (records of another topic that were gone before they could be read), ``repaired``
    (texts and values that ingest mended, which are stored); absent means 0. ``labels`` are the text headers
    (LABELS). Raises ValueError for labels that a record may not have.
    """

    tp: TopicPartition
    value: bytes
    headers: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels and (fault := label_fault(self.labels)):
            raise ValueError(fault)


@dataclass(frozen=True, slots=True)
class Record:
    """One log entry as read.

    ``payload`` may still be compressed: ``codec`` names pyarrow's codec ("" for none), ``size`` counts the
    bytes unpacked.
    """

    offset: int
    append_time_ns: int
    payload: bytes
    size: int
    codec: str = ""
    headers: Mapping[str, int] = field(default_factory=dict)
    key: bytes = b""
    """As a foreign writer set it; meshflow's own records have none."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Text headers, by name (LABELS)."""

    def unpack(self) -> bytes:
        """The OTLP bytes. Raises MalformedOtlp when what was stored is not what the codec makes."""
        if not self.codec:
            return self.payload
        try:
            unpacked: bytes = pa.decompress(
                self.payload, decompressed_size=self.size, codec=self.codec, asbytes=True
            )
        except (OSError, ValueError, MemoryError) as error:  # ArrowInvalid is a ValueError
            raise MalformedOtlp(f"the record cannot be unpacked ({self.codec}): {error}") from error
        return unpacked


def label_fault(labels: Mapping[str, str]) -> str:
    """Why a record may not have these labels; "" when it may."""
    for name, value in labels.items():
        if name not in LABELS:
            return f"a record has no text header {name!r}; there are {', '.join(sorted(LABELS))}"
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            return f"the text header {name} is not Unicode"
        if not 0 < size <= MAX_LABEL_BYTES:
            return f"the text header {name} has {size} bytes; 1 to {MAX_LABEL_BYTES} are allowed"
    return ""


def labels_of(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    """The labels among the headers of a record that anybody may have written; what may not be is left out."""
    labels = {}
    for name, value in headers:
        if name in LABELS and value and len(value) <= MAX_LABEL_BYTES:
            try:
                labels[name] = value.decode()
            except UnicodeDecodeError:
                continue
    return labels


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be processed, and why. Its payload is empty, though its size is not, where it
    was too much to hold.
    """

    record: Record
    reason: str

    @property
    def offset(self) -> int:
        """The record's."""
        return self.record.offset


@dataclass(frozen=True, slots=True)
class Commit:
    """Where a reader would begin again: the first ``offset`` it needs and what else it must know (at most 4
    KB of text).
    """

    offset: int
    metadata: str


class LogWriter(Protocol):
    """Appends records. Safe to call from many tasks of one event loop."""

    async def append(self, appends: Sequence[Append]) -> None:
        """Return when all are durable; raise LogUnavailable or LogFull when not (some may have been written
        even so).

        The log stamps each with its append time, which never goes back within a partition.
        """

    async def tick(self, silent_ns: int) -> None:
        """Append an empty record to each partition whose newest record is older than ``silent_ns`` (invariant
        5).
        """

    async def close(self) -> None:
        """Finish what was begun, then let go of the log."""


class LogReader(Protocol):
    """Reads records of any partition and keeps commits of one consumer group."""

    async def partitions(self) -> list[TopicPartition]:
        """Every partition of every topic."""

    async def beginning(self, tp: TopicPartition) -> int:
        """The first offset that is still there (equal to :meth:`end` when empty)."""

    async def end(self, tp: TopicPartition) -> int:
        """The offset that the next record will get."""

    async def read(self, tp: TopicPartition, offset: int, max_bytes: int) -> list[Record]:
        """Records from ``offset`` on, in order, about ``max_bytes`` of payload at most (but one record if
        there is one); [] at the end.

        Raises OffsetGone when retention removed ``offset``, LogUnavailable when the log does not answer.
        """

    async def committed(self, tp: TopicPartition) -> Commit | None:
        """The newest commit, None when there was never one."""

    async def commit(self, tp: TopicPartition, commit: Commit) -> None:
        """Store a commit durably."""

    async def close(self) -> None:
        """Let go of the log."""
