"""Rows of ``traffic``: requests, durations, bytes and connections, from Envoy's and Istio's counters.

Of each side only one family counts requests of Envoy's: those of an upstream cluster are the client's, those
of a manager of HTTP connections the server's. Clusters that lead into the own pod (``inbound|...``), managers
of a sidecar's outbound listeners, and ``admin``'s would count the same again, and are left out.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from processors.points.kinds import is_router
from processors.points.said import Said
from processors.points.table import TableStage
from processors.points.upstreams import read_upstreams
from schemas.families import OWN_MANAGERS, OWN_UPSTREAMS, REPORTERS
from schemas.otlp.semantics import GRPC_SERVER_ERRORS
from schemas.points import PointBatch

_INBOUND = r"^inbound[|_]"
_OUTBOUND = r"^outbound"


class Traffic(TableStage):
    """See the module."""

    table = "traffic"
    kept = ("side", "source", "security")
    named = "peer_service"

    def keys(self, labels: pl.DataFrame, batch: PointBatch) -> pl.DataFrame:  # noqa: ARG002 - as other tables
        """See TableStage."""
        istio = pl.col("family").str.starts_with("istio_")
        of_cluster = pl.col("family").str.starts_with("cluster.")
        reporter = pl.col("reporter").replace_strict(REPORTERS, default="client")
        frame = labels.with_columns(
            istio=istio,
            of_cluster=of_cluster,
            side=pl.when(istio)
            .then(reporter)
            .when(of_cluster)
            .then(pl.lit("client"))
            .otherwise(pl.lit("server")),
        )
        frame = pl.concat([frame, read_upstreams(frame["upstream"])], how="horizontal")
        own, peer = pl.col("side") == "client", pl.col("side") != "client"
        code = pl.col("code")
        return frame.select(
            side="side",
            source=pl.when("istio").then(pl.lit("istio")).otherwise(pl.lit("envoy")),
            peer_cluster=pl.when("istio").then(_istio("cluster", peer)).otherwise(pl.lit("")),
            peer_namespace=pl.when("istio").then(_istio("namespace", peer)).otherwise("namespace_text"),
            peer_service=pl.when("istio").then(_istio("service", peer)).otherwise("service_text"),
            peer_version=pl.when("istio").then(_istio("version", peer)).otherwise("version_text"),
            protocol=_protocol(),
            response_code=code,
            response_flags=pl.col("flags").replace("-", ""),
            security=pl.when(pl.col("security") == "").then(pl.lit("unknown")).otherwise("security"),
            error=code.str.starts_with("5") | code.is_in(["0", "-"]) | _grpc_failed(),
            own_cluster=_own("cluster", own),
            own_namespace=_own("namespace", own),
            own_service=_own("service", own),
            own_version=_own("version", own),
            left_out=~pl.col("istio")
            & pl.when("of_cluster")
            .then(pl.col("upstream").str.contains(_INBOUND) | pl.col("upstream").is_in(list(OWN_UPSTREAMS)))
            .otherwise(pl.col("manager").is_in(list(OWN_MANAGERS))),
            outbound=~pl.col("istio") & ~pl.col("of_cluster") & pl.col("manager").str.contains(_OUTBOUND),
        )

    def left_out(self, keys: pl.DataFrame, said: Said, batch: PointBatch) -> npt.NDArray[np.bool_]:
        """Managers of outbound listeners too, but for gateways', which are their way in."""
        gone = super().left_out(keys, said, batch)
        outbound = keys["outbound"].to_numpy()[said.pair]
        if not outbound.any():
            return gone
        resource = batch.points.column("resource").to_numpy()[said.rows]
        flags: npt.NDArray[np.bool_] = gone | (outbound & ~is_router(batch)[resource])
        return flags


def _protocol() -> pl.Expr:
    family = pl.col("family")
    is_tcp = family.str.starts_with("istio_tcp_")
    counts = family.str.contains(r"_rq(?:_xx|_time)?$")
    return (
        pl.when(is_tcp).then(pl.lit("tcp"))
        .when("istio").then(pl.col("protocol").str.to_lowercase())
        .when(counts).then(pl.lit("http"))
        .otherwise(pl.lit(""))
    )  # fmt: skip


def _grpc_failed() -> pl.Expr:
    status, is_grpc = pl.col("grpc_status"), pl.col("istio") & (pl.col("protocol") == "grpc")
    servers = [str(each) for each in GRPC_SERVER_ERRORS]
    at_client = ~status.is_in(["", "0"])
    return is_grpc & pl.when(pl.col("side") == "client").then(at_client).otherwise(status.is_in(servers))


def _known(name: str) -> pl.Expr:
    """A label of Istio's, which writes ``unknown`` where it does not know."""
    return pl.when(pl.col(name) == "unknown").then(pl.lit("")).otherwise(name)


def _istio(field: str, is_source: pl.Expr) -> pl.Expr:
    """What Istio's labels say of one end of a call: the source's, or the destination's."""
    destination = _known(f"destination_{field}")
    if field in ("service", "namespace"):
        name = "destination_name" if field == "service" else "destination_name_namespace"
        destination = pl.when(destination == "").then(_known(name)).otherwise(destination)
    return pl.when(is_source).then(_known(f"source_{field}")).otherwise(destination)


def _own(field: str, is_client: pl.Expr) -> pl.Expr:
    return pl.when("istio").then(_istio(field, is_client)).otherwise(f"own_{field}")
