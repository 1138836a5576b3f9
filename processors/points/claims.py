"""Which points are of which family of metrics, and what their names and attributes say: read once for each
distinct name and attribute set of a batch.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from processors.rows import Rows
from schemas.families import LABELS
from schemas.metric_names import OTHER, Reading, read_names
from schemas.points import PointBatch

_PLACES = {name: number for number, name in enumerate(LABELS)}
_KEYS = {key: (_PLACES[label], rank) for label, keys in LABELS.items() for rank, key in enumerate(keys)}
"""Attribute -> number of its label, and its rank there."""
_RANKS = max(map(len, LABELS.values()))

_READING = {name: pl.Int16 if name == "family" else pl.String for name in Reading._fields}


@dataclass(frozen=True, slots=True)
class Claims:
    """Families of a batch's points."""

    family: npt.NDArray[np.int16]
    """Of each point: its place in FAMILIES; OTHER: of none; COPY: to be left out of sums."""
    _names: npt.NDArray[np.int64]
    _readings: list[Reading]
    _labels: npt.NDArray[np.int64]

    @classmethod
    def of(cls, batch: PointBatch) -> "Claims":
        """Read the names and attributes of a batch."""
        code = batch.points.column("name").to_numpy()
        is_there = np.zeros(len(batch.contexts.strings), np.bool_)
        is_there[code] = True
        distinct = np.flatnonzero(is_there)
        readings = read_names(batch.contexts.strings.take(pa.array(distinct)).to_pylist())
        number = np.cumsum(is_there) - 1
        family = np.array([each.family for each in readings], np.int16)
        names = number[code]
        return cls(family[names], names, readings, _places(batch.contexts.attributes.column("attributes")))

    def labels(self, batch: PointBatch, rows: Rows) -> pl.DataFrame:
        """The labels of these points of the batch that the claims are of: a column of texts for each of
        LABELS but ``code_class``, which goes into ``code`` as ``2xx``; "" where nothing says it.
        """
        sets = batch.points.column("attributes").to_numpy()[rows]
        texts = batch.contexts.attributes.column("attributes").items
        names = pl.DataFrame(self._readings, schema=_READING, orient="row")[self._names[rows]]
        return pl.DataFrame(
            {label: _gathered(texts, self._labels[place][sets]) for label, place in _PLACES.items()}
        ).with_columns(
            *(
                _joined(pl.col(label), pl.when(names["label"] == label).then(names["middle"]).otherwise(pl.lit("")))
                for label in ("upstream", "manager", "listener")
            ),
            certificate=pl.when(pl.col("certificate") == "").then(names["certificate"]).otherwise("certificate"),
            code=pl.when(names["code"] != "")
            .then(names["code"])
            .when(pl.col("code") != "")
            .then("code")
            .when(pl.col("code_class") != "")
            .then(pl.col("code_class") + "xx")
            .otherwise(pl.lit("")),
        ).drop("code_class")  # fmt: skip


def _places(attributes: pa.MapArray) -> npt.NDArray[np.int64]:
    """For each label (rows) and attribute set (columns) the place of its text among all sets' texts; -1:
    the set does not say it.
    """
    keys = attributes.keys.dictionary_encode()
    known = [_KEYS.get(key, (OTHER, OTHER)) for key in keys.dictionary.to_pylist()]
    label, rank = np.array(known, np.int64).reshape(-1, 2)[keys.indices.to_numpy()].T
    offsets = attributes.offsets.to_numpy()
    of_set = np.repeat(np.arange(len(attributes)), np.diff(offsets))
    places = np.full((len(LABELS), len(attributes)), -1)
    for each in range(_RANKS - 1, -1, -1):
        at = np.flatnonzero(rank == each)
        places[label[at], of_set[at]] = at
    return places


def _gathered(texts: pa.StringArray, places: npt.NDArray[np.int64]) -> pl.Series:
    """The texts at these places, "" at -1."""
    found = texts.take(pa.array(places, mask=places < 0))
    return pl.Series(found, dtype=pl.String).fill_null("")


def _joined(text: pl.Expr, middle: pl.Expr) -> pl.Expr:
    return (
        pl.when(middle == "").then(text).when(text == "").then(middle).otherwise(text + "." + middle)
    ).alias(text.meta.output_name())
