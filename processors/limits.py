"""Label limits (invariant 7): how many services and operations keep their name in a pane, and how long names
may be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from processors.grouping import U64, hash_rows, hash_texts, pack
from processors.lookup import Index
from processors.settings import LabelLimits
from schemas.spans import SpanBatch

OTHER = "other"
"""What stands for names over a limit."""

Codes = npt.NDArray[np.uint32]

IDENTITY = ("cluster", "namespace", "service", "version")


@dataclass(frozen=True, slots=True)
class Labels:
    """A batch's strings as labels: none longer than the limit, and ``other`` among them."""

    strings: pa.StringArray
    other: int
    """Code of ``other``."""
    shortened: Codes | None
    """Batch code -> label code, where cutting made them differ."""

    @classmethod
    def of(cls, batch: SpanBatch, label_length: int) -> "Labels":
        """Labels of a batch."""
        strings, shortened = batch.strings, None
        if (pc.max(pc.binary_length(strings)).as_py() or 0) > label_length:
            encoded = pc.utf8_slice_codeunits(strings, 0, label_length).dictionary_encode()
            strings, shortened = encoded.dictionary, encoded.indices.to_numpy().astype(np.uint32)
        return cls(pa.concat_arrays([strings, pa.array([OTHER])]), len(strings), shortened)

    def codes(self, column: pl.Series) -> Codes:
        """A column of batch codes as label codes."""
        codes: Codes = column.to_numpy()
        return codes if self.shortened is None else self.shortened[codes]

    def text(self, codes: npt.NDArray[np.integer]) -> pa.StringArray:
        """The texts of label codes."""
        return self.strings.take(pa.array(codes))


@dataclass(frozen=True, slots=True)
class Identities:
    """Distinct (cluster, namespace, service, version) of a pane; row 0 is ``other``."""

    labels: Labels
    columns: dict[str, Codes]
    """IDENTITY's columns as label codes, one row for each identity."""
    of_resource: Codes
    """The identity of each row of the batch's resources."""
    service: npt.NDArray[np.int64]
    """A number for each identity's (cluster, namespace, service)."""

    service_hashes: U64
    """A hash of each service number's texts, equal in every pane."""
    hashes: U64
    """The same of each identity."""


@dataclass(frozen=True, slots=True)
class Past:
    """The names (hashes) that the panes of the lookback had."""

    met: Sequence[pl.Series]
    """Of each earlier pane that had some, oldest first."""
    settled_panes: int
    """Where names are many: so many panes must have met one until it is no longer new."""
    most: int
    """More names than these in all panes are many."""

    def new(self, own: pl.Series, enough: int) -> pl.Series:
        """Of a pane's ``own`` names those that are new: that no earlier pane has met; or, where names are
        many, that few have met, so that names which come two or three times are as few as those that come
        once. Where no more than ``enough`` are, which ones does not matter.
        """
        if self.is_crowded(own):
            times = pl.concat([*(seen.unique() for seen in self.met), own]).value_counts(name="panes")
            settled = times.filter(pl.col("panes") > self.settled_panes)[own.name]
            return own.filter(~own.is_in(settled.implode()))
        for seen in reversed(self.met):
            if len(own) <= enough:
                break
            own = own.filter(~own.is_in(seen.implode()))
        return own

    def is_crowded(self, own: pl.Series) -> bool:
        """Whether the panes of the lookback and this one have many names."""
        if len(own) + sum(map(len, self.met)) <= self.most:
            return False
        return pl.concat([*self.met, own]).n_unique() > self.most


