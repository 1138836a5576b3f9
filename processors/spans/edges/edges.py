"""Edges: which service called which, from the parents and children in a window of panes.

Rules for a span and its parent:
- a sidecar and its app are one node: where exactly one of the two is a proxy, there is no edge within a pod,
  nor within a service (unless both name a pod, and the pods differ);
- a CLIENT and a SERVER of one service of which neither names an instance are an edge;
- else another service, or another instance of the same service, is an edge, whatever the kinds of the two
  spans (so a gateway's CLIENT span below a CLIENT span counts, and a proxy's SERVER below a SERVER, which is
  what Envoy makes without ``spawn_upstream_span``);
- who sends and who receives have no edge where the latter names its queue: each has one with the queue.
  Databases are nodes where a CLIENT span names one, and neither another service nor a further call to a
  database shows below it; a root SERVER span was called from outside, and so was a
  root span of an Istio gateway;
- a CLIENT's span with nothing below it is a call by itself, to the service that other calls through its Envoy
  cluster (or to its peer) reached, else to a node of that name: ``unsent`` where its response flags say that
  it was refused before it was sent (UO, NR, UH, ...; of a proxy's SERVER span these three), ``unanswered``
  where it failed in another way, else one of ``calls``. So every call of a caller is in one of the three.
  It is taken back where a child comes too late. A proxy's SERVER span that failed counts so where SERVER
  spans of its service's proxies call others: else it leads to the proxy's own application.

``errors``: the callee failed, or its CLIENT caller did (a timeout fails only there), or it is unanswered.
``retries``: the attempt
says so (``retry.count``), or it is not the first call that one proxy span makes to the service.
``response_flags``: the caller's where it is an attempt (a proxy's CLIENT span) or unsent, else the callee's.
``client_histogram`` has the caller's duration where it is a CLIENT, a PRODUCER or a proxy.
``apart``: an end's span is ``mirrored``, else an end's flags are a fault filter's (``injected``). Protocol,
bytes and weight are the callee's, else the caller's. ``dimensions`` are those of the callee's span, of a call
that shows by its caller alone the caller's. ``overhead_histogram`` has the caller's duration less
the callee's where it is a CLIENT or a proxy, which waits for its answer (docs/adr/0046).
"""

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from processors.grouping import I64, NO_BUCKET, U64, Groups, hash_rows
from processors.limits import IDENTITY, Labels
from processors.lookup import NOWHERE, Index, rows_of
from processors.rows import no_dimensions
from processors.settings import LabelLimits
from processors.slots import LEVELS, PaneTime
from processors.spans.apart import APART
from processors.spans.dimensions import Maps, WindowDimensions
from processors.spans.edges.calls import Window
from processors.spans.edges.childless import childless_calls, taken_back
from processors.spans.edges.entries import find_entries
from processors.spans.edges.links import (
    CONNECTIONS,
    NO_OVERHEAD,
    SERVICE,
    WAY_OF_LINK,
    link_rows,
    told_by_themselves,
)
from processors.spans.edges.pairs import find_pairs
from processors.spans.edges.virtual import OTHER_NODE, Found, outside_calls, queue_calls
from processors.stage import Notes
from schemas.hexadecimal import hex_trace_ids
from schemas.histogram import UPPER_NS
from schemas.otlp.semantics import PROTOCOLS
from schemas.tables import SCHEMAS

_KEYS = ("client", "server", "connection", "upstream", "flags", "slot", "taken", "apart", "protocol")
_UPPER_NS = np.array(UPPER_NS, np.uint64)
_TEXTS = [f"{part}_text" for part in IDENTITY]
_OWN = (
    "trace_hi",
    "trace_lo",
    "db_system",
    "db_name",
    "peer",
    "messaging_system",
    "messaging_destination",
)


