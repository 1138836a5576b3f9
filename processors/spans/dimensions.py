"""Custom dimensions (``[[processing.dimensions]]``): further keys of spans, by the text of an attribute.

What keeps its name is bounded as services are: the busiest values of a pane, of them few that no pane of the
lookback has met; the others are ``other``. The default always keeps its name. A pane's spans are counted each
once for that, copies of earlier panes' spans among them, so RED and edges call a value by the same name.

Edges take spans of other panes of the window too, under the names that their own pane gives. A name of a pane
that was decided before is made again from the notes that the window has: it differs where more values than
may be new came in that pane, and one of them was met only before the window.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from processors.grouping import I64, U64, hash_rows, hash_texts, pack
from processors.limits import OTHER, Codes, Labels, Past
from processors.settings import Dimension, ProcessorSettings
from processors.spans.deduplicate import PaneSpans
from processors.spans.sampling.sampler import Sampler
from processors.stage import PaneView, Tables, Window
from schemas.spans import SpanBatch
from schemas.tables import SCHEMAS

_MAP = SCHEMAS["red_10s"].field("dimensions").type
_PANE_BITS = np.uint64(32)
_ROW = np.uint64((1 << 32) - 1)


@dataclass(frozen=True, slots=True)
class Dimensions:
    """A decided pane's own note: the names of its SeenDimensions.rows."""

    of_row: Codes
    """Row of ``maps``."""
    maps: pa.MapArray
    """``Map(String, String)``: name -> value, of all names that are set; the last row is empty."""
    hashes: U64
    """Of each of ``maps``, equal in every pane where the values are; 0 for the empty one alone."""


NO_DIMENSIONS = pa.MapArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array([], pa.string()), pa.array([], pa.string()))  # fmt: skip
"""Dimensions.maps where no dimension is configured."""


@dataclass(frozen=True, slots=True)
class SpanDimensions:
    """A pane's own note: the row of SeenDimensions.rows of each of PaneSpans.frame."""

    of_span: Codes

    def keys(self, pane: int) -> U64:
        """What stands for each span's dimensions in Calls: the pane (its lower 32 bits) and the row."""
        return np.uint64(pane & int(_ROW)) << _PANE_BITS | self.of_span.astype(np.uint64)


@dataclass(frozen=True, slots=True)
class _Values:
    """The values of one dimension that may keep their name: the default, the busiest ones, ties by name, and
    ``other``.
    """

    texts: pl.Series
    hashes: U64

    @property
    def named(self) -> pl.Series:
        """The hashes of those that were said, the busiest first."""
        return pl.Series("value", self.hashes[1:-1])


@dataclass(frozen=True, slots=True)
class SeenDimensions:
    """A note for later panes: the dimensions of a pane's spans. A function of the pane alone."""

    values: tuple[_Values, ...]
    """Of each dimension."""
    rows: tuple[I64, ...]
    """Of each dimension the place among its values, of each distinct combination."""

    @classmethod
    def of(
        cls, spans: pl.DataFrame, labels: Labels, dimensions: Sequence[Dimension]
    ) -> tuple["SeenDimensions", SpanDimensions]:
        """Of all spans of a pane, each once, with an ``attr:KEY`` column (batch codes, null: none) for each
        of the dimensions.
        """
        found = [_read(spans[f"attr:{each.key}"], labels, each) for each in dimensions]
        places = [of_span for _, of_span in found]
        _, first, of_span = np.unique(pack(places), return_index=True, return_inverse=True)
        seen = cls(tuple(values for values, _ in found), tuple(column[first] for column in places))
        return seen, SpanDimensions(of_span.astype(np.uint32))

    def named(
        self, dimensions: Sequence[Dimension], met: Sequence["SeenDimensions"] | None, lookback_panes: int
    ) -> Dimensions:
        """With the values that are too many new ones as ``other``.

        ``met``: the notes of earlier panes, oldest first; None where there are too few to know what is new.
        """
        columns = []
        for number, (dimension, values) in enumerate(zip(dimensions, self.values, strict=True)):
            column = self.rows[number]
            if met is not None:
                past = Past(
                    [note.values[number].named for note in met], lookback_panes // 2, dimension.values
                )
                column = _places(values, dimension, past)[column]
            columns.append(column)
        _, first, of_row = np.unique(pack(columns), return_index=True, return_inverse=True)
        distinct = [column[first] for column in columns]
        hashes = [of.hashes[rows] for of, rows in zip(self.values, distinct, strict=True)]
        of_maps = hash_rows([np.ones(len(first), np.uint64), *hashes])
        texts = [
            of.texts.to_arrow().cast(pa.string()).take(pa.array(rows))
            for of, rows in zip(self.values, distinct, strict=True)
        ]
        names = [dimension.name for dimension in dimensions]
        return Dimensions(of_row.astype(np.uint32), _maps(names, texts), np.append(of_maps, np.uint64(0)))


