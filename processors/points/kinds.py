"""What kind of proxy a resource is, by Istio's node id (``TYPE~ADDRESS~POD.NAMESPACE~DOMAIN``) or name."""

import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.points import PointBatch

_NODE_KEYS = ("node_id", "node_name", "envoy.node_id", "service.instance.id")
_KIND = r"^(sidecar|router|waypoint|ztunnel)~"
_NAMED = {"ztunnel": r"^ztunnel", "router": r"(?:ingress|egress)gateway|^istio-gateway", "waypoint": r"(?:^|-)waypoint$"}  # fmt: skip


def kinds(batch: PointBatch) -> pl.Series:
    """Of each resource ``sidecar``, ``router``, ``waypoint``, ``ztunnel`` or ""."""
    attributes = batch.contexts.resources.column("attributes")
    of_set = np.repeat(np.arange(len(attributes)), np.diff(attributes.offsets.to_numpy()))
    first, last = (int(attributes.offsets[at].as_py()) for at in (0, -1)) if len(attributes) else (0, 0)
    texts = pl.DataFrame(
        {
            "set": of_set,
            "key": pl.Series(attributes.keys.slice(first, last - first)),
            "text": pl.Series(attributes.items.slice(first, last - first)),
        },
        schema_overrides={"key": pl.String, "text": pl.String, "set": pl.Int64},
    ).filter(pl.col("key").is_in(_NODE_KEYS))
    by_id = (
        texts.with_columns(kind=pl.col("text").str.extract(_KIND))
        .drop_nulls("kind")
        .unique("set", keep="first", maintain_order=True)
    )
    service = pl.Series(batch.contexts.strings.take(batch.contexts.resources.column("service")))
    frame = pl.DataFrame({"set": np.arange(len(attributes)), "service": service}).join(
        by_id.select("set", "kind"), on="set", how="left", maintain_order="left"
    )
    by_name = pl.lit("")
    for kind, form in _NAMED.items():
        by_name = pl.when(pl.col("service").str.contains(form)).then(pl.lit(kind)).otherwise(by_name)
    return frame.select(pl.coalesce("kind", by_name).alias("kind"))["kind"]


def is_router(batch: PointBatch) -> npt.NDArray[np.bool_]:
    """Which resources are gateways."""
    flags: npt.NDArray[np.bool_] = kinds(batch).is_in(["router", "waypoint"]).to_numpy()
    return flags