def edges(
    spans: pl.DataFrame,
    first: pl.Series,
    labels: Labels,
    window: Window,
    limits: LabelLimits,
    *,
    lookback: int,
    ends: I64,
    notes: Notes,
    new_ends: pl.Series | None = None,
    dimensions: WindowDimensions | None = None,
) -> dict[str, pa.Table]:
    """Rows of ``edges_10s`` of the window's pane; late ones also of ``edges_1m`` and ``edges_1h``. Tables
    without rows are left out.

    ``spans``: the pane's SPAN_SCHEMA columns, row by row those of its Calls; ``first``: which of them are
    first copies; ``ends``: rows of ends of what came unfinished; ``notes``: where Entries are left;
    ``lookback``: in panes; ``new_ends``: those that may be few, None where there are too few
    earlier panes to know. Ends over the limit of nodes, those with the fewest
    calls, are ``other``; so are both ends of the smallest rows over that of series.
    ``dimensions``: None where none is configured.
    """
    calls, time = window.calls, window.time
    own = calls.spans.hstack(spans[list(_OWN)])
    own = own if first.all() else own.filter(first)
    at = rows_of(calls.nodes["node"].to_numpy(), own["node"].to_numpy())
    own = own.hstack(calls.nodes.select("service", "identity", "gateway")[at])
    pairs = find_pairs(own, window)
    told = told_by_themselves(pairs.far, window)
    taken, kept = taken_back(told, window, lookback)
    notes.leave(find_entries(pairs, first=first, ends=ends))
    links, near_links = pairs.links()
    near = links.select(WAY_OF_LINK).head(near_links)
    if len(kept):
        links = links.filter(~links["parent_key"].is_in(kept.implode()))
    found = [
        Found(link_rows(links, pairs), OTHER_NODE),
        *childless_calls(pairs, labels, near=near, told=told, lookback=lookback),
        *taken,
        *queue_calls(pairs, labels),
        outside_calls(own),
    ]
    rows = pl.concat([part.rows for part in found])
    names = pl.concat([part.names for part in found])
    if rows.is_empty():
        return {}
    rows = _named(rows, limits.nodes)
    if new_ends is not None:
        rows = _few_new(rows, new_ends, limits.new_services)
    maps = None
    if dimensions is not None:
        hashes, maps = dimensions.named(rows["dimensions"].to_numpy())
        rows = rows.with_columns(dimensions=pl.Series(hashes))
    tables = {"edges_10s": _table(rows, names, maps, window, limits.series)}
    late = time.late(rows["slot"].to_numpy())
    if late.any():
        for level in ("1m", "1h"):
            coarse = rows.filter(late).with_columns(slot=pl.col("slot") // LEVELS[level] * LEVELS[level])
            tables[f"edges_{level}"] = _table(coarse, names, maps, window, limits.series)
    return tables


def _named(rows: pl.DataFrame, limit: int) -> pl.DataFrame:
    """The rows with the ends beyond the ``limit`` busiest made ``other``; of equal ones those of the smaller
    hash stay.
    """
    if 2 * rows.height <= limit:
        return rows
    ends = pl.concat([rows["client"], rows["server"].rename("client")]).value_counts()
    if ends.height <= limit:
        return rows
    stay = ends.sort("count", "client", descending=[True, False])["client"].head(limit).implode()
    other = pl.lit(OTHER_NODE["identity"][0], dtype=pl.UInt64)
    return rows.with_columns(
        pl.when(pl.col(end).is_in(stay)).then(end).otherwise(other).alias(end) for end in ("client", "server")
    )


def _few_new(rows: pl.DataFrame, new: pl.Series, limit: int) -> pl.DataFrame:
    """The rows with ``new`` ends made ``other``, but for the ``limit`` busiest; of equal ones those of the
    smaller hash stay.
    """
    if len(new) <= limit:
        return rows
    ends = pl.concat([rows["client"], rows["server"].rename("client")])
    busiest = ends.filter(ends.is_in(new.implode())).value_counts()
    stay = busiest.sort("count", "client", descending=[True, False])["client"].head(limit)
    over = new.filter(~new.is_in(stay.implode())).implode()
    other = pl.lit(OTHER_NODE["identity"][0], dtype=pl.UInt64)
    return rows.with_columns(
        pl.when(pl.col(end).is_in(over)).then(other).otherwise(end).alias(end) for end in ("client", "server")
    )


def _table(
    rows: pl.DataFrame, names: pl.DataFrame, maps: Maps | None, window: Window, limit: int
) -> pa.Table:
    time = window.time
    groups = Groups.by(_packed(rows))
    if len(groups) > limit:
        rows = _folded(rows, groups.outside_largest(limit), time)
        groups = Groups.by(_packed(rows))
    unsent, unanswered, error = (rows[name].to_numpy() for name in ("unsent", "unanswered", "error"))
    client_bucket, server_bucket = rows["client_bucket"].to_numpy(), rows["server_bucket"].to_numpy()
    hi, lo = rows["trace_hi"].to_numpy(), rows["trace_lo"].to_numpy()
    slowness = np.maximum(client_bucket, server_bucket).astype(np.int64) - NO_BUCKET
    exemplar = groups.best(slowness.astype(np.uint64) | error.astype(np.uint64) << np.uint64(63), hi, lo)
    keys = rows.select(_KEYS)[groups.first]
    taken = keys["taken"].to_numpy()

    def signed(counts: U64) -> pa.Array:
        """Of rows that are taken back what makes the sum right: modulo 2^64, as the database adds."""
        return pa.array(np.where(taken, np.negative(counts), counts))

    def histogram(bucket: npt.NDArray[np.int16]) -> pa.MapArray:
        found = groups.histogram(bucket, bucket > NO_BUCKET)
        if not taken.any():
            return found
        negative = np.repeat(taken, np.diff(found.offsets.to_numpy()))
        counts = found.items.to_numpy()
        return pa.MapArray.from_arrays(
            found.offsets, found.keys, np.where(negative, np.negative(counts), counts), type=found.type
        )

    weight = rows["weight"].to_numpy()
    sampled = (weight != 1).any()
    overhead = _overhead_buckets(rows["overhead_ns"].to_numpy())

    def estimated(counts: U64, counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        weights = groups.total(weight * counted) if sampled else counts.astype(np.float64)
        return np.where(taken, -weights, weights)

    calls, errors = groups.sum(~(unsent | unanswered)), groups.sum(error)
    columns = {
        "slot": keys["slot"].to_arrow(),
        **_identities(keys, names, window),
        "connection": pa.array(CONNECTIONS).take(keys["connection"].to_arrow()),
        "upstream_cluster": window.texts(keys["upstream"]),
        "response_flags": window.texts(keys["flags"]),
        "late": pa.array(time.late(keys["slot"].to_numpy()).astype(np.uint8)),
        "apart": pa.array(APART).take(keys["apart"].to_arrow()),
        "protocol": pa.array(PROTOCOLS).take(keys["protocol"].to_arrow()),
        "dimensions": _dimensions(rows, groups, maps),
        "calls": signed(calls),
        "unsent": signed(groups.sum(unsent)),
        "unanswered": signed(groups.sum(unanswered)),
        "errors": signed(errors),
        "retries": signed(groups.sum(rows["retry"].to_numpy())),
        "client_histogram": histogram(client_bucket),
        "server_histogram": histogram(server_bucket),
        "exemplar_trace_id": pc.if_else(pa.array(taken), "", hex_trace_ids(hi[exemplar], lo[exemplar])),
        "calls_estimated": estimated(calls, ~(unsent | unanswered)),
        "errors_estimated": estimated(errors, error),
        "request_bytes": signed(groups.sum(rows["request_bytes"].to_numpy())),
        "response_bytes": signed(groups.sum(rows["response_bytes"].to_numpy())),
        "overhead_histogram": groups.histogram(overhead, overhead > NO_BUCKET),
    }
    schema = SCHEMAS["edges_10s"]
    return pa.Table.from_arrays([pa.array(columns[name]) for name in schema.names], schema=schema)


def _packed(rows: pl.DataFrame) -> U64:
    small = rows["slot"].to_numpy().astype(np.uint64)
    for name in ("connection", "taken", "apart", "protocol"):
        small = small << np.uint64(8) | rows[name].to_numpy().astype(np.uint64)
    hashes = [
        name for name in ("client", "server", "upstream", "flags", "dimensions") if name in rows.columns
    ]
    return hash_rows([small, *(rows[name].to_numpy() for name in hashes)])


def _dimensions(rows: pl.DataFrame, groups: Groups, maps: Maps | None) -> pa.MapArray:
    if maps is None:
        return no_dimensions(len(groups))
    return maps.maps.take(
        pa.array(rows_of(maps.hashes.to_numpy(), rows["dimensions"].to_numpy()[groups.first]))
    )


def _overhead_buckets(overhead_ns: I64) -> npt.NDArray[np.int16]:
    """As ``schemas.histogram.bucket_of``; NO_BUCKET where it is not known."""
    known = np.flatnonzero(overhead_ns != NO_OVERHEAD)
    buckets = np.full(len(overhead_ns), NO_BUCKET, np.int16)
    at_least_1 = np.maximum(overhead_ns[known], 1).astype(np.uint64)
    buckets[known] = np.searchsorted(_UPPER_NS, at_least_1) - 1
    return buckets


def _identities(keys: pl.DataFrame, names: pl.DataFrame, window: Window) -> dict[str, pa.Array]:
    """The texts of both ends, row by row."""
    known, near = names["identity"], window.calls.nodes["identity"]
    ends = {end: keys[end].to_numpy() for end in ("client", "server")}
    sources = [names, window.calls.nodes]
    index = Index(pl.concat([known, near]).to_numpy())
    if any((index.find(end) == NOWHERE).any() for end in ends.values()):
        sources.append(window.nodes)
        index = Index(pl.concat([known, near, window.nodes["identity"]]).to_numpy())
    rows = {end: pa.array(index.find(end_keys)) for end, end_keys in ends.items()}
    found: dict[str, pa.Array] = {}
    for part, column in zip(IDENTITY, _TEXTS, strict=True):
        texts = pl.concat([source[column] for source in sources]).to_arrow()
        found |= {f"{end}_{part}": texts.take(at).cast(pa.string()) for end, at in rows.items()}
    return {f"{end}_{part}": found[f"{end}_{part}"] for end in ends for part in IDENTITY}


def _folded(rows: pl.DataFrame, over: npt.NDArray[np.bool_], time: PaneTime) -> pl.DataFrame:
    """Rows over the limit as calls from ``other`` to ``other``."""
    other = OTHER_NODE["identity"][0]
    folded: dict[str, pl.Expr | pl.Series] = {
        "client": pl.lit(other, dtype=pl.UInt64),
        "server": pl.lit(other, dtype=pl.UInt64),
        "connection": pl.lit(SERVICE, dtype=pl.UInt8),
        "upstream": pl.lit(0, dtype=pl.UInt64),
        "flags": pl.lit(0, dtype=pl.UInt64),
        "protocol": pl.lit(0, dtype=pl.UInt8),
        "slot": pl.Series(time.few(rows["slot"].to_numpy())),
    }
    if "dimensions" in rows.columns:
        folded["dimensions"] = pl.lit(0, dtype=pl.UInt64)
    over_limit = pl.Series(over)
    return rows.with_columns(
        pl.when(over_limit).then(value).otherwise(pl.col(name)).alias(name) for name, value in folded.items()
    )