def _read(column: pl.Series, labels: Labels, dimension: Dimension) -> tuple[_Values, I64]:
    """The values that a pane may name, and the place of each span's among them."""
    codes = labels.codes(column.fill_null(0))
    counts = np.bincount(codes, minlength=1)
    used = np.flatnonzero(counts)
    used = used[used > 0]
    said = pl.DataFrame({
        "code": used, "spans": counts[used], "text": pl.Series(labels.text(used), dtype=pl.String)
    })  # fmt: skip
    own = said.filter(~pl.col("text").is_in([dimension.default, OTHER]))
    busiest = own.sort("spans", "text", descending=[True, False]).head(dimension.values)
    texts = pl.concat([pl.Series("text", [dimension.default]), busiest["text"], pl.Series("text", [OTHER])])
    place = np.zeros(len(counts), np.int64)
    place[used] = _other(dimension, len(texts))
    place[said.filter(text=dimension.default)["code"].to_numpy()] = 0
    place[busiest["code"].to_numpy()] = np.arange(1, len(busiest) + 1)
    return _Values(texts, hash_texts(texts)), place[codes]


def _other(dimension: Dimension, values: int) -> int:
    """The place of ``other`` among so many values."""
    return 0 if dimension.default == OTHER else values - 1


def _places(values: _Values, dimension: Dimension, past: Past) -> I64:
    """The place of the name of each value: of those that are new few keep theirs, the busiest."""
    places = np.arange(len(values.texts))
    few = max(1, dimension.values // 10)
    new = past.new(values.named, few)
    if len(new) > few:
        at = np.flatnonzero(values.named.is_in(new.implode()).to_numpy()) + 1
        places[at[few:]] = _other(dimension, len(places))
    return places


def _maps(names: Sequence[str], values: Sequence[pa.StringArray]) -> pa.MapArray:
    """Maps of all names, row by row of ``values``, and an empty one."""
    rows = len(values[0])
    offsets = np.append(np.arange(rows + 1) * len(names), rows * len(names)).astype(np.int32)
    keys = pa.array(list(names) * rows, pa.string())
    order = np.arange(rows * len(names)).reshape(len(names), rows).T.ravel()
    texts = pa.concat_arrays(values).take(pa.array(order))
    return pa.MapArray.from_arrays(pa.array(offsets), keys, texts, type=_MAP)


class ReadDimensions:
    """Leaves SeenDimensions and SpanDimensions, then Dimensions; nothing where no dimension is configured."""

    def __init__(self, settings: ProcessorSettings, sampler: Sampler) -> None:  # noqa: ARG002 - as every stage
        self._dimensions = settings.dimensions
        self._lookback_panes = settings.lookback_panes

    def close(self, pane: PaneView[SpanBatch]) -> Tables:
        """See processors.stage.Stage."""
        spans = pane.own[PaneSpans]
        if self._dimensions and spans.frame.height:
            seen, of_span = SeenDimensions.of(spans.frame, spans.labels, self._dimensions)
            pane.seen.leave(seen)
            pane.own.leave(of_span)
        return {}

    def decide(self, pane: PaneView[SpanBatch], window: Window) -> Tables:  # noqa: ARG002 - as every stage
        """See processors.stage.Stage."""
        if (seen := pane.seen.get(SeenDimensions)) is not None:
            met = pane.met(SeenDimensions, self._lookback_panes // 2)
            pane.own.leave(seen.named(self._dimensions, met, self._lookback_panes))
        return {}


@dataclass(frozen=True, slots=True)
class WindowDimensions:
    """What SpanDimensions.keys of a window stand for."""

    pane: int
    own: Dimensions
    """Of the pane that is decided."""
    seen: Mapping[int, SeenDimensions]
    dimensions: Sequence[Dimension]
    lookback_panes: int

    def named(self, keys: U64) -> tuple[U64, "Maps"]:
        """The hash of each, and what the hashes stand for."""
        panes = keys >> _PANE_BITS
        hashes, found = np.empty(len(keys), np.uint64), [self.own]
        numbers = {number & int(_ROW): number for number in self.seen}
        for pane in np.unique(panes):
            of_pane = self._of_pane(numbers[int(pane)])
            here = panes == pane
            hashes[here] = of_pane.hashes[of_pane.of_row[keys[here] & _ROW]]
            found.append(of_pane)
        return hashes, Maps.of(found)

    def _of_pane(self, pane: int) -> Dimensions:
        if pane == self.pane:
            return self.own
        before = {number: note for number, note in self.seen.items() if number < pane}
        known = any(number <= pane - self.lookback_panes // 2 for number in before)
        met = [before[number] for number in sorted(before)] if known else None
        return self.seen[pane].named(self.dimensions, met, self.lookback_panes)


@dataclass(frozen=True, slots=True)
class Maps:
    """``hashes`` -> ``maps``, each once."""

    hashes: pl.Series
    maps: pa.MapArray

    @classmethod
    def of(cls, found: Iterable[Dimensions]) -> "Maps":
        """Of some panes."""
        parts = list(found)
        hashes = pl.Series("hash", np.concatenate([part.hashes for part in parts]))
        first = pl.arg_where(hashes.is_first_distinct(), eager=True)
        maps = pa.concat_arrays([part.maps for part in parts]).take(first.to_arrow())
        return cls(hashes.gather(first), maps)
