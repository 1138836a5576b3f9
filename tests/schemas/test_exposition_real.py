"""A page of a real Envoy 1.40.0, beside its own admin counters of the same moment; one like istiod's."""

import gzip
from pathlib import Path

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, MetricsData

from schemas.families import FAMILIES
from schemas.metric_names import read_names
from schemas.otlp.exposition import Page, metrics_of

PAGES = Path(__file__).parents[1] / "data" / "envoy_pages"
CODE = "envoy_response_code"
ISTIOD = """\
# HELP pilot_xds_pushes Pilot build and send errors for lds, rds, cds and eds.
# TYPE pilot_xds_pushes counter
pilot_xds_pushes{type="cds"} 31
pilot_xds_pushes{type="eds"} 207
# HELP pilot_total_xds_rejects Total number of XDS responses from pilot rejected by proxy.
# TYPE pilot_total_xds_rejects counter
pilot_total_xds_rejects{type="type.googleapis.com/envoy.config.cluster.v3.Cluster"} 2
# TYPE pilot_xds gauge
pilot_xds{version="1.27.1"} 12
# TYPE istio_build gauge
istio_build{component="pilot",tag="1.27.1"} 1
# TYPE citadel_server_csr_count counter
citadel_server_csr_count 44
# TYPE citadel_server_root_cert_expiry_timestamp gauge
citadel_server_root_cert_expiry_timestamp 2.100000000e+09
# TYPE pilot_proxy_convergence_time histogram
pilot_proxy_convergence_time_bucket{le="0.1"} 190
pilot_proxy_convergence_time_bucket{le="0.5"} 205
pilot_proxy_convergence_time_bucket{le="+Inf"} 207
pilot_proxy_convergence_time_sum 13.25
pilot_proxy_convergence_time_count 207
"""


def metrics(text: str) -> list[Metric]:
    payload, _ = metrics_of(Page(text, False, 1_800_000_000_000_000_000), {}, {}, 10_000)
    (resource,) = MetricsData.FromString(payload).resource_metrics
    return list(resource.scope_metrics[0].metrics)


def unpacked(name: str) -> str:
    return gzip.decompress((PAGES / f"{name}.txt.gz").read_bytes()).decode()


def test_counters_of_upstreams_equal_envoys_own() -> None:
    found: dict[str, float] = {}
    page = metrics(unpacked("page"))
    for metric, reading in zip(page, read_names([metric.name for metric in page]), strict=True):
        if reading.family < 0 or reading.label != "upstream":
            continue
        stat = FAMILIES[reading.family].name.removeprefix("cluster.")
        for point in metric.sum.data_points:
            labels = {each.key: each.value.string_value for each in point.attributes}
            code = f"_{labels[CODE]}" if CODE in labels else ""
            cluster = f"{labels['envoy_cluster_name']}.{reading.middle}"
            found[f"cluster.{cluster}.{stat}{code}"] = point.as_double
    own = dict(line.split(": ", 1) for line in unpacked("stats").splitlines())
    assert {name: float(own[name]) for name in found} == found
    reviews, nobody = (
        f"cluster.outbound|8{number}||{name}.shop.svc.cluster.local.upstream_rq"
        for number, name in enumerate(("reviews", "nobody"))
    )
    assert [found[f"{reviews}_{what}"] for what in ("total", "200", "404")] == [22, 17, 5]
    assert found[f"{nobody}_503"] == 2


def test_each_name_of_the_page_is_there_once() -> None:
    """Envoy has both ``upstream_rq`` and ``upstream_rq_total``: they are not one."""
    text = unpacked("page")
    declared = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    found = [metric.name for metric in metrics(text) if metric.name != "scrape_samples_scraped"]
    assert sorted(found) == sorted(declared)
    assert {"envoy_cluster_shop_svc_cluster_local_upstream_rq" + end for end in ("", "_total")} <= set(found)


def test_durations_of_upstreams_are_a_histogram() -> None:
    name = "envoy_cluster_shop_svc_cluster_local_upstream_rq_time"
    (metric,) = (metric for metric in metrics(unpacked("page")) if metric.name == name)
    (point,) = metric.histogram.data_points
    assert (point.count, sum(point.bucket_counts), len(point.explicit_bounds)) == (22, 22, 19)
    assert 22 * 40 < point.sum < 22 * 50, "milliseconds, as Envoy's own quantiles are"


def test_what_istiod_counts_keeps_its_names_and_is_known() -> None:
    found = metrics(ISTIOD)
    names = [metric.name for metric in found if metric.name != "scrape_samples_scraped"]
    readings = read_names(names)
    assert {FAMILIES[reading.family].table for reading in readings} <= {"control_plane", "certificates"}
    assert {name for name, reading in zip(names, readings, strict=True) if reading.family < 0} == set()
    by_name = {metric.name: metric for metric in found}
    pushes = by_name["pilot_xds_pushes"].sum
    assert pushes.is_monotonic
    assert [point.as_double for point in pushes.data_points] == [31, 207]
    (time,) = by_name["pilot_proxy_convergence_time"].histogram.data_points
    assert (list(time.bucket_counts), time.sum) == ([190, 15, 2], 13.25)
