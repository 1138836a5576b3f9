"""What stages of tables of counters have in common: names within limits, sums by keys, rows of three levels.

A row is of one owner (a service, or an instance) and one set of keys, which are functions of the points'
names and attributes. Only integers are grouped; texts are gathered for the rows that come out.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from processors.grouping import Groups, pack
from processors.points.claims import Claims
from processors.points.facts import Facts, Taken
from processors.points.last_points import F64, I64
from processors.points.said import OWNER, Names, Said, SeenNames, owners
from processors.points.spread import Cells, cells, histogram, spread
from processors.settings import ProcessorSettings
from processors.slots import LEVELS, PaneTime
from processors.stage import PaneView, Tables, Window
from schemas.counters import COUNTERS, UNSAID
from schemas.families import FAMILIES, Takes
from schemas.points import KINDS, PointBatch
from schemas.tables import HISTOGRAM, SCHEMAS

TAGS = tuple(f"own_{name}" for name in ("cluster", "namespace", "service", "version", "instance", "pod"))
"""Columns of keys that say, better than the resource does, whose a point is."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A closed pane's points of one table."""

    said: Said
    owners: Names
    owner: I64
    """Of each of the batch's resources."""
    keys: Names
    key: I64
    """Of each row of ``said.labels``."""


@dataclass(slots=True)
class AllPrepared:
    """A pane's own note."""

    of_table: dict[str, Prepared] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Rows of facts with what they are grouped by."""

    slot: npt.NDArray[np.uint32]
    owner: I64
    key: I64
    fact: I64

    def of(self, rows: npt.NDArray[np.generic]) -> "Numbers":
        """Some of them."""
        return Numbers(self.slot[rows], self.owner[rows], self.key[rows], self.fact[rows])


@dataclass(frozen=True, slots=True)
class Grouped:
    """Numbers by the rows that they go into."""

    group: I64
    """Of each number its row."""
    count: int
    """Rows."""
    first: Numbers
    """One of each row's."""
    numbers: Numbers
    facts: Facts


