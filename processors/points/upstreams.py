"""Rows of ``upstreams``: what a caller's Envoys counted of one upstream cluster."""

import polars as pl

from processors.points.table import TableStage
from schemas.points import PointBatch
from schemas.upstream_names import DOTTED, PIPED, SERVICE_HOST


class Upstreams(TableStage):
    """Counters are sums over instances; of gauges the largest instance's counts, or the smallest's."""

    table = "upstreams"
    named = "upstream"

    def keys(self, labels: pl.DataFrame, batch: PointBatch) -> pl.DataFrame:  # noqa: ARG002 - as other tables
        """See TableStage."""
        frame = pl.concat([labels, read_upstreams(labels["upstream"])], how="horizontal")
        return frame.select(
            upstream="upstream",
            peer_cluster=pl.lit(""),
            peer_namespace="namespace_text",
            peer_service="service_text",
            peer_version="version_text",
            own_cluster="own_cluster",
            own_namespace="own_namespace",
            own_service="own_service",
            own_version="own_version",
        )


def read_upstreams(texts: pl.Series) -> pl.DataFrame:
    """Of names of Envoy's clusters ``service_text``, ``namespace_text``, ``version_text``, as
    schemas.upstream_names reads one. Clusters that lead into the own pod are nobody else.
    """
    text = pl.col("text")
    is_inbound = text.str.contains(r"^inbound[|_]")
    subset, host = (pl.coalesce(text.str.extract(form, part) for form in (PIPED, DOTTED)) for part in (1, 2))
    name = pl.coalesce(host, text)
    nothing = pl.lit("")
    service = pl.coalesce(name.str.extract(SERVICE_HOST, 1), name)
    return (
        texts.alias("text")
        .to_frame()
        .select(
            service_text=pl.when(is_inbound).then(nothing).otherwise(service),
            namespace_text=pl.when(is_inbound).then(nothing).otherwise(name.str.extract(SERVICE_HOST, 2).fill_null("")),
            version_text=subset.fill_null(""),
        )
    )  # fmt: skip
