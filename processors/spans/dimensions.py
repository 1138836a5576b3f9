"""Custom dimensions (``[[processing.dimensions]]``): further keys of spans, by the text of an attribute.

What keeps its name is bounded as services are: the busiest values of a pane, of them few that no pane of the
lookback has met; the others are ``other``. The default always keeps its name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from processors.grouping import I64, U64, hash_rows, hash_texts, pack
from processors.limits import OTHER, Codes, Labels, Past
from processors.settings import Dimension
from schemas.tables import SCHEMAS

_MAP = SCHEMAS["red_10s"].field("dimensions").type


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Each span's dimensions, and the distinct ones."""

    of_span: Codes
    """Row of ``maps``."""
    maps: pa.MapArray
    """``Map(String, String)``: name -> value, of all names that are set; the last row is empty."""
    hashes: U64
    """Of each of ``maps``, equal in every pane where the values are; 0 for the empty one."""

    @property
    def none(self) -> int:
        """The row of ``maps`` that is empty."""
        return len(self.maps) - 1


@dataclass(frozen=True, slots=True)
class SeenDimensions:
    """A note for later panes: hashes of each dimension's values that a pane has, at most ``values``: the
    busiest, ties by hash. A function of the pane alone.
    """

    values: tuple[pl.Series, ...]

    @classmethod
    def of(cls, spans: pl.DataFrame, labels: Labels, dimensions: Sequence[Dimension]) -> "SeenDimensions":
        """Of all spans of a pane, each once, with their ``attr:KEY`` columns."""
        seen = []
        for dimension in dimensions:
            values = _Values.of(spans, labels, dimension)
            hashes, spans_of = values.hashes[1:], values.spans[1:]
            busiest = np.lexsort((hashes, -spans_of))[: dimension.values]
            seen.append(pl.Series("value", hashes[busiest]))
        return cls(tuple(seen))


@dataclass(frozen=True, slots=True)
class _Values:
    """Distinct values of one dimension; the first is the default, whether or not a span has it."""

    texts: pl.Series
    hashes: U64
    spans: I64
    of_span: npt.NDArray[np.int64]

    @classmethod
    def of(cls, spans: pl.DataFrame, labels: Labels, dimension: Dimension) -> "_Values":
        codes = labels.codes(spans[f"attr:{dimension.key}"].fill_null(0))
        counts = np.bincount(codes, minlength=1)
        used = np.flatnonzero(counts)
        used = used[used > 0]
        said = pl.Series("text", labels.text(used), dtype=pl.String)
        texts = pl.concat([pl.Series("text", [dimension.default]), said.filter(said != dimension.default)])
        place = np.zeros(len(counts), np.int64)
        place[used] = np.where(
            (said == dimension.default).to_numpy(), 0, np.cumsum((said != dimension.default).to_numpy())
        )
        of_span = place[codes]
        return cls(texts, hash_texts(texts), np.bincount(of_span, minlength=len(texts)), of_span)


def read_dimensions(
    spans: pl.DataFrame,
    labels: Labels,
    dimensions: Sequence[Dimension],
    met: Sequence[SeenDimensions] | None,
    lookback_panes: int,
) -> Dimensions:
    """The dimensions of each of ``spans``, which have an ``attr:KEY`` column (batch codes, null:
    none) for each dimension.

    ``met``: the notes of earlier panes, oldest first; None where there are too few to know what is new.
    """
    if not dimensions:
        return Dimensions(np.zeros(spans.height, np.uint32), _maps([], []), np.zeros(1, np.uint64))
    columns, texts, hashes = [], [], []
    for number, dimension in enumerate(dimensions):
        values = _Values.of(spans, labels, dimension)
        past = None
        if met is not None:
            past = Past([note.values[number] for note in met], lookback_panes // 2, dimension.values)
        stays = _staying(values, dimension, past)
        other = 0 if dimension.default == OTHER else len(stays)
        columns.append(np.where(stays, np.arange(len(stays)), other)[values.of_span])
        texts.append(pa.concat_arrays([values.texts.to_arrow().cast(pa.string()), pa.array([OTHER])]))
        hashes.append(np.append(values.hashes, hash_texts(pl.Series([OTHER]))))
    _, first, of_span = np.unique(pack(columns), return_index=True, return_inverse=True)
    distinct = [column[first] for column in columns]
    of_maps = hash_rows([of_value[rows] for of_value, rows in zip(hashes, distinct, strict=True)])
    chosen = [of_value.take(pa.array(rows)) for of_value, rows in zip(texts, distinct, strict=True)]
    names = [dimension.name for dimension in dimensions]
    return Dimensions(of_span.astype(np.uint32), _maps(names, chosen), np.append(of_maps, np.uint64(0)))


def _staying(values: _Values, dimension: Dimension, past: Past | None) -> npt.NDArray[np.bool_]:
    """Which values keep their name; not what is called ``other`` itself."""
    stays = (values.texts != OTHER).to_numpy().copy()
    stays[0] = True
    few = max(1, dimension.values // 10)
    own = pl.Series("value", values.hashes[1:])
    new = own.clear() if past is None else past.new(own, few)
    if len(own) <= dimension.values and len(new) <= few:
        return stays
    ranked = pl.DataFrame({"text": values.texts, "spans": values.spans}).with_row_index("row")[1:]
    rows = ranked.sort("spans", "text", descending=[True, False])["row"].to_numpy()[: dimension.values]
    if len(new) > few:
        is_new = pl.Series(values.hashes[rows]).is_in(new.implode()).to_numpy()
        rows = rows[~is_new | (np.cumsum(is_new) <= few)]
    busiest = np.zeros(len(stays), np.bool_)
    busiest[rows] = True
    busiest[0] = True
    return stays & busiest


def _maps(names: Sequence[str], values: Sequence[pa.StringArray]) -> pa.MapArray:
    """Maps of all names, row by row of ``values``, and an empty one."""
    rows = len(values[0]) if values else 0
    offsets = np.append(np.arange(rows + 1) * len(names), rows * len(names)).astype(np.int32)
    keys = pa.array(list(names) * rows, pa.string())
    texts = pa.concat_arrays(values) if values else pa.array([], pa.string())
    order = (
        np.arange(rows * len(names)).reshape(len(names), rows).T.ravel() if rows else np.empty(0, np.int64)
    )
    return pa.MapArray.from_arrays(pa.array(offsets), keys, texts.take(pa.array(order)), type=_MAP)