class TableStage(ABC):
    """One table of counters: subclasses say what its keys are."""

    table: ClassVar[str]
    owner: ClassVar[tuple[str, ...]] = OWNER[:4]
    kept: ClassVar[tuple[str, ...]] = ()
    """Key columns that stay where names are over a limit."""
    named: ClassVar[str] = ""
    """The key column that is ``other`` there."""

    def __init__(self, settings: ProcessorSettings) -> None:
        self._limits = settings.labels
        self._lookback = settings.metrics_lookback_panes

    @abstractmethod
    def keys(self, labels: pl.DataFrame, batch: PointBatch) -> pl.DataFrame:
        """Of each row of Said.labels the key columns, TAGS, and flags: ``left_out``; ``foreign``: not the
        table's after all; ``error``: requests are errors.
        """

    def left_out(self, keys: pl.DataFrame, said: Said, batch: PointBatch) -> npt.NDArray[np.bool_]:  # noqa: ARG002 - for those that ask the resource
        """Which of the points the table does not take."""
        if "left_out" not in keys.columns:
            return np.zeros(len(said.rows), np.bool_)
        flags: npt.NDArray[np.bool_] = keys["left_out"].to_numpy()[said.pair]
        return flags

    def close(self, pane: PaneView[PointBatch]) -> Tables:
        """See processors.stage.Stage."""
        batch, taken = pane.batch, pane.own[Taken]
        rows = taken.of_table(self.table)
        if not len(rows):
            return {}
        said = Said.of(batch, pane.own[Claims], taken, rows)
        length = self._limits.label_length
        keys = self.keys(said.labels, batch).with_columns(pl.col(pl.String).str.slice(0, length))
        gone = self.left_out(keys, said, batch)
        taken.left_out[rows[gone]] = True
        if "foreign" in keys.columns:
            gone = gone | keys["foreign"].to_numpy()[said.pair]
        taken.family[rows[gone]] = -1
        said = replace(said, rows=said.rows[~gone], pair=said.pair[~gone])
        texts = keys.select(pl.col(pl.String), *(name for name in ("error",) if name in keys.columns))
        names, key = Names.of(texts, self.kept, self.named)
        of_owners, owner = Names.of(owners(batch, self.owner, length), (), "service")
        resource = batch.points.column("resource").to_numpy()[said.rows]
        names = replace(names, uses=np.bincount(key[said.pair], minlength=len(names.hashes)))
        of_owners = replace(of_owners, uses=np.bincount(owner[resource], minlength=len(of_owners.hashes)))
        all_prepared = pane.own.get(AllPrepared) or AllPrepared()
        all_prepared.of_table[self.table] = Prepared(said, of_owners, owner, names, key)
        pane.own.leave(all_prepared)
        seen = pane.seen.get(SeenNames) or SeenNames()
        seen.of_table[self.table] = (
            of_owners.busiest(self._most_owners),
            names.busiest(self._limits.nodes),
        )
        pane.seen.leave(seen)
        return {}

    def decide(self, pane: PaneView[PointBatch], window: Window) -> Tables:  # noqa: ARG002 - increments have looked back
        """See processors.stage.Stage."""
        prepared = pane.own.get(AllPrepared)
        if prepared is None or self.table not in prepared.of_table:
            return {}
        own, facts = prepared.of_table[self.table], pane.own[Facts]
        rows = facts.of_table(self.table)
        is_taken = pane.own[Taken].family[facts.point[rows]] >= 0
        return self.rows(pane, own, facts, rows[is_taken])

    def rows(self, pane: PaneView[PointBatch], own: Prepared, facts: Facts, rows: I64) -> Tables:
        """Rows of the table's levels."""
        numbers = self.numbers(pane, own, facts, rows)
        if not len(numbers.slot):
            return {}
        numbers = self._few(numbers, own, pane.time)
        tables = {f"{self.table}_10s": self._rows(pane, own, facts, numbers)}
        late = pane.time.late(numbers.slot)
        if late.any():
            of_late = numbers.of(late)
            for level in ("1m", "1h"):
                width = LEVELS[level]
                coarse = replace(of_late, slot=of_late.slot // width * np.uint32(width))
                tables[f"{self.table}_{level}"] = self._rows(pane, own, facts, coarse)
        return tables

    def numbers(self, pane: PaneView[PointBatch], own: Prepared, facts: Facts, rows: I64) -> Numbers:
        """What rows of facts are grouped by, within the limits on names."""
        point = facts.point[rows]
        pair = own.said.pair[np.searchsorted(own.said.rows, point)]
        met = pane.met(SeenNames, self._lookback // 2)
        seen = (
            None
            if met is None
            else [each.of_table[self.table] for each in met if self.table in each.of_table]
        )
        limits, new = self._limits, max(self._limits.new_services, self._limits.nodes // 10)
        owner = own.owners.within(
            None if seen is None else [owners for owners, _ in seen],
            self._lookback,
            self._most_owners,
            limits.new_services if self._most_owners == limits.services else new,
        )
        met_keys = None if seen is None else [keys for _, keys in seen]
        key = own.keys.within(met_keys, self._lookback, limits.nodes, new)
        resource = pane.batch.points.column("resource").to_numpy()[point]
        return Numbers(facts.slot[rows], owner[own.owner[resource]], key[own.key[pair]], rows)

    @property
    def _most_owners(self) -> int:
        return self._limits.services if "instance" not in self.owner else self._limits.nodes

    def _few(self, numbers: Numbers, own: Prepared, time: PaneTime) -> Numbers:
        """As many rows as a table may get: the smallest ones become ``other``."""
        groups = Groups.by(_packed(numbers))
        if len(groups) <= self._limits.series:
            return numbers
        over = groups.outside_largest(self._limits.series)

        def folded(names: Names, number: I64) -> I64:
            stands = np.append(names.folded, np.arange(len(names.hashes), names.texts.height))
            return np.where(over, stands[number], number)

        return replace(
            numbers,
            slot=np.where(over, time.few(numbers.slot), numbers.slot),
            owner=folded(own.owners, numbers.owner),
            key=folded(own.keys, numbers.key),
        )

    def _rows(self, pane: PaneView[PointBatch], own: Prepared, facts: Facts, numbers: Numbers) -> pa.Table:
        groups = Groups.by(_packed(numbers))
        group = np.empty(len(numbers.slot), np.int64)
        group[groups.order] = groups.member
        first = numbers.of(groups.first)
        sums = Grouped(group, len(groups), first, numbers, facts)
        columns: dict[str, pa.Array] = {
            "slot": pa.array(first.slot),
            "late": pa.array(pane.time.late(first.slot).astype(np.uint8)),
            **self.texts(own, first),
        }
        schema = SCHEMAS[f"{self.table}_10s"]
        values = [each for each in schema if each.name not in columns]
        columns |= self._values([each for each in values if each.type != HISTOGRAM], own, sums)
        for each in values:
            if each.type == HISTOGRAM:  # a table has one
                columns[each.name] = histogram(sums.count, *self._cells(pane.batch, sums))
        columns |= self.further(pane, own, sums)
        return pa.table([columns[name] for name in schema.names], names=schema.names)

    def further(self, pane: PaneView[PointBatch], own: Prepared, sums: "Grouped") -> dict[str, pa.Array]:  # noqa: ARG002 - for those that have some
        """Columns that are no sums of values."""
        return {}

    def texts(self, own: Prepared, first: Numbers) -> dict[str, pa.Array]:
        """Key columns of rows."""
        texts = own.owners.texts[first.owner]
        keys = own.keys.texts[first.key].select(pl.col(pl.String))
        texts = _owned(texts, keys)
        both = pl.concat([texts, keys.select(pl.exclude(TAGS))], how="horizontal")
        return {column.name: column.to_arrow().cast(pa.string()) for column in both}

    def _values(self, fields: Sequence[pa.Field], own: Prepared, sums: "Grouped") -> dict[str, pa.Array]:
        """Sums, largest and smallest values by row."""
        number = {each.name: place for place, each in enumerate(fields)}
        families = [family for family in FAMILIES if family.table == self.table]
        gauges = {family.column for family in families if family.takes in (Takes.LAST, Takes.MAX)}
        of_family = np.array(
            [number.get(each.column, -1) if each.table == self.table else -1 for each in FAMILIES]
        )
        fact, group = sums.numbers.fact, sums.group
        column, value = of_family[sums.facts.family[fact]], sums.facts.value[fact]
        if "error" in own.keys.texts.columns:
            is_error = own.keys.texts["error"].to_numpy()[sums.numbers.key]
            failed = np.flatnonzero((column == number["requests"]) & is_error)
            group = np.append(group, group[failed])
            column = np.append(column, np.full(len(failed), number["errors"]))
            value = np.append(value, value[failed])
        found = {}
        for each in fields:
            rows = np.flatnonzero(column == number[each.name])
            found[each.name] = self._value(each, group[rows], value[rows], sums.count, each.name in gauges)
        return found

    def _value(self, given: pa.Field, group: I64, value: F64, count: int, is_gauge: bool) -> pa.Array:
        if not is_gauge:
            return _typed(np.bincount(group, value, count).astype(np.float64), given.type)
        if given.name in COUNTERS[self.table].smallest:
            least = np.full(count, np.inf)
            np.minimum.at(least, group, value)
            is_said = np.isfinite(least)
            whole = np.full(count, UNSAID, np.uint64)
            whole[is_said] = np.maximum(least[is_said], 0).astype(np.uint64)
            return pa.array(whole)
        largest = np.full(count, -np.inf)
        np.maximum.at(largest, group, value)
        return _typed(np.where(np.isinf(largest), 0.0, largest), given.type)

    def _cells(self, batch: PointBatch, sums: "Grouped") -> tuple[I64, I64, I64]:
        """Row, bucket and count of what histograms gained."""
        facts, fact = sums.facts, sums.numbers.fact
        takes = np.array([family.takes is Takes.BUCKETS for family in FAMILIES])
        owner = np.full(len(facts.point), -1)
        owner[fact] = np.where(takes[facts.family[fact]], sums.group, -1)
        point = batch.distributions.column("point").to_numpy()
        kind = batch.points.column("kind").to_numpy()[facts.point]
        found = cells(
            facts.buckets.of(owner >= 0),
            batch.distributions.column("bounds"),
            np.searchsorted(point, facts.point),
            kind == KINDS.index("exponential_histogram"),
            facts.scale,
        )
        unit = np.array([self.unit(family.name) for family in FAMILIES])[facts.family[found.owner]]
        found = _added(Cells(owner[found.owner], found.low * unit, found.high * unit, found.number))
        slot = sums.first.slot[found.owner].astype(np.uint64)
        salt = (found.owner.astype(np.uint64) << np.uint64(32)) + slot + found.low.view(np.uint64)
        rows, bucket, count = spread(found, salt)
        zeros = np.flatnonzero((owner >= 0) & (facts.zero_count > 0))
        return (
            np.append(rows, owner[zeros]),
            np.append(bucket, np.full(len(zeros), -1)),
            np.append(count, facts.zero_count[zeros]),
        )

    def unit(self, family: str) -> float:  # noqa: ARG002 - ms, where a table has no others
        """What bounds of a family's buckets are multiplied with: ms to ns."""
        return 1e6


def _added(given: Cells) -> Cells:
    """Cells of equal bounds of one row as one."""
    if not len(given.owner):
        return given
    order = np.lexsort((given.high, given.low, given.owner))
    owner, low, high, count = given.of(order)
    new = np.ones(len(owner), np.bool_)
    new[1:] = (owner[1:] != owner[:-1]) | (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    at = np.flatnonzero(new)
    return Cells(owner[at], low[at], high[at], np.add.reduceat(count, at))


def _packed(numbers: Numbers) -> npt.NDArray[np.uint64]:
    return pack([(numbers.slot - numbers.slot.min()) // LEVELS["10s"], numbers.owner, numbers.key])


def _owned(texts: pl.DataFrame, keys: pl.DataFrame) -> pl.DataFrame:
    """Owners as the points' own tags have them, else as their resources.

    A tag of a service says whose all is; a namespace or cluster without one says what the resource does not.
    """
    if "own_service" not in keys.columns:
        return texts
    known = (pl.col("service") != "") & ~pl.col("service").str.starts_with("unknown_service")
    is_own = pl.col("own_service") != ""
    both = pl.concat(
        [texts, keys.select(pl.col(name) for name in TAGS if name in keys.columns)], how="horizontal"
    )
    chosen = []
    for name in texts.columns:
        tag = f"own_{name}"
        if tag not in both.columns:
            chosen.append(pl.col(name))
            continue
        says = pl.col(tag) != ""
        takes = says & (is_own | ~known | (pl.col(name) == ""))
        chosen.append(pl.when(takes).then(tag).otherwise(name).alias(name))
    return both.select(chosen)


def _typed(values: F64, kind: pa.DataType) -> pa.Array:
    if pa.types.is_floating(kind):
        return pa.array(values, kind)
    whole = np.rint(np.clip(np.nan_to_num(values), -(2.0**62), 2.0**63))
    if pa.types.is_unsigned_integer(kind):
        whole = np.maximum(whole, 0)
        return pa.array(whole.astype(np.uint64)).cast(kind, safe=False)
    return pa.array(whole.astype(np.int64)).cast(kind, safe=False)
