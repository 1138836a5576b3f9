"""Records of one partition in, blocks out: panes, decode, isolation, lookback, tokens, ledger and dead
letters of every signal. It knows no stage by name.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic

import pyarrow as pa

from processors.cutting import cut
from processors.isolation import Breaker, Fault, attempt, isolate
from processors.ledger import Fates, ledger
from processors.mending import mended
from processors.origins import Origins, PaneSource, Pick
from processors.panes import Emit, Pane, PaneClock, Panes, Step, surplus_letters
from processors.settings import ProcessorSettings
from processors.slots import PaneTime
from processors.stage import B, Notes, PaneView, Payloads, Stage, Tables, Window
from schemas import self_metrics
from schemas.otlp import Mended
from schemas.otlp.limits import Weight
from schemas.records import Commit, DeadLetter, Record, TopicPartition
from schemas.tables import SCHEMAS, Block
from schemas.units import to_ns

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Signal(Generic[B]):
    """What makes spans, points or logs of a pane processor."""

    decode: Callable[[Payloads], B]
    """OTLP payloads, with the clusters that their records' labels name -> a batch. Raises MalformedOtlp."""
    stages: tuple[Stage[B], ...]
    weigh: Callable[[bytes], Weight]
    """How many items a payload has, and what they take as rows. Raises MalformedOtlp."""
    pick: Pick
    wait: int = 0
    """Panes that must close before a pane is decided."""
    lookback: int = 0
    """Panes before a pane that its stages look up, where they are more than ``processing.lookback`` has."""
    mend: Callable[[bytes], Mended] | None = None
    """What a payload that is not well-formed (a foreign writer's) gives without what is wrong in some of its
    items. Raises MalformedOtlp.
    """


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The blocks of some panes, made when they are asked for."""

    tp: TopicPartition
    clock: str
    tables: list[tuple[Pane, Tables, Mapping[str, PaneSource]]] = field(default_factory=list)

    def add(self, pane: Pane, tables: Tables, sources: Mapping[str, PaneSource]) -> None:
        """Rows of one pane, and where those of some tables come from; tables without rows give no block."""
        if some := {table: rows for table, rows in tables.items() if rows.num_rows}:
            self.tables.append((pane, some, sources))

    def __bool__(self) -> bool:
        return bool(self.tables)

    def __iter__(self) -> Iterator[Block]:
        for pane, tables, sources in self.tables:
            for table, rows in tables.items():
                source, first_row = sources.get(table), 0
                for number, part in enumerate(cut(rows, SCHEMAS[table])):
                    name, first = str(number) if number else "", pane.first_offset
                    yield Block(table, self.tp, pane.number, part, self.clock, first, name, source, first_row)
                    first_row += part.num_rows


@dataclass(slots=True)
class _Undecided(Generic[B]):
    """What a closed pane needs until it is decided."""

    pane: Pane
    rejected: int
    repaired: int
    view: PaneView[B] | None
    """None: the pane has no records that can be processed."""


@dataclass(slots=True)
class _Decision:
    """What a decided pane gives."""

    fates: Fates = field(default_factory=Fates)
    tables: dict[str, pa.Table] = field(default_factory=dict)
    sources: Mapping[str, PaneSource] = field(default_factory=dict)


class PaneProcessor(Generic[B]):
    """One partition of one signal.

    Feed it every record from :attr:`offset` on (None: from the log's beginning), in any portions; set the
    dead letters of each Emit aside, write its blocks, then commit. Not safe for use by two threads at
    once.
    """

    def __init__(
        self,
        tp: TopicPartition,
        settings: ProcessorSettings,
        signal: Signal[B],
        commit: Commit | None = None,
    ) -> None:
        """Raises ValueError for a partition that the settings do not have, or a commit that meshflow did not
        write.
        """
        self.tp = tp
        self._settings = settings
        self._signal = signal
        self._clock = PaneClock.of(tp, settings.partitions, settings.pane_ns)
        self._lookback = max(signal.lookback, settings.lookback_panes)
        self._panes = Panes(
            self._clock,
            signal.wait,
            self._lookback,
            settings.pane_bytes,
            commit,
            count=self._count,
            grace_ns=to_ns(settings.rollup_grace),
        )
        breaker = settings.breaker
        self._breaker = Breaker(breaker.in_a_row, breaker.share, breaker.of_records)
        self._undecided: dict[int, _Undecided[B]] = {}
        self._seen: dict[int, Notes] = {}

    @property
    def offset(self) -> int | None:
        """Where to begin reading; None: at the log's beginning."""
        return self._panes.offset

    def gap(self, wanted: int, beginning: int) -> None:
        """The log no longer has [wanted, beginning) (OffsetGone): count what was not processed as lost, go on
        from ``beginning``.
        """
        self._panes.gap(wanted, beginning)

    def feed(self, records: Sequence[Record]) -> list[Emit]:
        """Take the next records in; what there is to store and commit after them.

        Raises ProcessingFailed, whatever the records are; nothing else.
        """
        return [self._take(step) for record in records for step in self._panes.add(record)]

    def may_settle(self, record: Record) -> bool:
        """Whether feeding this record may give something to store; else feeding it is little work."""
        return self._panes.may_settle(record)

    @property
    def log_time_ns(self) -> int:
        """Newest log time of the records fed; 0 before the first one."""
        return self._panes.log_time_ns

    def _take(self, step: Step) -> Emit:
        closed, tables, letters = self._close(step)
        blocks = _Blocks(self.tp, self._clock.name)
        if step.emit_closed:
            if step.closed.ahead:
                self_metrics.RECORDS_AHEAD.labels(self.tp.topic).inc(step.closed.ahead)
            blocks.add(step.closed, tables, {})
            self._undecided[step.closed.number] = closed
        else:
            letters = []  # an earlier reader has set them aside
        for decided in step.decided:
            undecided = self._undecided.pop(decided)
            decision, more = self._decide(undecided)
            blocks.add(undecided.pane, decision.tables, decision.sources)
            letters += more
        self._forget(step)
        return Emit(blocks, step.commit, letters)

    def _close(self, step: Step) -> tuple[_Undecided[B], Tables, list[DeadLetter]]:
        """What a pane gives by itself, without the records that fail by themselves.

        Those are looked for without the lookback, so that readers with another one find the same.
        """
        pane = step.closed
        earlier = self._earlier(pane.number)
        culprits: list[tuple[Record, Fault]] = []
        records: Sequence[Record] = pane.records
        dropped = repaired = 0
        closed = attempt(lambda: self._run_close(pane, records, earlier))
        if isinstance(closed, Fault) and closed.malformed and self._signal.mend:
            records, dropped, repaired = mended(records, self._signal.mend)
            closed = attempt(lambda: self._run_close(pane, records, earlier))
        if isinstance(closed, Fault) and closed.is_over:
            records, over = self._fitting(records, closed)
            culprits += over
            closed = attempt(lambda: self._run_close(pane, records, earlier))
        if isinstance(closed, Fault):
            records, bad = self._good(records, lambda some: self._signal.decode(Payloads(some)))
            records, more = self._good(records, lambda some: self._run_close(pane, some, {}))
            culprits += bad + more
            closed = attempt(lambda: self._run_close(pane, records, earlier))
            if isinstance(closed, Fault):
                _LOGGER.error(
                    "%s/%d: pane %d goes without its lookback: %s", *self.tp, pane.number, closed.reason
                )
                closed = self._run_close(pane, records, {})
        else:
            self._breaker.passed(len(records))
        rejected = pane.surplus_items + dropped + sum(self._items(record) for record, _ in culprits)
        letters = [DeadLetter(record, fault.reason) for record, fault in culprits] + surplus_letters(pane)
        if closed is None:
            return _Undecided(pane, rejected, repaired, None), {}, letters
        view, tables = closed
        if view.seen:
            self._seen = {number: seen.without_carried(view.seen) for number, seen in self._seen.items()}
            self._seen[pane.number] = view.seen
        return _Undecided(pane, rejected, repaired, view), tables, letters

    def _decide(self, closed: _Undecided[B]) -> tuple[_Decision, list[DeadLetter]]:
        """The rest of a pane, and its ledger, without the records that fail now."""
        pane, view = closed.pane, closed.view
        decision, letters = _Decision(), list[DeadLetter]()
        if view is not None:
            others = {
                number: seen for number, seen in self._around(pane.number).items() if number != pane.number
            }
            decided = attempt(lambda: self._run_decide(replace(view, fates=replace(view.fates)), others))
            if isinstance(decided, Fault):
                decision, culprits = self._decide_without(pane, view, others, decided)
                closed.rejected += sum(self._items(record) for record, _ in culprits)
                letters = [DeadLetter(record, fault.reason) for record, fault in culprits]
            else:
                decision = decided
        decision.fates.rejected += closed.rejected
        decision.fates.repaired += closed.repaired
        decision.tables["ledger"] = ledger(self.tp, pane, decision.fates)
        return decision, letters

    def _decide_without(
        self, pane: Pane, view: PaneView[B], others: Mapping[int, Notes], fault: Fault
    ) -> tuple[_Decision, list[tuple[Record, Fault]]]:
        """Decide a pane that fails: first without the other panes, to find records of its own that are at
        fault, then with all other panes but those that make it fail.
        """
        _LOGGER.error("%s/%d: pane %d fails, its records are tried: %s", *self.tp, pane.number, fault.reason)

        def again(records: Sequence[Record], around: Mapping[int, Notes]) -> _Decision | None:
            closed = self._run_close(pane, records, view.earlier)
            return self._run_decide(closed[0], around) if closed else None

        records, culprits = self._good(view.records, lambda some: again(some, {}))
        used = dict(others)
        decided = attempt(lambda: again(records, used))
        if isinstance(decided, Fault):
            used = {}
            for number in sorted(others):
                if not isinstance(attempt(lambda: again(records, {**used, number: others[number]})), Fault):  # noqa: B023 - called at once
                    used[number] = others[number]
            _LOGGER.error(
                "%s/%d: pane %d is decided without the panes %s: %s",
                *self.tp, pane.number, sorted(others.keys() - used.keys()), decided.reason,
            )  # fmt: skip
            decided = again(records, used)
        return decided or _Decision(), culprits

    def _fitting(
        self, records: Sequence[Record], fault: Fault
    ) -> tuple[list[Record], list[tuple[Record, Fault]]]:
        """The records whose rows fit into a pane together, in order, and those that are over."""
        room, fitting, over = self._settings.pane_bytes, list[Record](), list[tuple[Record, Fault]]()
        for record in records:
            weight = self._weight(record)
            if weight.bytes <= room:
                room -= weight.bytes
                fitting.append(record)
            else:
                reason = f"{fault.reason}: {weight.items} items (processing.pane_bytes)"
                over.append((record, replace(fault, reason=reason)))
        return fitting, over

    def _good(
        self, records: Sequence[Record], work: Callable[[Sequence[Record]], Any]
    ) -> tuple[list[Record], list[tuple[Record, Fault]]]:
        """The records that ``work`` takes together, and the culprits."""

        def fault_of(some: Sequence[Record]) -> Fault | None:
            done = attempt(lambda: work(some)) if some else None
            return done if isinstance(done, Fault) else None

        if fault_of(records) is None:
            return list(records), []
        return isolate(records, fault_of, self._breaker)

    def _run_close(
        self, pane: Pane, records: Sequence[Record], earlier: Mapping[int, Notes]
    ) -> tuple[PaneView[B], Tables] | None:
        """Decode, and the stages of a pane that ends; None without records."""
        if not records:
            return None
        batch = self._signal.decode(Payloads(records))
        view = PaneView(self.tp, pane.number, self._time(pane), records, batch, earlier)
        tables: dict[str, Any] = {}
        for stage in self._signal.stages:
            tables |= stage.close(view)
        return view, tables

    def _run_decide(self, view: PaneView[B], others: Mapping[int, Notes]) -> _Decision:
        """The stages of a pane whose window is complete."""
        window = Window(view.number, {**others, view.number: view.seen})
        tables: dict[str, Any] = {}
        for stage in self._signal.stages:
            tables |= stage.decide(view, window)
        origins = view.own.get(Origins)
        sources = {
            table: PaneSource(view.records, items, self._signal.pick)
            for table, items in (origins.of_table if origins else {}).items()
        }
        return _Decision(view.fates, tables, sources)

    def _forget(self, step: Step) -> None:
        """Let go of what no later pane looks up."""
        following = step.keep_from + self._lookback
        kept = {
            pane: seen.within(following - pane) for pane, seen in self._seen.items() if pane >= step.keep_from
        }
        self._seen = {pane: seen for pane, seen in kept.items() if seen}

    def _earlier(self, pane: int) -> dict[int, Notes]:
        return {number: seen for number, seen in self._around(pane).items() if number < pane}

    def _around(self, pane: int) -> dict[int, Notes]:
        first, last = pane - self._lookback, pane + self._signal.wait
        return {number: seen for number, seen in self._seen.items() if first <= number <= last}

    def _time(self, pane: Pane) -> PaneTime:
        grace_ns = to_ns(self._settings.rollup_grace)
        return PaneTime(pane.start_ns, self._settings.pane_ns, grace_ns, self._panes.late_until_ns)

    def _items(self, record: Record) -> int:
        """Items of a record; one that cannot be decoded counts as one."""
        return self._weight(record).items

    def _weight(self, record: Record) -> Weight:
        """Of a record; one that cannot be decoded is one item that takes nothing."""
        weight = attempt(lambda: self._signal.weigh(record.unpack()))
        return Weight(1, 0) if isinstance(weight, Fault) else weight

    def _count(self, payload: bytes) -> int:
        """Items of a payload; one that cannot be decoded counts as one."""
        return self._items(Record(0, 0, payload, len(payload)))
