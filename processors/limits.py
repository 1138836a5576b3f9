"""Label limits (invariant 7): how many services and operations keep their name in a pane, and how long names
may be.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from processors.grouping import U64, hash_rows, hash_texts, pack
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


def not_met(hashes: pl.Series, met: Sequence[pl.Series], enough: int) -> pl.Series:
    """Of ``hashes`` those that no earlier pane has met; ``met``: of earlier panes, oldest first. Once no more
    than ``enough`` are left, older panes are not asked.
    """
    for seen in reversed(met):
        if len(hashes) <= enough:
            break
        hashes = hashes.filter(~hashes.is_in(seen.implode()))
    return hashes


def identities(batch: SpanBatch, labels: Labels) -> Identities:
    """The identities of a batch's resources."""
    resources = pl.DataFrame(
        {name: labels.codes(pl.Series(name, batch.resources[name])) for name in IDENTITY}
    )
    other = pl.DataFrame(
        {name: [labels.other if name == "service" else 0] for name in IDENTITY}, schema=resources.schema
    )
    distinct = pl.concat([other, resources]).unique(maintain_order=True).with_row_index("identity")
    of_resource = resources.join(distinct, on=list(IDENTITY), how="left", maintain_order="left")[
        "identity"
    ].to_numpy()
    columns = {name: distinct[name].to_numpy() for name in IDENTITY}
    _, rows, service = np.unique(
        pack([columns["cluster"], columns["namespace"], columns["service"]]),
        return_index=True,
        return_inverse=True,
    )
    texts = (labels.text(columns[name][rows]) for name in ("cluster", "namespace", "service"))
    hashes = hash_rows([hash_texts(pl.Series(text, dtype=pl.String)) for text in texts])
    return Identities(labels, columns, of_resource, service.astype(np.int64), hashes)


@dataclass(frozen=True, slots=True)
class SeenServices:
    """A note for later panes: the services that a pane has spans of, the busiest ones where they are over the
    limit. A function of the pane alone, so that what later panes look up does not depend on what earlier ones
    have shown.
    """

    hashes: U64
    """Of (cluster, namespace, service), each once."""

    @classmethod
    def of(cls, identity: Codes, known: Identities, limit: int) -> "SeenServices":
        """``identity`` of each span of the pane."""
        spans = np.bincount(known.service[identity], minlength=int(known.service.max(initial=0)) + 1)
        hashes, spans = known.service_hashes[spans > 0], spans[spans > 0]
        return cls(hashes if len(hashes) <= limit else hashes[np.lexsort((hashes, -spans))[:limit]])


def limit_services(
    identity: Codes,
    known: Identities,
    limit: int,
    met: Sequence[pl.Series] | None = None,
    new_limit: int = 0,
) -> Codes:
    """``identity`` of spans with those of services over the limit replaced by 0: the busiest services stay,
    ties by name.

    ``met``: hashes of the services that earlier panes had; of others ``new_limit`` stay. None: all may stay.
    """
    services = int(known.service.max(initial=0)) + 1
    left = not_met(pl.Series(known.service_hashes), met or [], new_limit if met is not None else services)
    if services <= limit and (met is None or len(left) <= new_limit):
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
    if met is not None:
        new = pl.Series(known.service_hashes[number]).is_in(left.implode()).to_numpy()
        number = number[~new | (np.cumsum(new) <= new_limit)]
    stays = np.zeros(services, np.bool_)
    stays[number] = True
    return np.where(stays[known.service[identity]], identity, 0).astype(np.uint32)


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


def name_spans(
    spans: pl.DataFrame,
    known: Identities,
    limits: LabelLimits,
    met: Sequence[pl.Series] | None = None,
) -> tuple[Codes, Codes]:
    """Each span's identity and operation (label code) within the limits; ``met``: see limit_services."""
    labels = known.labels
    identity = limit_services(
        known.of_resource[spans["resource"].to_numpy()], known, limits.services, met, limits.new_services
    )
    operation = limit_operations(
        labels.codes(spans["operation"]), known.service[identity], labels, limits.operations_per_service
    )
    return identity, operation
