"""What edges look up in other panes: a compact row per span, with texts as 64-bit hashes, which are equal in
every pane.

Equality of hashes stands for equality of texts: among the million texts that a window may hold, two share a
hash with a probability of 3e-8. Rows that come out get their texts from the pane that they were met in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from processors.grouping import U64, hash_rows, hash_texts
from processors.limits import IDENTITY, Codes, Labels
from processors.lookup import NOWHERE, rows_of
from processors.slots import PaneTime
from processors.spans.apart import apart_of
from schemas.spans import SpanBatch

PRODUCER, CONSUMER = 4, 5
CLIENT, SERVER = 3, 2

_UNSENT = r"(^|,)(UO|NR|UH)(,|$)"
"""Envoy's response flags of requests that were refused at the caller."""

_UNSENT_BY_CLIENT = r"(^|,)(UO|NR|UH|NC|DF|LH|RL|RLSE|UAEX|FI|IH|OM|DO|UDO|NFCF)(,|$)"
"""Those of a CLIENT span: on a SERVER span the further ones are the callee's own refusals."""

_FAILED = r"(^|,)(UF|UC|UT|UR|URX|LR|SI|UPE|UMSDR|DPE|DT|DC)(,|$)"
"""Envoy's response flags of requests that got no whole answer."""

_INBOUND = r"^(inbound[|_-]|InboundPassthroughCluster)"
"""Istio's names of clusters that lead from a sidecar to its own application."""

_ROUTED, _INGRESS = "router ", "ingress"
"""What Envoy names spans: `router CLUSTER egress` for an attempt, `ingress` for what came in; routes may name
the latter otherwise.
"""

PEER_BIT = np.uint64(1)
"""Set in ``via`` where a peer's name is meant, not an Envoy cluster's."""


@dataclass(frozen=True, slots=True)
class Calls:
    """One pane's spans, each once, as possible callers and callees."""

    spans: pl.DataFrame
    """``pane`` i64; ``key``, ``parent_key`` (0: root), ``span_key`` u64; ``start_ns`` i64; ``slot`` u32;
    ``node``, ``via`` (Envoy's cluster; else, PEER_BIT set, the peer that a CLIENT names), ``flags`` u64
    hashes (0: none); ``bucket`` i16; ``kind``, ``role`` (``messaging_role``), ``protocol`` (index of
    PROTOCOLS), ``apart`` (index of APART) u8; ``retry`` u16; ``duration_ns`` i64; ``request_bytes``,
    ``response_bytes`` u64; ``weight`` f64; and bools:

    ``proxy``, ``error``, ``queue`` (names a queue), ``database`` (a CLIENT that names one), ``refused``
    (before it was sent, by its flags), ``caller`` (a CLIENT that counts as a call where nothing shows below
    it), ``failed`` (error, HTTP 5xx or ``broken``), ``broken`` (got no whole answer, by its flags),
    ``status`` (has one of HTTP), ``routed`` (an attempt that Envoy's router spawned), ``ingress`` (Envoy's
    span of a request that came in), ``first`` (it is in no earlier pane of the lookback), ``loose`` (its
    parent is not among the pane's first copies).

    ``dimensions`` u64 (SpanDimensions.keys) where such are configured.
    """
    loose: pl.DataFrame
    """The loose ones of ``spans``: few, where panes are longer than traces."""
    nodes: pl.DataFrame
    """``node`` -> ``service`` (of its cluster and namespace), ``name`` (the service's, alone), ``identity``,
    ``instance``, ``pod``, ``cluster``, ``namespace``, ``address`` (hashes, 0: none), ``gateway`` bool, and
    IDENTITY's texts."""
    words: pl.DataFrame
    """``hash`` -> ``text`` of ``via`` and of ``flags``."""


