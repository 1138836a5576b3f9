"""What a pane's points say for the tables of counters: which are taken, and their numbers, one row an
increment or a gauge's value.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.compute as pc

from processors.points.buckets import Buckets
from processors.points.claims import Claims
from processors.points.increments import NO_RECORDED_VALUE, SUM, SUMMARY, Increments
from processors.points.last_points import F64, I64, Flags
from processors.rows import Rows
from processors.slots import PaneTime
from schemas.families import FAMILIES, Takes
from schemas.metric_names import COPY
from schemas.points import KINDS, PointBatch

TABLES = ("traffic", "upstreams", "proxies", "control_plane", "certificates")
"""Those that families of metrics go to."""

_GAUGE = KINDS.index("gauge")
_TABLE = np.array([TABLES.index(family.table) for family in FAMILIES], np.int8)
_TAKES = np.array([list(Takes).index(family.takes) for family in FAMILIES], np.int8)
_INCREMENT, _SUM, _BUCKETS, _LAST, _MAX = map(list(Takes).index, Takes)


@dataclass(slots=True)
class Taken:
    """Which of a batch's points go into tables of counters; stages of tables leave out some."""

    family: npt.NDArray[np.int16]
    """Of each point: its place in FAMILIES; negative: it goes into none."""
    left_out: Flags
    """Points that are neither in a table of counters nor stored: copies, a proxy's own traffic."""

    @classmethod
    def of(cls, batch: PointBatch, claims: Claims, tables: Collection[str]) -> "Taken":
        """Points of these tables' families, of a kind that the family takes."""
        kind = batch.points.column("kind").to_numpy()
        monotonic = batch.points.column("monotonic").to_numpy(zero_copy_only=False)
        fits = np.zeros((len(Takes), 2 * len(KINDS)), np.bool_)
        fits[_INCREMENT, 2 * SUM + 1] = True
        fits[[_LAST, _MAX], 2 * _GAUGE : 2 * SUM + 2] = True
        fits[_BUCKETS, 2 * SUM + 2 : 2 * SUMMARY] = True
        fits[_SUM, 2 * SUM + 2 :] = True
        wanted = np.isin(_TABLE, [TABLES.index(table) for table in tables])
        family = claims.family.copy()
        claimed = np.flatnonzero(family >= 0)
        of_these = family[claimed]
        is_ok = wanted[of_these] & fits[_TAKES[of_these], 2 * kind[claimed] + monotonic[claimed]]
        family[claimed[~is_ok]] = -1
        return cls(family, (claims.family == COPY) & ("traffic" in tables))

    def of_table(self, table: str) -> I64:
        """The points of a table."""
        return np.flatnonzero((self.family >= 0) & (_TABLE[self.family] == TABLES.index(table)))

    def counters(self) -> Rows:
        """Points of which the table takes what they gained."""
        return np.flatnonzero((self.family >= 0) & (_TAKES[self.family] < _LAST)).astype(np.uint32)

    def gauges(self) -> Rows:
        """Points of which the table takes the value."""
        return np.flatnonzero((self.family >= 0) & (_TAKES[self.family] >= _LAST)).astype(np.uint32)


@dataclass(frozen=True, slots=True)
class Facts:
    """Numbers of points, as columns of equal length."""

    point: Rows
    family: npt.NDArray[np.int16]
    slot: npt.NDArray[np.uint32]
    value: F64
    """What was gained, or a gauge's last value in the slot."""
    time_ns: I64
    buckets: Buckets
    """What buckets gained; ``owner``: row of these."""
    scale: I64
    """Of an exponential histogram's buckets."""
    zero_count: I64

    @classmethod
    def of(cls, batch: PointBatch, taken: Taken, gained: Increments, time: PaneTime) -> "Facts":
        """The numbers of all points that are taken."""
        times = batch.points.column("time_ns").to_numpy()
        rows = gained.rows
        counter = rows["point"].to_numpy()
        value = np.where(
            _TAKES[taken.family[counter]] == _SUM, rows["sum"].to_numpy(), rows["value"].to_numpy()
        )
        gauge = _last_ones(batch, taken.gauges(), time)
        point = np.concatenate([counter, gauge])
        nothing = np.zeros(len(gauge), np.int64)
        return cls(
            point,
            taken.family[point],
            np.concatenate([rows["slot"].to_numpy(), time.slots(times[gauge])]),
            np.concatenate([np.maximum(value, 0), batch.points.column("value").to_numpy()[gauge]]),
            times[point],
            gained.buckets,
            np.concatenate([rows["scale"].to_numpy(), nothing]),
            np.concatenate([rows["zero_count"].to_numpy(), nothing]),
        )

    def of_table(self, table: str) -> I64:
        """Rows of a table."""
        return np.flatnonzero(_TABLE[self.family] == TABLES.index(table))


def _last_ones(batch: PointBatch, gauges: Rows, time: PaneTime) -> Rows:
    """Of each series the last point with a value in each slot, in the batch's order."""
    points = {
        name: batch.points.column(name).to_numpy()[gauges]
        for name in ("series", "time_ns", "value", "flags", "identity_hi", "identity_lo")
    }
    usable = np.isfinite(points["value"]) & (points["flags"] & NO_RECORDED_VALUE == 0)
    usable &= points["time_ns"] > 0
    frame = (
        pl.DataFrame({**points, "slot": time.slots(points["time_ns"]), "row": gauges})
        .filter(pl.Series(usable))
        .sort("time_ns", "value", "identity_hi", "identity_lo")
    )
    last = frame.unique(["series", "slot"], keep="last", maintain_order=True)
    rows: Rows = np.sort(last["row"].to_numpy())
    return rows


def of_proxies(batch: PointBatch) -> Flags:
    """Which points are a proxy's own statistics, by its resource or Envoy's names on its Prometheus page."""
    attributes = batch.contexts.resources.column("attributes")
    offsets = attributes.offsets.to_numpy()
    of_set = np.repeat(np.arange(len(attributes)), np.diff(offsets))
    says = pc.and_(pc.equal(attributes.keys, "telemetry.sdk.name"), pc.equal(attributes.items, "envoy"))
    is_envoy = np.zeros(len(attributes) + 1, np.bool_)
    is_envoy[of_set[np.asarray(says.slice(0, len(of_set)))]] = True
    by_name = np.asarray(pc.starts_with(batch.contexts.strings, "envoy_"))
    flags: Flags = is_envoy[batch.points.column("resource").to_numpy()]
    either: Flags = flags | by_name[batch.points.column("name").to_numpy()]
    return either
