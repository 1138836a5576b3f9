"""The stage interface: every signal is a tuple of stages over one batch type.

A stage holds settings only. All that it knows of the log it gets as arguments and leaves in the pane:
``pane.own`` has what later stages of the same pane take up, ``pane.seen`` what later panes look up. So a pane
can be done again, without some of its records, by the same stages.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, overload

import pyarrow as pa

from processors.ledger import Fates
from processors.slots import PaneTime
from schemas.records import Record, TopicPartition

B = TypeVar("B")
"""The batch of a signal: SpanBatch, PointBatch, LogBatch."""
_T = TypeVar("_T")

Tables = Mapping[str, pa.Table]
"""Table -> the rows that a pane adds to it, in an order that is a function of the log.

Columns have the names and types of ``SCHEMAS[table]``. A column may be dictionary encoded (indices into
values of the schema's type): the pane processor makes plain rows of it when a block is written, some at a
time.
"""


class Notes:
    """What stages leave behind, one object of each class."""

    def __init__(self) -> None:
        self._left: dict[type, object] = {}
        self._carried: set[type] = set()
        self._panes: dict[type, int] = {}

    def carry(self, note: object) -> None:
        """Leave a note in ``PaneView.seen`` that stands for those of its class that earlier panes left: they
        are let go when the pane has closed. It must be a function of the panes of the lookback, so it
        forgets what is of panes before them.
        """
        self.leave(note)
        self._carried.add(type(note))

    def without_carried(self, later: "Notes") -> "Notes":
        """These notes without those that a later pane's carried ones stand for."""
        if later._carried.isdisjoint(self._left):
            return self
        rest = Notes()
        rest._left = {kind: note for kind, note in self._left.items() if kind not in later._carried}
        rest._panes = self._panes
        return rest

    def leave(self, note: object, panes: int | None = None) -> None:
        """Leave a note; it replaces an earlier one of its class. ``panes``: so many panes after this one look
        it up; None: as many as the lookback has.
        """
        self._left[type(note)] = note
        if panes is not None:
            self._panes[type(note)] = panes

    def within(self, panes: int) -> "Notes":
        """These notes without those that no pane looks up which is so many panes later."""
        over = {kind for kind, most in self._panes.items() if most < panes}
        if over.isdisjoint(self._left):
            return self
        rest = Notes()
        rest._left = {kind: note for kind, note in self._left.items() if kind not in over}
        rest._carried, rest._panes = self._carried, self._panes
        return rest

    def get(self, kind: type[_T]) -> _T | None:
        """The note of this class; None: no stage left one."""
        found = self._left.get(kind)
        return found if isinstance(found, kind) else None

    def __getitem__(self, kind: type[_T]) -> _T:
        """The note of this class. Raises KeyError: no stage left one."""
        found = self.get(kind)
        if found is None:
            raise KeyError(kind.__name__)
        return found

    def __bool__(self) -> bool:
        return bool(self._left)


class Payloads(Sequence[bytes]):
    """The payloads of records, each unpacked when it is asked for: all of a pane at once are up to
    ``pane_bytes``.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    @property
    def clusters(self) -> list[str]:
        """The cluster of resources that name none, one for each payload; [] where no record has a label."""
        clusters = [record.labels.get("source_cluster", "") for record in self._records]
        return clusters if any(clusters) else []

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, number: int) -> bytes: ...
    @overload
    def __getitem__(self, number: slice) -> list[bytes]: ...
    def __getitem__(self, number: int | slice) -> bytes | list[bytes]:
        """Raises MalformedOtlp (Record.unpack)."""
        return (
            [record.unpack() for record in self._records[number]]
            if isinstance(number, slice)
            else self._records[number].unpack()
        )


@dataclass(slots=True)
class PaneView(Generic[B]):
    """One pane as its stages see it."""

    tp: TopicPartition
    number: int
    time: PaneTime
    records: Sequence[Record]
    """What ``batch`` was decoded from; record numbers in the batch are indices into it."""
    batch: B
    earlier: Mapping[int, Notes]
    """What the panes of [number - lookback, number) left in ``seen``; panes without records are absent."""
    own: Notes = field(default_factory=Notes)
    """For later stages of this pane; gone when the pane is decided."""
    seen: Notes = field(default_factory=Notes)
    """For later panes; gone when the lookback has passed. It must be a function of this pane's records alone,
    but for which items are copies of earlier panes' items, and for what is carried.
    """
    fates: Fates = field(default_factory=Fates)
    """What became of the items of ``batch``; each stage adds what it decides."""

    @property
    def payloads(self) -> Payloads:
        """The payloads of ``records``."""
        return Payloads(self.records)

    def looked_back(self, kind: type[_T], panes: int | None = None) -> Iterator[_T]:
        """The notes of this class that earlier panes of the lookback left, oldest first.

        ``panes``: of so many panes before this one.
        """
        for number in sorted(self.earlier):
            if panes is not None and number < self.number - panes:
                continue
            if (note := self.earlier[number].get(kind)) is not None:
                yield note

    def met(self, kind: type[_T], panes: int) -> list[_T] | None:
        """The notes of this class that earlier panes left; None where no pane of ``panes`` ago or earlier has
        one: the partition begins, or was silent.
        """
        if any(number <= self.number - panes and seen.get(kind) for number, seen in self.earlier.items()):
            return list(self.looked_back(kind))
        return None


@dataclass(frozen=True, slots=True)
class Window:
    """What the panes of [pane - lookback, pane + wait] left in ``seen``, the decided pane among them."""

    pane: int
    panes: Mapping[int, Notes]

    def seen(self, kind: type[_T]) -> dict[int, _T]:
        """Pane -> its note of this class, oldest first; panes without one are absent."""
        found = ((number, self.panes[number].get(kind)) for number in sorted(self.panes))
        return {number: note for number, note in found if note is not None}


class Stage(Protocol[B]):
    """One step of a signal. Both methods may raise anything: the pane processor isolates the record."""

    def close(self, pane: PaneView[B]) -> Tables:
        """What a pane gives by itself, as soon as it ends."""

    def decide(self, pane: PaneView[B], window: Window) -> Tables:
        """What needs [pane - lookback, pane + wait]."""
