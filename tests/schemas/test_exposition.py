"""Prometheus' pages as OTLP, against what stands on them."""

import tracemalloc
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, MetricsData

from schemas.metric_names import read_names
from schemas.otlp.exposition import MalformedPage, Page, metrics_of

TIME_NS = 1_800_000_000_000_000_000
ENVOY = """\
# TYPE envoy_cluster_upstream_rq_total counter
envoy_cluster_upstream_rq_total{envoy_cluster_name="reviews"} 12
# TYPE envoy_http_downstream_rq_xx counter
envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="in"} 40
# TYPE envoy_cluster_upstream_cx_active gauge
envoy_cluster_upstream_cx_active{envoy_cluster_name="reviews"} 3
# TYPE envoy_cluster_upstream_rq_time histogram
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="reviews",le="0.5"} 1
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="reviews",le="1"} 3
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="reviews",le="+Inf"} 7
envoy_cluster_upstream_rq_time_sum{envoy_cluster_name="reviews"} 25.5
envoy_cluster_upstream_rq_time_count{envoy_cluster_name="reviews"} 7
"""
OPENMETRICS = """\
# TYPE pushes counter
pushes_total{type="cds"} 5 1799999999.5
pushes_created{type="cds"} 1799990000 1799999999.5
# TYPE build info
build_info{version="1.27"} 1
# TYPE latency summary
latency{quantile="0.5"} 0.25
latency{quantile="0.9"} 0.75
latency_count 4
latency_sum 2
# EOF
"""


def metrics(text: str, *, is_openmetrics: bool = False, most: int = 1000) -> dict[str, Metric]:
    payload, _ = metrics_of(Page(text, is_openmetrics, TIME_NS), {"service.name": "envoy"}, {"up": 1}, most)
    (resource,) = MetricsData.FromString(payload).resource_metrics
    assert [(each.key, each.value.string_value) for each in resource.resource.attributes] == [
        ("service.name", "envoy")
    ]
    (scope,) = resource.scope_metrics
    return {metric.name: metric for metric in scope.metrics}


def labels(point: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in point.attributes}


def test_counters_keep_their_names_and_are_sums() -> None:
    found = metrics(ENVOY)
    for name, value in (("envoy_cluster_upstream_rq_total", 12), ("envoy_http_downstream_rq_xx", 40)):
        (point,) = found[name].sum.data_points
        assert found[name].sum.is_monotonic
        assert (point.as_double, point.time_unix_nano, point.start_time_unix_nano) == (value, TIME_NS, 0)
    assert all(reading.family >= 0 for reading in read_names([name for name in found if "envoy" in name]))


def test_gauges_and_the_scrapes_own() -> None:
    found = metrics(ENVOY)
    (active,) = found["envoy_cluster_upstream_cx_active"].gauge.data_points
    assert (active.as_double, labels(active)) == (3, {"envoy_cluster_name": "reviews"})
    assert found["up"].gauge.data_points[0].as_double == 1
    assert found["scrape_samples_scraped"].gauge.data_points[0].as_double == 8


def test_a_page_with_as_many_samples_as_may_be_is_taken() -> None:
    assert len(metrics(ENVOY, most=8)) == 6
    with pytest.raises(MalformedPage):
        metrics(ENVOY, most=7)


def test_buckets_become_a_histogram() -> None:
    (point,) = metrics(ENVOY)["envoy_cluster_upstream_rq_time"].histogram.data_points
    assert list(point.explicit_bounds) == [0.5, 1]
    assert list(point.bucket_counts) == [1, 2, 4]
    assert (point.count, point.sum, labels(point)) == (7, 25.5, {"envoy_cluster_name": "reviews"})


def test_openmetrics_with_starts_times_and_summaries() -> None:
    found = metrics(OPENMETRICS, is_openmetrics=True)
    (point,) = found["pushes_total"].sum.data_points
    assert point.start_time_unix_nano == 1_799_990_000_000_000_000
    assert point.time_unix_nano == 1_799_999_999_500_000_000
    assert "pushes_created" not in found
    (summary,) = found["latency"].summary.data_points
    assert [(each.quantile, each.value) for each in summary.quantile_values] == [(0.5, 0.25), (0.9, 0.75)]
    assert (summary.count, summary.sum) == (4, 2)
    assert labels(found["build_info"].gauge.data_points[0]) == {"version": "1.27"}


EXEMPLARS = """\
# TYPE requests counter
requests_total 5 # {trace_id="0af7651916cd43dd8448eb211c80319c",span_id="b7ad6b7169203331",user="a"} 2 1799999999.5
# TYPE latency histogram
latency_bucket{le="0.5"} 3 # {trace_id="short"} 0.25
latency_bucket{le="+Inf"} 4
latency_count 4
latency_sum 2
# EOF
"""


def test_exemplars_come_along() -> None:
    found = metrics(EXEMPLARS, is_openmetrics=True)
    (exemplar,) = found["requests_total"].sum.data_points[0].exemplars
    assert exemplar.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert exemplar.span_id.hex() == "b7ad6b7169203331"
    assert [(each.key, each.value.string_value) for each in exemplar.filtered_attributes] == [("user", "a")]
    assert (exemplar.as_double, exemplar.time_unix_nano) == (2, 1_799_999_999_500_000_000)
    (exemplar,) = found["latency"].histogram.data_points[0].exemplars
    assert (exemplar.as_double, exemplar.time_unix_nano, exemplar.trace_id) == (0.25, TIME_NS, b"")
    assert [each.value.string_value for each in exemplar.filtered_attributes] == ["short"]


def test_what_is_dear_to_parse_is_refused_before() -> None:
    """Its samples would take 1 GB."""
    page = Page("# TYPE a gauge\n" + "a 1\n" * 4_000_000, False, TIME_NS)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedPage):
            metrics_of(page, {}, {}, 200_000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "is_openmetrics", "reason"),
    [
        ("what is this {", False, "not in Prometheus' format"),
        ("a 1\n", True, "not in Prometheus' format"),
        ("<html>\n", False, "not in Prometheus' format"),
        ("a NaN\nb x\n", False, "not in Prometheus' format"),
        ('# TYPE a histogram\na_bucket{le="1"} 5\na_bucket{le="+Inf"} 3\n', False, "do not rise"),
        ('# TYPE a histogram\na_bucket{le="1"} NaN\na_bucket{le="+Inf"} 3\n', False, "do not rise"),
        ("# TYPE a summary\na_count -1\n", False, "is none"),
        ("".join(f"a{number} 1\n" for number in range(1001)), False, "more than 1000 samples"),
        ("# TYPE a gauge\n" + "a 1\n" * 1_000_000, False, "more than 1000 samples"),
        (
            "a{" + ",".join(f'l{number}="v"' for number in range(100_000)) + "} 1\n",
            False,
            "a line of the page",
        ),
        ('# TYPE a histogram\na_bucket{le="NaN"} 1\n', False, "is no bound"),
        ('# TYPE a histogram\na_bucket{le="x"} 1\n', False, "is no bound"),
    ],
)
def test_what_is_no_page_is_a_clear_error(text: str, is_openmetrics: bool, reason: str) -> None:
    with pytest.raises(MalformedPage, match=reason):
        metrics(text, is_openmetrics=is_openmetrics)
