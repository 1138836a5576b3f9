"""Rows of ``certificates``: until when certificates hold. A certificate has a row when it is new in the
lookback, and when it is its turn to be written again.

A certificate is known by its instance, kind and name (its name in Envoy, and the listener or upstream that
it stands on). Where one is met within the lookback of another of the same name that ends earlier or later,
it is new: its lifetime runs from then.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from processors.grouping import hash_rows, hash_texts
from processors.points.facts import Facts
from processors.points.last_points import I64
from processors.points.said import OWNER, SeenNames
from processors.points.table import AllPrepared, Numbers, Prepared, TableStage
from processors.stage import PaneView, Tables, Window
from schemas.families import FAMILIES
from schemas.points import PointBatch
from schemas.tables import SCHEMAS
from schemas.units import NS_PER_S

_KEY = ("cluster", "namespace", "service", "instance", "pod", "kind", "name")
_LATEST_S = 2**32 - 1
_DAY_S, _MINUTE_S = 86_400, 60
_DAYS = "server.days_until_first_cert_expiring"
_COLUMN = [family.column if family.table == "certificates" else "" for family in FAMILIES]
_LAST = {"key": pl.UInt64, "not_after": pl.Int64, "pane": pl.Int64}
_SAME_S = 120
"""Ends that differ by less are those of one certificate: some are said as what is left."""


@dataclass(frozen=True, slots=True)
class LastCertificates:
    """A carried note: the certificates that the panes of the lookback had."""

    rows: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_LAST))
    """Hash of _KEY, end, the last pane that had it."""


@dataclass(frozen=True, slots=True)
class _Met:
    """A pane's own note: its certificates."""

    rows: pl.DataFrame
    """_KEY, ``not_after``, ``time_s``, ``hash``; ``is_due``, ``is_met``, ``is_new``."""