def calls_of(
    pane: int,
    spans: pl.DataFrame,
    batch: SpanBatch,
    labels: Labels,
    *,
    first: pl.Series,
    slots: Codes,
    dimensions: U64 | None = None,
) -> Calls:
    """The look-up rows of a pane.

    ``spans``: SPAN_SCHEMA with ``key``, ``parent_key`` and ``span_key``, each span once; ``first``: which of
    them are first copies; ``slots``, ``dimensions``: of each.
    """
    upstream, flags = labels.codes(spans["upstream_cluster"]), labels.codes(spans["response_flags"])
    client, proxy = spans["kind"] == CLIENT, _own(spans["proxy"])
    peer = np.where((client & ~proxy).to_numpy() & (upstream == 0), labels.codes(spans["peer"]), 0)
    resources = {
        name: labels.codes(pl.Series(batch.resources[name]))
        for name in (*IDENTITY, "instance", "pod", "address")
    }
    hashes = np.zeros(len(labels.strings), np.uint64)
    for codes in (upstream, flags, peer, *resources.values()):
        hashes[codes] = 1
    used = np.flatnonzero(hashes)
    texts = labels.text(used)
    hashes[used] = hash_texts(pl.Series(texts, dtype=pl.String))
    part = {name: hashes[codes] for name, codes in resources.items()}
    service = hash_rows([part["cluster"], part["namespace"], part["service"]])
    identity = hash_rows([service, part["version"]])
    node = hash_rows([identity, part["instance"], part["pod"]])
    nodes = pl.DataFrame(
        {
            "node": node,
            "service": service,
            "name": part["service"],
            "identity": identity,
            "instance": part["instance"],
            "pod": part["pod"],
            "cluster": part["cluster"],
            "namespace": part["namespace"],
            "address": part["address"],
            "gateway": pl.Series(batch.resources["gateway"]) != 0,
        }
        | {f"{name}_text": pl.Series(labels.text(resources[name]), dtype=pl.String) for name in IDENTITY}
    ).unique("node", keep="first", maintain_order=True)
    queue = (spans["messaging_role"] != 0) & (
        (spans["messaging_system"] != 0) | (spans["messaging_destination"] != 0)
    )

    def by_text(pattern: str, codes: Codes) -> pl.Series:
        """Which codes' texts match; asked once for each distinct text of these codes."""
        found = np.zeros(len(hashes), np.bool_)
        own = _distinct(codes, len(hashes))
        found[own] = np.asarray(pc.match_substring_regex(labels.text(own), pattern))
        return pl.Series(found[codes])

    cluster = hashes[upstream] & ~PEER_BIT
    inbound = by_text(_INBOUND, upstream)
    database = client & ((spans["db_system"] != 0) | (spans["db_name"] != 0))
    broken = by_text(_FAILED, flags)
    failed = _own(spans["error"]) | (spans["http_status"] >= 500) | broken
    refused = (client & by_text(_UNSENT_BY_CLIENT, flags)) | (proxy & by_text(_UNSENT, flags))
    name = labels.codes(spans["name"])
    look_up = pl.DataFrame({
        "key": spans["key"], "parent_key": spans["parent_key"], "span_key": spans["span_key"],
        "start_ns": _own(spans["start_ns"]), "slot": slots, "role": _own(spans["messaging_role"]),
        "node": node[spans["resource"].to_numpy()],
        "via": np.where(peer != 0, hashes[peer] | PEER_BIT, cluster), "flags": hashes[flags],
        "bucket": _own(spans["bucket"]), "kind": _own(spans["kind"]), "retry": _own(spans["retry_count"]),
        "protocol": _own(spans["protocol"]), "apart": apart_of(spans, flags, labels), "weight": _own(spans["weight"]),
        "duration_ns": _own(spans["duration_ns"]),
        "request_bytes": _own(spans["request_bytes"]), "response_bytes": _own(spans["response_bytes"]),
        "proxy": proxy, "error": _own(spans["error"]), "queue": queue,
        "database": database, "refused": refused & ~inbound,
        "caller": client & ~database & ~queue & ~inbound & (failed | pl.Series((upstream != 0) | (peer != 0))),
        "failed": failed & ~inbound, "broken": broken,
        "status": spans["http_status"] != 0,
        "routed": client & proxy & pl.Series(np.asarray(pc.starts_with(labels.strings, _ROUTED))[name]),
        "ingress": (spans["kind"] == SERVER) & proxy & pl.Series(np.asarray(pc.equal(labels.strings, _INGRESS))[name]),
    }).select(pl.lit(pane, pl.Int64).alias("pane"), pl.all())  # fmt: skip
    parent_key = spans["parent_key"].to_numpy()
    above = rows_of((spans["key"] if first.all() else spans["key"].filter(first)).to_numpy(), parent_key)
    loose = pl.Series("loose", (above == NOWHERE) & (parent_key != 0))
    look_up = look_up.hstack([first.alias("first"), loose])
    if dimensions is not None:
        look_up = look_up.with_columns(dimensions=pl.Series(dimensions))
    return Calls(look_up, look_up.filter(loose), nodes, _words(labels, hashes, upstream, flags, peer))


def _words(labels: Labels, hashes: U64, upstream: Codes, flags: Codes, peer: Codes) -> pl.DataFrame:
    codes = [_distinct(each, len(hashes)) for each in (upstream, peer, flags)]
    texts = labels.text(np.concatenate(codes))
    clusters, peers, distinct_flags = (hashes[each] for each in codes)
    return pl.DataFrame(
        {
            "hash": np.concatenate([clusters & ~PEER_BIT, peers | PEER_BIT, distinct_flags]),
            "text": pl.Series(texts, dtype=pl.String),
        }
    )


def _distinct(codes: Codes, labels: int) -> npt.NDArray[np.intp]:
    used = np.zeros(labels, np.bool_)
    used[codes] = True
    return np.flatnonzero(used)


def _own(column: pl.Series) -> pl.Series:
    """A copy: a column as it came out of Arrow keeps its whole batch in memory, here for as long as the
    lookback.
    """
    return pl.Series(column.to_numpy().copy())


