"""Prometheus' pages (text and OpenMetrics) -> OTLP metrics, by prometheus-client's own parsers.

As OpenTelemetry's "Prometheus and OpenMetrics Compatibility" says: counters are cumulative monotonic sums,
histograms and summaries are put together of their samples, all else is a gauge; ``_created`` is the start,
exemplars come along.
Names and labels stay as they are written, so that ``schemas.families`` knows them.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Exemplar,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ScopeMetrics,
    SummaryDataPoint,
)
from prometheus_client import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from prometheus_client.samples import Sample

from schemas.errors import MeshflowError
from schemas.units import NS_PER_S

_COUNTER_TYPE = re.compile(r"^([ \t]*#[ \t]+TYPE[ \t]+(\S+)[ \t]+)counter[ \t\r]*$", re.MULTILINE)
_MOST_LINE = 16 << 10
"""Characters. prometheus-client's parsers take time by the square of a line; Istio's lines have 1,500."""
_LONG_LINE = re.compile(rf"^[^\n]{{{_MOST_LINE + 1}}}", re.MULTILINE)
_TRACE_ID, _SPAN_ID = re.compile(r"[0-9a-fA-F]{32}"), re.compile(r"[0-9a-fA-F]{16}")
_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_Labels = tuple[tuple[str, str], ...]


class MalformedPage(MeshflowError):
    """The page is not in Prometheus' format, or has more samples than may be."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a target answered."""

    text: str
    is_openmetrics: bool
    time_ns: int
    """When it was asked: the time of samples that have none."""


def metrics_of(
    page: Page,
    resource: Mapping[str, str],
    own: Mapping[str, float],
    most_samples: int,
) -> tuple[bytes, int]:
    """A page as OTLP MetricsData of one resource, and how many samples it has.

    ``own``: gauges about the scrape itself (``up``), added to those of the page, as is
    ``scrape_samples_scraped``. Raises MalformedPage.
    """
    _check(page.text, most_samples)
    data = MetricsData()
    metrics = data.resource_metrics.add()
    metrics.resource.attributes.extend(_attributes(resource.items()))
    scope = metrics.scope_metrics.add()
    samples = 0
    for family in _families(page):
        samples += len(family.samples)
        if samples > most_samples:
            raise MalformedPage(f"the page has more than {most_samples} samples")
        if family.samples:
            _add(scope, family, page.time_ns)
    for name, value in {**own, "scrape_samples_scraped": samples}.items():
        point = scope.metrics.add(name=name).gauge.data_points.add()
        point.time_unix_nano, point.as_double = page.time_ns, value
    return data.SerializeToString(), samples


def _check(text: str, most_samples: int) -> None:
    """Refuse what would take much time or memory to parse, before it is parsed. Raises MalformedPage."""
    if text.count("\n") - text.count("\n#") - text.startswith("#") > most_samples:
        raise MalformedPage(f"the page has more than {most_samples} samples")
    if _LONG_LINE.search(text):
        raise MalformedPage(f"a line of the page is longer than {_MOST_LINE} characters")


def _families(page: Page) -> Iterator[Family]:
    text, counters = (page.text, frozenset()) if page.is_openmetrics else _with_names_kept(page.text)
    read = read_openmetrics if page.is_openmetrics else read_text
    try:
        for family in read(text):
            if family.name in counters:
                family.type = "counter"
            yield family
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise MalformedPage(f"the page is not in Prometheus' format: {error}") from error


def _with_names_kept(text: str) -> tuple[str, frozenset[str]]:
    """The page with its counters called gauges, and their names.

    prometheus-client gives each counter's samples the suffix ``_total``: ``X`` and ``X_total`` would be one,
    and Envoy has both (``upstream_rq``, ``upstream_rq_total``). Of gauges it leaves the names alone.
    """
    names = frozenset(name.strip('"') for _, name in _COUNTER_TYPE.findall(text))
    return _COUNTER_TYPE.sub(r"\1gauge", text), names


def _add(scope: ScopeMetrics, family: Family, time_ns: int) -> None:
    if family.type == "histogram":
        _add_histogram(scope, family, time_ns)
    elif family.type == "summary":
        _add_summary(scope, family, time_ns)
    else:
        _add_numbers(scope, family, time_ns)


def _add_numbers(scope: ScopeMetrics, family: Family, time_ns: int) -> None:
    """Each name of a family as a sum (of a counter) or a gauge."""
    starts = {
        _labels(sample): _ns(sample.value) for sample in family.samples if sample.name.endswith("_created")
    }
    by_name: dict[str, Metric] = {}
    for sample in family.samples:
        is_counter = family.type == "counter"
        if is_counter and sample.name.endswith("_created"):
            continue
        metric = by_name.get(sample.name)
        if metric is None:
            metric = by_name[sample.name] = scope.metrics.add(
                name=sample.name, description=family.documentation, unit=family.unit
            )
            if is_counter:
                metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, _CUMULATIVE
        point: NumberDataPoint = (metric.sum if is_counter else metric.gauge).data_points.add()
        point.attributes.extend(_attributes(sample.labels.items()))
        point.time_unix_nano = _time_ns(sample, time_ns)
        point.start_time_unix_nano = starts.get(_labels(sample), 0) if is_counter else 0
        point.as_double = sample.value
        if is_counter:
            point.exemplars.extend(_exemplars((sample,), point.time_unix_nano))