def identities(batch: SpanBatch, labels: Labels) -> Identities:
    """The identities of a batch's resources."""
    other = {name: labels.other if name == "service" else 0 for name in IDENTITY}
    resources = {
        name: np.append(np.uint32(other[name]), labels.codes(pl.Series(name, batch.resources[name])))
        for name in IDENTITY
    }
    packed = pack(list(resources.values()))
    first = Index(packed).find(packed)
    is_first = first == np.arange(len(first))
    of_resource = (np.cumsum(is_first) - 1).astype(np.uint32)[first[1:]]
    columns = {name: codes[is_first] for name, codes in resources.items()}
    _, rows, service = np.unique(
        pack([columns["cluster"], columns["namespace"], columns["service"]]),
        return_index=True,
        return_inverse=True,
    )
    hashes_of = _hashes(labels, columns)
    services = hash_rows([hashes_of[name][rows] for name in ("cluster", "namespace", "service")])
    hashes = hash_rows([services[service], hashes_of["version"]])
    return Identities(labels, columns, of_resource, service.astype(np.int64), services, hashes)


def _hashes(labels: Labels, columns: Mapping[str, Codes]) -> dict[str, U64]:
    """A hash of each code's text; each text is hashed once."""
    distinct = np.unique(np.concatenate(list(columns.values())))
    hashes = hash_texts(pl.Series(labels.text(distinct), dtype=pl.String))
    return {name: hashes[np.searchsorted(distinct, codes)] for name, codes in columns.items()}


@dataclass(frozen=True, slots=True)
class SeenServices:
    """A note for later panes: the services, and their versions, that a pane has spans of, the busiest ones
    where they are over the limit. A function of the pane alone, so that what later panes look up does not
    depend on what earlier ones have shown.
    """

    services: pl.Series
    """Hashes of (cluster, namespace, service), each once."""
    versions: pl.Series
    """Hashes of IDENTITY, each once."""
    operations: pl.DataFrame
    """``service``, ``operation`` (hashes): the operations of each service, each once."""
    most_operations: int
    """As many has the service with the most."""

    @classmethod
    def of(cls, spans: pl.DataFrame, known: Identities, limits: LabelLimits) -> "SeenServices":
        """``spans`` of the pane: columns ``resource``, ``operation``."""
        identity = known.of_resource[spans["resource"].to_numpy()]
        count = np.bincount(identity, minlength=len(known.service)).astype(np.int64)
        of_service = np.bincount(known.service, weights=count, minlength=len(known.service_hashes))
        operations, most = _operations(
            known.labels.codes(spans["operation"]), known.service[identity], known, limits
        )
        return cls(
            _busiest("service", known.service_hashes, of_service.astype(np.int64), limits.services),
            _busiest("version", known.hashes, count, limits.services),
            operations,
            most,
        )


def _busiest(name: str, hashes: U64, spans: npt.NDArray[np.int64], limit: int) -> pl.Series:
    """At most ``limit`` of the names that have spans; ties by hash."""
    has_some = spans > 0
    hashes, spans = hashes[has_some], spans[has_some]
    if len(hashes) > limit:
        hashes = hashes[np.lexsort((hashes, -spans))[:limit]]
    return pl.Series(name, hashes)