class Certificates(TableStage):
    """See the module."""

    table = "certificates"
    owner = OWNER
    kept = ("kind",)
    named = "name"

    def keys(self, labels: pl.DataFrame, batch: PointBatch) -> pl.DataFrame:  # noqa: ARG002 - as other tables
        """See TableStage."""
        certificate = pl.col("certificate")
        where = pl.concat_str("upstream", "listener")
        is_chain = pl.col("family").str.contains("cert_chain")
        is_root = pl.col("family").str.contains("root_cert") | certificate.str.contains(
            r"(?i)(?:^|[_-])ca(?:[_-]|$)|root"
        )
        full = (
            pl.when(certificate != "")
            .then(pl.concat_str(certificate, pl.lit("@"), where))
            .otherwise("family")
        )
        return labels.select(
            kind=pl.when(is_root).then(pl.lit("root")).when(is_chain).then(pl.lit("chain")).otherwise(pl.lit("leaf")),
            name=full,
            own_cluster="own_cluster",
            own_namespace="own_namespace",
            own_service="own_service",
            own_version="own_version",
            own_pod="own_pod",
        )  # fmt: skip

    def close(self, pane: PaneView[PointBatch]) -> Tables:
        """See processors.stage.Stage."""
        super().close(pane)
        prepared = pane.own.get(AllPrepared)
        if prepared is None or self.table not in prepared.of_table:
            return {}
        frame = self._certificates(prepared.of_table[self.table], pane.own[Facts], pane)
        notes = list(pane.looked_back(LastCertificates))
        known = (notes[-1] if notes else LastCertificates()).rows
        known = known.filter(pl.col("pane") >= pane.number - self._lookback)
        pane.own.leave(_Met(_compared(frame, known, pane.number, self._lookback)))
        own = frame.select(key="hash", not_after="not_after", pane=pl.lit(pane.number, pl.Int64))
        pane.seen.carry(LastCertificates(pl.concat([known.join(own, on="key", how="anti"), own])))
        return {}

    def decide(self, pane: PaneView[PointBatch], window: Window) -> Tables:  # noqa: ARG002 - close has looked back
        """See processors.stage.Stage."""
        met = pane.own.get(_Met)
        if met is None:
            return {}
        due = met.rows.filter("is_due")
        if pane.met(SeenNames, self._lookback // 2) is not None:
            few = pl.col("is_met") | (pl.int_range(pl.len()).over("is_met") < self._limits.nodes // 10)
            due = due.filter(few)  # the others are written when it is their turn
        due = due.head(self._limits.nodes)
        lifetime = pl.when("is_new").then((pl.col("not_after") - pl.col("time_s")).clip(0)).otherwise(0)
        due = due.with_columns(lifetime_s=lifetime)
        columns = {
            **{name: due[name].to_arrow().cast(pa.string()) for name in _KEY},
            "not_after": pa.array(due["not_after"].to_numpy().astype(np.uint32)),
            "first_seen": pa.array(due["time_s"].to_numpy().astype(np.uint32)),
            "lifetime_s": pa.array(due["lifetime_s"].to_numpy().astype(np.uint64)),
            "log_time": pa.array(np.full(due.height, pane.time.start_s, np.uint32)),
        }
        names = SCHEMAS["certificates"].names
        return {"certificates": pa.table([columns[name] for name in names], names=names)}

    def _certificates(self, own: Prepared, facts: Facts, pane: PaneView[PointBatch]) -> pl.DataFrame:
        """_KEY, ``not_after``, ``time_s``, ``hash``: each key once, as its latest point says."""
        rows = facts.of_table(self.table)
        point = facts.point[rows]
        pair = own.said.pair[np.searchsorted(own.said.rows, point)]
        resource = pane.batch.points.column("resource").to_numpy()[point]
        texts = self.texts(own, Numbers(facts.slot[rows], own.owner[resource], own.key[pair], rows))
        time_s = np.clip(facts.time_ns[rows] // NS_PER_S, 0, _LATEST_S)
        not_after = _not_after(facts.family[rows], facts.value[rows], time_s)
        frame = pl.DataFrame(
            {**{name: pl.Series(texts[name]) for name in _KEY}, "not_after": not_after, "time_s": time_s}
        )
        frame = (
            frame.filter(pl.col("not_after") > 0)
            .sort("time_s", "not_after")
            .unique(_KEY, keep="last", maintain_order=True)
            .sort(_KEY)
        )
        return frame.with_columns(hash=hash_rows([hash_texts(frame[name]) for name in _KEY]))


def _compared(frame: pl.DataFrame, known: pl.DataFrame, pane: int, lookback: int) -> pl.DataFrame:
    """With ``is_met``: an earlier pane of the lookback has the name; ``is_new``: with another end;
    ``is_due``: it has not, or it is new, or met for the first time in its turn of so many panes.
    """
    both = frame.join(known.rename({"not_after": "before"}), left_on="hash", right_on="key", how="left", maintain_order="left")  # fmt: skip
    turn = pl.col("hash") % lookback
    is_met = pl.col("before").is_not_null()
    is_new = is_met & ((pl.col("not_after") - pl.col("before")).abs() > _SAME_S) & (pl.col("name") != _DAYS)
    is_turn = (pane + turn) // lookback != (pl.col("pane") + turn) // lookback
    return both.with_columns(
        is_met=is_met, is_new=is_new.fill_null(False), is_due=(~is_met | is_new | is_turn).fill_null(True)
    )


def _not_after(family: npt.NDArray[np.int16], value: npt.NDArray[np.float64], time_s: I64) -> I64:
    """When a certificate ends, s since 1970; of seconds that are left to the minute, of days to the day."""
    column = np.array(_COLUMN)[family]
    value = np.clip(value, -_LATEST_S, _LATEST_S)
    by_minute = np.rint((time_s + value) / _MINUTE_S) * _MINUTE_S
    by_day = np.floor((time_s + value * _DAY_S) / _DAY_S + 1) * _DAY_S
    ends = np.where(column == "left_s", by_minute, np.where(column == "left_days", by_day, value))
    whole: I64 = np.clip(ends, 0, _LATEST_S).astype(np.int64)
    return whole
