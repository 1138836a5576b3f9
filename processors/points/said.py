"""What points of one table say by their names, attributes and resources: texts, each distinct one once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from processors.grouping import U64, hash_rows, hash_texts
from processors.limits import OTHER, Past
from processors.points.claims import Claims
from processors.points.facts import Taken
from processors.points.last_points import I64
from processors.rows import Rows
from schemas.families import FAMILIES
from schemas.points import PointBatch

OWNER = ("cluster", "namespace", "service", "version", "instance", "pod")
"""Columns of ITEM_RESOURCE_SCHEMA that say whose points are."""

_FAMILY = pl.Series([family.name for family in FAMILIES])


@dataclass(frozen=True, slots=True)
class Names:
    """Distinct rows of texts, and bounds on how many keep their name."""

    texts: pl.DataFrame
    """Distinct rows; those from ``len(hashes)`` on stand for others that are over a limit."""
    hashes: U64
    folded: I64
    """Of each row that which stands for it when it is over."""
    uses: I64
    """How often each is used in the pane."""

    @classmethod
    def of(cls, rows: pl.DataFrame, kept: Sequence[str], other: str) -> tuple["Names", I64]:
        """The distinct ones of ``rows``, and the number of each row. What stands for others has the columns
        ``kept`` of its own, and ``other`` in place of that column's text.
        """
        distinct = rows.unique(maintain_order=True)
        numbers = distinct.with_row_index("number_")
        number = rows.join(numbers, on=rows.columns, how="left", maintain_order="left")["number_"].to_numpy()
        nothing = {
            name: pl.lit(OTHER if name == other else "")
            for name in rows.columns
            if name not in kept and rows.schema[name] == pl.String
        }
        others = distinct.with_columns(**nothing)
        standing = others.unique(maintain_order=True).with_row_index("number_")
        folded = others.join(standing, on=rows.columns, how="left", maintain_order="left")[
            "number_"
        ].to_numpy()
        hashes = hash_rows(
            [hash_texts(column.cast(pl.String)) for column in distinct.select(pl.exclude(pl.Boolean))]
        )
        uses = np.bincount(number, minlength=distinct.height)
        names = cls(pl.concat([distinct, standing.drop("number_")]), hashes, folded + distinct.height, uses)
        return names, number.astype(np.int64)

    def busiest(self, most: int) -> pl.Series:
        """Hashes of those that are used most; ties by hash."""
        used = np.flatnonzero(self.uses)
        order = used[np.lexsort((self.hashes[used], -self.uses[used]))[:most]]
        return pl.Series("name", self.hashes[order])

    def within(self, met: Sequence[pl.Series] | None, panes: int, most: int, most_new: int) -> I64:
        """Of each row itself, or what stands for it: the ``most`` busiest stay, ``most_new`` of those that
        are new by what earlier panes ``met`` (None: all may be new).
        """
        count = len(self.hashes)
        own = np.arange(count)
        new = np.zeros(count, np.bool_)
        if met is not None:
            fresh = Past(met, panes // 2, most).new(pl.Series("name", self.hashes), most_new)
            if len(fresh) > most_new:
                new = pl.Series(self.hashes).is_in(fresh.implode()).to_numpy()
        if count <= most and not new.any():
            return own
        order = np.lexsort((self.hashes, -self.uses))
        stays = np.zeros(count, np.bool_)
        stays[order[:most]] = True
        stays[order[new[order]][most_new:]] = False
        return np.where(stays, own, self.folded)


@dataclass(slots=True)
class SeenNames:
    """A note for later panes: hashes of the names that points of each table had, the busiest ones.

    A function of the pane alone.
    """

    of_table: dict[str, tuple[pl.Series, pl.Series]] = field(default_factory=dict)
    """Table -> owners, keys."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a pane's points of one table say."""

    rows: Rows
    """The points, ascending."""
    pair: I64
    """Of each point the row of ``labels``."""
    labels: pl.DataFrame
    """Of each distinct pair of name and attributes: Claims.labels, ``family`` (its name), ``attributes``
    (row of the batch's).
    """

    @classmethod
    def of(cls, batch: PointBatch, claims: Claims, taken: Taken, rows: I64) -> "Said":
        """``rows``: the points of the table."""
        name = batch.points.column("name").to_numpy()[rows].astype(np.int64)
        sets = batch.points.column("attributes").to_numpy()[rows]
        packed = pl.Series("pair", name * len(batch.contexts.attributes) + sets)
        distinct = (
            pl.DataFrame({"pair": packed, "row": rows}).unique("pair", keep="first", maintain_order=True)
        ).with_row_index("number")
        number = pl.DataFrame({"pair": packed}).join(distinct, on="pair", how="left", maintain_order="left")
        first = distinct["row"].to_numpy().astype(np.uint32)
        labels = claims.labels(batch, first).with_columns(
            family=_FAMILY.gather(taken.family[first]),
            attributes=pl.Series(batch.points.column("attributes").to_numpy()[first]),
        )
        return cls(rows.astype(np.uint32), number["number"].to_numpy().astype(np.int64), labels)


def owners(batch: PointBatch, columns: Sequence[str], length: int) -> pl.DataFrame:
    """The texts of each resource."""
    strings, resources = batch.contexts.strings, batch.contexts.resources
    frame = pl.DataFrame({name: pl.Series(strings.take(resources.column(name))) for name in columns})
    return frame.with_columns(pl.all().str.slice(0, length))
