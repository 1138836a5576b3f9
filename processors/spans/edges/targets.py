"""What names of Envoy's clusters, and of peers, say of where a call leads (``schemas.upstream_names``)."""

import polars as pl

from schemas.upstream_names import DOTTED, NOBODYS, PIPED, SERVICE_HOST

_HOST_AND_PORT = r"^(?:\[([^\]]+)\]|([^:\s]+?))\.?(?::\d+)?$"


def read_upstreams(texts: pl.Series) -> pl.DataFrame:
    """Of names of Envoy's clusters, row by row: ``service_text``, ``namespace_text``, ``version_text``;
    ``meshed``: of a Kubernetes service; ``nameless``: the name is Envoy's own, and says nothing of the
    server's.
    """
    text = pl.col("text")
    subset, host = (pl.coalesce(text.str.extract(form, part) for form in (PIPED, DOTTED)) for part in (1, 2))
    return texts.alias("text").to_frame().select(
        *_service(pl.coalesce(host, text)),
        version_text=subset.fill_null(""),
        meshed=pl.coalesce(host, text).str.contains(SERVICE_HOST),
        nameless=host.is_null() & ~text.str.contains(SERVICE_HOST) & ~text.is_in(NOBODYS),
    )  # fmt: skip


def read_peers(texts: pl.Series) -> pl.DataFrame:
    """Of what CLIENT spans name as their peer: a service, a host, an address, each maybe with a port. Columns
    as of read_upstreams.
    """
    text = pl.col("text")
    host = pl.coalesce(text.str.extract(_HOST_AND_PORT, 1), text.str.extract(_HOST_AND_PORT, 2), text)
    return texts.alias("text").to_frame().select(
        *_service(host), version_text=pl.lit(""), meshed=host.str.contains(SERVICE_HOST), nameless=pl.lit(value=False)
    )  # fmt: skip


def _service(host: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    return (
        pl.coalesce(host.str.extract(SERVICE_HOST, 1), host).alias("service_text"),
        host.str.extract(SERVICE_HOST, 2).fill_null("").alias("namespace_text"),
    )