@dataclass(slots=True)
class _Distribution:
    """The samples of one histogram or summary."""

    count: float = 0
    sum: float = 0
    start_ns: int = 0
    time_ns: int = 0
    buckets: dict[float, float] = field(default_factory=dict)
    """Upper bound or quantile -> value."""
    samples: list[Sample] = field(default_factory=list)


def _distributions(family: Family, key: str, time_ns: int) -> dict[_Labels, _Distribution]:
    found: dict[_Labels, _Distribution] = {}
    for sample in family.samples:
        one = found.setdefault(_labels(sample, key), _Distribution())
        one.time_ns = _time_ns(sample, time_ns)
        one.samples.append(sample)
        suffix = sample.name[len(family.name) :]
        if suffix == "_count":
            one.count = sample.value
        elif suffix == "_sum":
            one.sum = sample.value
        elif suffix == "_created":
            one.start_ns = _ns(sample.value)
        elif key in sample.labels:
            one.buckets[_bound(sample.labels[key])] = sample.value
    return found


def _add_histogram(scope: ScopeMetrics, family: Family, time_ns: int) -> None:
    metric = scope.metrics.add(name=family.name, description=family.documentation, unit=family.unit)
    metric.histogram.aggregation_temporality = _CUMULATIVE
    for labels, one in _distributions(family, "le", time_ns).items():
        bounds = sorted(bound for bound in one.buckets if not math.isinf(bound))
        below = [one.buckets[bound] for bound in bounds]
        total = one.buckets.get(math.inf, one.count)
        counts = [now - before for before, now in zip([0.0, *below], [*below, total], strict=True)]
        if any(not 0 <= count < 2**63 for count in counts):
            raise MalformedPage(f"the buckets of {family.name} do not rise")
        point: HistogramDataPoint = metric.histogram.data_points.add()
        point.attributes.extend(_attributes(labels))
        point.time_unix_nano, point.start_time_unix_nano = one.time_ns, one.start_ns
        point.bucket_counts.extend(int(count) for count in counts)
        point.explicit_bounds.extend(bounds)
        point.count, point.sum = int(total), one.sum
        point.exemplars.extend(_exemplars(one.samples, one.time_ns))


def _add_summary(scope: ScopeMetrics, family: Family, time_ns: int) -> None:
    metric = scope.metrics.add(name=family.name, description=family.documentation, unit=family.unit)
    for labels, one in _distributions(family, "quantile", time_ns).items():
        if not 0 <= one.count < 2**63:
            raise MalformedPage(f"the count of {family.name} is none")
        point: SummaryDataPoint = metric.summary.data_points.add()
        point.attributes.extend(_attributes(labels))
        point.time_unix_nano, point.start_time_unix_nano = one.time_ns, one.start_ns
        point.count, point.sum = int(one.count), one.sum
        for quantile, value in sorted(one.buckets.items()):
            point.quantile_values.add(quantile=quantile, value=value)


def _bound(text: str) -> float:
    """Raises MalformedPage."""
    try:
        bound = float(text)
    except ValueError:
        bound = math.nan
    if math.isnan(bound):
        raise MalformedPage(f"{text[:100]!r} is no bound of a bucket, and no quantile")
    return bound


def _exemplars(samples: Iterable[Sample], otherwise_ns: int) -> Iterator[Exemplar]:
    """Those of the samples; ids of trace and span that are none stay among the labels."""
    for given in (sample.exemplar for sample in samples if sample.exemplar is not None):
        labels = dict(given.labels)
        made = Exemplar(as_double=given.value)
        made.time_unix_nano = otherwise_ns if given.timestamp is None else _ns(float(given.timestamp))
        if _TRACE_ID.fullmatch(labels.get("trace_id", "")):
            made.trace_id = bytes.fromhex(labels.pop("trace_id"))
        if _SPAN_ID.fullmatch(labels.get("span_id", "")):
            made.span_id = bytes.fromhex(labels.pop("span_id"))
        made.filtered_attributes.extend(_attributes(labels.items()))
        yield made


def _labels(sample: Sample, without: str = "") -> _Labels:
    return tuple(sorted(item for item in sample.labels.items() if item[0] != without))


def _time_ns(sample: Sample, otherwise_ns: int) -> int:
    return otherwise_ns if sample.timestamp is None else _ns(float(sample.timestamp))


def _ns(seconds: float) -> int:
    """Nanoseconds, 0 where a time is none."""
    return round(seconds * 1000) * (NS_PER_S // 1000) if 0 < seconds < 1e10 else 0


def _attributes(items: Iterable[tuple[str, str]]) -> Iterator[KeyValue]:
    for key, value in items:
        yield KeyValue(key=key, value=AnyValue(string_value=value))
