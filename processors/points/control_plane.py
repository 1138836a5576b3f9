"""Rows of ``control_plane``: what istiod, agents, the CNI plugin and ztunnel say of themselves, by metric and
labels.
"""

import numpy as np
import polars as pl
import pyarrow as pa

from processors.points.said import OWNER
from processors.points.table import Numbers, Prepared, TableStage
from schemas.families import FAMILIES, LABELS, Takes
from schemas.points import PointBatch
from schemas.spans import ATTRIBUTES

_OTHERS = {Takes.LAST: "value", Takes.MAX: "value", Takes.BUCKETS: "histogram"}
_KIND = {family.name: _OTHERS.get(family.takes, "increment") for family in FAMILIES}
_IDENTITY = frozenset(key for label, keys in LABELS.items() if label.startswith("own_") for key in keys)
_MOST_LABELS = 16
_PART, _END = "\x1f", "\x1e"


class ControlPlane(TableStage):
    """Labels are the point's attributes without those that say whose it is."""

    table = "control_plane"
    owner = OWNER[:3] + OWNER[4:5]
    kept = ("metric", "kind")
    named = "labels_"

    def keys(self, labels: pl.DataFrame, batch: PointBatch) -> pl.DataFrame:
        """See TableStage."""
        return labels.select(
            metric="family",
            kind=pl.col("family").replace_strict(_KIND, return_dtype=pl.String),
            labels_=_labels(labels["attributes"], batch, self._limits.label_length),
            own_cluster="own_cluster",
            own_namespace="own_namespace",
            own_service="own_service",
        )

    def texts(self, own: Prepared, first: Numbers) -> dict[str, pa.Array]:
        """Texts of labels as maps."""
        columns = super().texts(own, first)
        joined = pl.Series(columns.pop("labels_"))
        columns["labels"] = _maps(joined)
        return columns

    def unit(self, family: str) -> float:
        """Seconds to ns; bytes as they are."""
        return 1.0 if "bytes" in family else 1e9


def _labels(sets: pl.Series, batch: PointBatch, length: int) -> pl.Series:
    """Of attribute sets their labels as one text, by key."""
    distinct = sets.unique().sort()
    attributes = batch.contexts.attributes.column("attributes").take(distinct.to_arrow())
    offsets = attributes.offsets.to_numpy()
    first, count = (
        int(offsets[0]) if len(offsets) else 0,
        int(offsets[-1] - offsets[0]) if len(offsets) else 0,
    )
    clean = pl.col("key", "text").str.replace_all(f"[{_PART}{_END}]", " ").str.slice(0, length)
    frame = (
        pl.DataFrame(
            {
                "set": np.repeat(distinct.to_numpy(), np.diff(offsets)),
                "key": pl.Series(attributes.keys.slice(first, count), dtype=pl.String),
                "text": pl.Series(attributes.items.slice(first, count), dtype=pl.String),
            }
        )
        .filter(~pl.col("key").is_in(list(_IDENTITY)))
        .with_columns(clean)
        .sort("set", "key", "text")
        .unique(["set", "key"], keep="first", maintain_order=True)
        .with_columns(place=pl.int_range(pl.len()).over("set"))
        .filter(pl.col("place") < _MOST_LABELS)
        .with_columns(pl.concat_str("key", pl.lit(_PART), "text").alias("entry"))
        .group_by("set", maintain_order=True)
        .agg(pl.col("entry").str.join(_END))
    )
    joined = pl.DataFrame({"set": sets}).join(frame, on="set", how="left", maintain_order="left")
    return joined["entry"].fill_null("")


def _maps(joined: pl.Series) -> pa.MapArray:
    """The texts of :func:`_labels` as maps."""
    frame = pl.DataFrame({"row": np.arange(len(joined)), "entry": joined})
    frame = frame.filter(pl.col("entry") != "").with_columns(pl.col("entry").str.split(_END)).explode("entry")
    parts = frame["entry"].str.splitn(_PART, 2).struct
    keys, items = (parts.field(f"field_{part}").fill_null("") for part in (0, 1))
    offsets = np.searchsorted(frame["row"].to_numpy(), np.arange(len(joined) + 1)).astype(np.int32)
    return pa.MapArray.from_arrays(
        pa.array(offsets),
        keys.to_arrow().cast(pa.string()),
        items.to_arrow().cast(pa.string()),
        type=ATTRIBUTES,
    )