CLAIM = {"pane": pl.Int64, "parent_key": pl.UInt64, "node": pl.UInt64, "database": pl.Boolean}


@dataclass(frozen=True)
class Window:
    """The panes around the one that is decided: [pane - lookback, pane + wait]. What few ask for is put
    together when it is asked for, once.
    """

    pane: int
    wait: int
    time: PaneTime
    """Of the pane that is decided."""
    panes: Mapping[int, Calls]
    """Those without spans may be absent."""
    claims: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CLAIM))
    """Children that a span had when its own pane was decided, and that were another's later, as that one came
    in time for them only (of spans that share an id): CLAIM.
    """

    @property
    def calls(self) -> Calls:
        """Of the pane that is decided."""
        return self.panes[self.pane]

    @cached_property
    def spans(self) -> pl.DataFrame:
        """Of all panes, in the order of the log."""
        return self._all(lambda part: part.spans)

    @cached_property
    def loose(self) -> pl.DataFrame:
        """The loose spans of the other panes, in the order of the log."""
        loose = self._all(lambda part: part.loose)
        return loose.filter(loose["pane"] != self.pane)

    @cached_property
    def nodes(self) -> pl.DataFrame:
        """Of all panes, each once."""
        nodes = self._all(lambda part: part.nodes)
        return nodes.filter(nodes["node"].is_first_distinct())

    def _all(self, part: Callable[[Calls], pl.DataFrame]) -> pl.DataFrame:
        return pl.concat([part(calls) for _, calls in sorted(self.panes.items())], rechunk=False)

    def about(self, pane: int, before: int) -> "Window":
        """What was known of ``pane`` when it was decided, of the panes from ``before`` ago on."""
        known = range(pane - before, pane + self.wait + 1)
        calls = {number: part for number, part in self.panes.items() if number in known}
        return Window(pane, self.wait, self.time, calls)

    def spans_where(self, column: str, keys: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
        """Spans whose ``column`` is among ``keys``, in the order of the log."""
        known, wanted = keys.implode(), list(columns)
        found = [self.calls.spans[wanted].clear()]
        for _, part in sorted(self.panes.items()):
            met = part.spans[column].is_in(known)
            if met.any():
                found.append(part.spans[wanted].filter(met))
        return pl.concat(found)

    def children_of(self, parents: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
        """Spans below ``parents``, keys of first copies of the pane that is decided, in no particular order.

        In another pane such a child is loose: an earlier one cannot have the parent, and in a later one the
        parent is a copy.
        """
        known = parents.implode()
        own, others = (
            part.select(columns).filter(part["parent_key"].is_in(known))
            for part in (self.calls.spans, self.loose)
        )
        return own if others.is_empty() else pl.concat([own, others])

    def children_of_others(self, parents: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        """Spans below those of other panes (``p_pane``, ``parent_key``), in no particular order: a child is
        in its parent's pane, or loose.
        """
        known, wanted = parents["parent_key"].implode(), list(columns)
        panes = [self.panes[pane].spans for pane in parents["p_pane"].unique(maintain_order=True)]
        around = [part[wanted].filter(part["parent_key"].is_in(known) & ~part["loose"]) for part in panes]
        loose = [part.loose for _, part in sorted(self.panes.items())]
        return pl.concat([*around, *(part[wanted].filter(part["parent_key"].is_in(known)) for part in loose)])

    def nodes_where(self, column: str, hashes: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
        """``columns`` of nodes with these values in ``column``, one for each."""
        return _one_each(self.nodes, column, hashes, columns)

    def with_dimensions(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A frame with ``dimensions`` of its spans (``key``), as their first copies have them, where such are
        configured.
        """
        columns = ("key", "dimensions")
        if columns[1] not in self.calls.spans.columns:
            return frame
        known = self.calls.spans.filter(self.calls.spans["first"]).select(columns)
        missing = frame["key"].filter(~frame["key"].is_in(known["key"].implode()))
        if len(missing):
            known = pl.concat([known, self.spans_where("key", missing, columns)])
        return frame.join(_one_each(known, "key", frame["key"], columns), on="key", maintain_order="left")

    def texts(self, hashes: pl.Series) -> pa.StringArray:
        """Of upstream clusters and flags; "" where no pane has the text."""
        asked, words = hashes.to_numpy(), self.calls.words
        at = rows_of(words["hash"].to_numpy(), asked)
        if (at == NOWHERE).any():
            words = pl.concat([words, self._all(lambda part: part.words)])
            at = rows_of(words["hash"].to_numpy(), asked)
        texts = words["text"].to_arrow().take(pa.array(at, mask=at == NOWHERE))
        return texts.cast(pa.string()).fill_null("")


def _one_each(frame: pl.DataFrame, column: str, hashes: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
    at = rows_of(frame[column].to_numpy(), hashes.to_numpy())
    asked = np.zeros(len(frame), np.bool_)
    asked[at[at != NOWHERE]] = True
    return frame.select(columns).filter(pl.Series(asked))