def _operations(
    operation: Codes, service: npt.NDArray[np.int64], known: Identities, limits: LabelLimits
) -> tuple[pl.DataFrame, int]:
    """SeenServices.operations and most_operations of spans: of each service the busiest where they are over
    its limit, of all the busiest where they are over that of a pane's rows.
    """
    width = len(known.labels.strings)
    pair = pl.Series("pair", service * width + operation)
    distinct = pair.unique()
    most = int(np.bincount(distinct.to_numpy() // width).max(initial=0))
    if most <= limits.operations_per_service and len(distinct) <= limits.series:
        return _named(distinct, known), most
    counted = pair.value_counts(name="spans")
    ranked = _named(counted["pair"], known).with_columns(counted["spans"])
    ranked = ranked.sort("spans", "service", "operation", descending=[True, False, False])
    few = pl.int_range(pl.len()).over("service") < limits.operations_per_service
    return ranked.filter(few).head(limits.series).drop("spans"), most


def _named(pair: pl.Series, known: Identities) -> pl.DataFrame:
    """Hashes of service and operation of pairs (service's number * strings + operation's code)."""
    labels = known.labels
    number, code = np.divmod(pair.to_numpy(), len(labels.strings))
    used = np.zeros(len(labels.strings), np.bool_)
    used[code] = True
    codes = np.flatnonzero(used)
    hashes = hash_texts(pl.Series(labels.text(codes), dtype=pl.String))
    rank = np.cumsum(used) - 1
    return pl.DataFrame({"service": known.service_hashes[number], "operation": hashes[rank[code]]})


@dataclass(frozen=True, slots=True)
class PastOperations:
    """The operations of services that the panes of the lookback had."""

    met: Sequence[pl.DataFrame]
    """SeenServices.operations of each earlier pane that had some."""
    settled_panes: int
    """Where a service's operations are many: so many panes must have met one until it is no longer new."""
    most: int
    """More operations of one service than these in all panes are many."""

    def new(self, own: pl.DataFrame) -> pl.Series:
        """Which of a pane's ``own`` operations (columns of SeenServices.operations) are new, by the rule of
        :meth:`Past.new` for each service.
        """
        keys = ["service", "operation"]
        of_these = pl.col("service").is_in(own["service"].unique().implode())
        met = pl.concat([note.filter(of_these) for note in self.met])
        times = met.group_by(keys).len("panes").with_columns(pl.col("panes").cast(pl.Int64))
        fresh = own.join(times, on=keys, how="anti").select(keys)
        many = pl.concat([times.select("service"), fresh.select("service")])["service"].value_counts(name="n")
        crowded = pl.col("service").is_in(many.filter(pl.col("n") > self.most)["service"].implode())
        panes = pl.col("panes").fill_null(0)
        joined = own.join(times, on=keys, how="left", maintain_order="left")
        return joined.select((panes == 0) | (crowded & (panes < self.settled_panes))).to_series()


@dataclass(frozen=True, slots=True)
class PastNames:
    """What earlier panes had of services, of their versions and of their operations."""

    services: Past
    versions: Past
    operations: PastOperations | None
    """None: no service of this pane has more operations than may be new."""

    @classmethod
    def of(
        cls, seen: Sequence[SeenServices], lookback_panes: int, limits: LabelLimits, own: SeenServices
    ) -> "PastNames":
        """Of the notes of earlier panes, oldest first, and of the pane itself."""
        half, most = lookback_panes // 2, limits.services
        operations = None
        if own.most_operations > limits.new_operations:
            operations = PastOperations(
                [note.operations for note in seen], half, limits.operations_per_service
            )
        return cls(
            Past([note.services for note in seen], half, most),
            Past([note.versions for note in seen], half, most),
            operations,
        )


def limit_services(
    identity: Codes, known: Identities, limit: int, past: Past | None = None, new_limit: int = 0
) -> Codes:
    """``identity`` of spans with those of services over the limit replaced by 0: the busiest services stay,
    ties by name.

    ``past``: of the services that are new by it ``new_limit`` stay. None: all may stay.
    """
    services = len(known.service_hashes)
    left = pl.Series("service", known.service_hashes[:0])
    if past is not None:
        own = np.delete(known.service_hashes, known.service[0])  # without `other`
        left = past.new(pl.Series("service", own), new_limit)
    if services <= limit and len(left) <= new_limit:
        return identity
    spans = np.bincount(known.service[identity], minlength=services)
    _, first = np.unique(known.service, return_index=True)
    names = {
        name: known.labels.text(known.columns[name][first]) for name in ("service", "namespace", "cluster")
    }
    ranked = pl.DataFrame({"number": np.arange(services), "spans": spans, **names}).sort(
        ["spans", *names], descending=[True, *(False for _ in names)]
    )
    number = ranked["number"].to_numpy()[:limit]
    if past is not None:
        new = pl.Series(known.service_hashes[number]).is_in(left.implode()).to_numpy()
        number = number[~new | (np.cumsum(new) <= new_limit)]
    stays = np.zeros(services, np.bool_)
    stays[number] = True
    return np.where(stays[known.service[identity]], identity, 0).astype(np.uint32)


def limit_versions(
    identity: Codes, known: Identities, past: Past, new_limit: int
) -> tuple[Codes, Identities]:
    """``identity`` of spans where, of the versions that are new by ``past``, only the ``new_limit`` busiest
    keep their name, ties by hash; the others are version ``other`` of their service, which the identities
    returned have besides.
    """
    new = past.new(pl.Series("version", known.hashes[1:]), new_limit)
    if len(new) <= new_limit:
        return identity, known
    spans = np.bincount(identity, minlength=len(known.service))
    candidates = np.flatnonzero(pl.Series(known.hashes).is_in(new.implode()).to_numpy() & (spans > 0))
    candidates = candidates[candidates > 0]
    over = candidates[np.lexsort((known.hashes[candidates], -spans[candidates]))[new_limit:]]
    if not len(over):
        return identity, known
    services, first = np.unique(known.service[over], return_index=True)
    columns = {name: np.concatenate([codes, codes[over][first]]) for name, codes in known.columns.items()}
    rows = len(known.service)
    columns["version"][rows:] = known.labels.other
    replaced = np.arange(rows, dtype=np.uint32)
    replaced[over] = rows + np.searchsorted(services, known.service[over])
    service = np.concatenate([known.service, services])
    return replaced[identity], replace(known, columns=columns, service=service)


def limit_operations(operation: Codes, service: npt.NDArray[np.int64], labels: Labels, limit: int) -> Codes:
    """``operation`` of spans with those over their service's limit replaced by ``other``: the busiest stay,
    ties by name.
    """
    used = np.zeros(len(labels.strings), np.bool_)
    used[operation] = True
    if np.count_nonzero(used) <= limit:
        return operation
    width = len(labels.strings)
    pair = pl.Series("pair", service * width + operation)
    counted = pair.value_counts(name="spans")
    number = counted["pair"].to_numpy() // width
    if np.bincount(number).max() <= limit:
        return operation
    ranked = counted.with_columns(
        pl.Series("service", number), pl.Series("name", labels.text(counted["pair"].to_numpy() % width))
    ).sort("service", "spans", "name", descending=[False, True, False])
    over = ranked.filter(pl.int_range(pl.len()).over("service") >= limit)["pair"]
    return np.where(pair.is_in(over.implode()).to_numpy(), labels.other, operation).astype(np.uint32)


def limit_new_operations(
    operation: Codes,
    service: npt.NDArray[np.int64],
    known: Identities,
    past: PastOperations,
    new_limit: int,
) -> Codes:
    """``operation`` of spans where, of each service's operations that are new by ``past``, only the
    ``new_limit`` busiest keep their name, ties by hash; the others are ``other``.
    """
    width = len(known.labels.strings)
    pair = pl.Series("pair", service * width + operation)
    counted = pair.value_counts(name="spans")
    number = counted["pair"].to_numpy() // width
    many = np.bincount(number, minlength=1) > new_limit
    counted = counted.filter(many[number])
    if counted.is_empty():
        return operation
    own = pl.concat([counted, _named(counted["pair"], known)], how="horizontal")
    ranked = own.filter(past.new(own)).sort("spans", "operation", descending=[True, False])
    over = ranked.filter(pl.int_range(pl.len()).over("service") >= new_limit)["pair"]
    if over.is_empty():
        return operation
    return np.where(pair.is_in(over.implode()).to_numpy(), known.labels.other, operation).astype(np.uint32)


def name_spans(
    spans: pl.DataFrame,
    known: Identities,
    limits: LabelLimits,
    past: PastNames | None = None,
) -> tuple[Codes, Codes, Identities]:
    """Each span's identity and operation (label code) within the limits, and the identities."""
    labels = known.labels
    identity = known.of_resource[spans["resource"].to_numpy()]
    identity = limit_services(
        identity, known, limits.services, past.services if past else None, limits.new_services
    )
    if past:
        identity, known = limit_versions(identity, known, past.versions, limits.new_services)
    operation, service = labels.codes(spans["operation"]), known.service[identity]
    if past and past.operations:
        operation = limit_new_operations(operation, service, known, past.operations, limits.new_operations)
    operation = limit_operations(operation, service, labels, limits.operations_per_service)
    return identity, operation, known
