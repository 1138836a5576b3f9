"""Rows of ``proxies``: an instance of a proxy as it counts itself, and as Kubernetes counts its container."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from processors.points.facts import Facts
from processors.points.kinds import kinds
from processors.points.last_points import I64
from processors.points.said import OWNER
from processors.points.table import AllPrepared, Grouped, Prepared, TableStage
from processors.stage import PaneView, Tables
from schemas.families import FAMILIES, OWN_MANAGERS, PROXY_CONTAINERS
from schemas.points import PointBatch

_UPTIME = next(number for number, family in enumerate(FAMILIES) if family.name == "server.uptime")
_OF_KUBE = np.array([family.table == "proxies" and family.column == "restarts" for family in FAMILIES])
_GENERATED = "[bcdfghjklmnpqrstvwxz2456789]"
_WORKLOAD = rf"^(.+?)(?:-{_GENERATED}{{8,10}})?-{_GENERATED}{{5}}$"


_LAST = {"series": pl.UInt64, "time_ns": pl.Int64, "pane": pl.Int64, "uptime": pl.Float64}


@dataclass(frozen=True, slots=True)
class LastUptimes:
    """A carried note: the last uptime of each series that the panes of the lookback had."""

    rows: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_LAST))
    """``series`` UInt64, ``time_ns``, ``pane`` Int64, ``uptime`` Float64: later panes' rows last."""


@dataclass(frozen=True, slots=True)
class _Restarts:
    """A pane's own note."""

    points: npt.NDArray[np.int64]
    """Points of ``server.uptime`` that are less than the one before."""


class Proxies(TableStage):
    """Counters are sums, gauges the largest value in a slot, but whether the control plane is connected."""

    table = "proxies"
    owner = OWNER
    kept = ("kind",)
    named = "own_service"

    def keys(self, labels: pl.DataFrame, batch: PointBatch) -> pl.DataFrame:  # noqa: ARG002 - as other tables
        """See TableStage."""
        of_container = pl.col("family").str.starts_with("container_") | pl.col("family").str.starts_with(
            "kube_"
        )
        is_proxy = pl.col("container").is_in(list(PROXY_CONTAINERS))
        workload = pl.coalesce(pl.col("own_pod").str.extract(_WORKLOAD, 1), pl.col("own_pod"))
        return labels.select(
            kind=pl.when(is_proxy).then(pl.lit("sidecar")).otherwise(pl.lit("")),
            own_cluster="own_cluster",
            own_namespace="own_namespace",
            own_service=pl.when((pl.col("own_service") == "") | of_container)
            .then(pl.when(of_container).then(workload).otherwise(pl.lit("")))
            .otherwise("own_service"),
            own_version="own_version",
            own_pod="own_pod",
            own_instance=pl.when(of_container).then("own_pod").otherwise(pl.lit("")),
            foreign=of_container & ~is_proxy,
            left_out=pl.col("manager").is_in(list(OWN_MANAGERS)),
        )

    def close(self, pane: PaneView[PointBatch]) -> Tables:
        """See processors.stage.Stage."""
        tables = super().close(pane)
        prepared = pane.own.get(AllPrepared)
        if prepared is None or self.table not in prepared.of_table:
            return tables
        points, last = self._restarts(pane)
        pane.own.leave(_Restarts(points))
        pane.own.leave(_Kinds(kinds(pane.batch)))
        if last.rows.height:
            pane.seen.carry(last)
        return tables

    def _restarts(self, pane: PaneView[PointBatch]) -> tuple[I64, LastUptimes]:
        batch, facts = pane.batch, pane.own[Facts]
        rows = np.flatnonzero(facts.family == _UPTIME)
        point = facts.point[rows]
        found = pl.DataFrame(
            {
                "series": batch.points.column("series").to_numpy()[point],
                "time_ns": facts.time_ns[rows],
                "pane": np.full(len(rows), pane.number),
                "uptime": facts.value[rows],
                "point": point.astype(np.int64),
            }
        )
        notes = list(pane.looked_back(LastUptimes))
        known = notes[-1].rows if notes else LastUptimes().rows
        known = known.filter(pl.col("pane") >= pane.number - self._lookback)
        newest = known.sort("series", "time_ns").unique("series", keep="last", maintain_order=True)
        older = newest.with_columns(point=pl.lit(-1, pl.Int64))
        both = pl.concat([older, found]).sort("series", "time_ns", "point")
        before = pl.col("uptime").shift(1).over("series")
        fell = both.filter((pl.col("point") >= 0) & (pl.col("uptime") < before))["point"].to_numpy()
        own = found.drop("point").sort("series", "time_ns").unique("series", keep="last", maintain_order=True)
        later = own.select("series", of_own="time_ns")
        stay = (
            known.join(later, on="series", how="left", maintain_order="left")
            .filter(pl.col("of_own").is_null() | (pl.col("time_ns") > pl.col("of_own")))
            .drop("of_own")
        )
        return fell, LastUptimes(pl.concat([stay, own]))

    def further(self, pane: PaneView[PointBatch], own: Prepared, sums: Grouped) -> dict[str, pa.Array]:
        """Restarts, by uptime or by Kubernetes; the kind of the resource where the labels say none."""
        fact = sums.numbers.fact
        family = sums.facts.family[fact]
        fell = np.isin(sums.facts.point[fact], pane.own[_Restarts].points) & (family == _UPTIME)
        restarts = fell + np.where(_OF_KUBE[family], sums.facts.value[fact], 0)
        point = sums.facts.point[sums.first.fact]
        by_resource = pane.own[_Kinds].of_resource.gather(
            pane.batch.points.column("resource").to_numpy()[point]
        )
        said = own.keys.texts[sums.first.key]["kind"]
        kind = pl.select(pl.when(said == "").then(by_resource).otherwise(said).alias("kind"))["kind"]
        return {
            "restarts": pa.array(np.rint(np.bincount(sums.group, restarts, sums.count)).astype(np.uint64)),
            "kind": kind.to_arrow().cast(pa.string()),
        }


@dataclass(frozen=True, slots=True)
class _Kinds:
    """A pane's own note."""

    of_resource: pl.Series
