"""Families of metrics: one table for every spelling, held against the names that Envoy and Istio have."""

from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.spans.edges.targets import read_upstreams
from schemas import otlp
from schemas.families import FAMILIES, LABELS, Family, Takes
from schemas.metric_names import COPY, OTHER, Reading, read_names
from schemas.upstream_names import Upstream, read_upstream
from tests.support.examples import examples
from tests.support.span_log import read_requests

TABLES = {"traffic", "upstreams", "proxies", "control_plane", "certificates"}
CAPTURE = Path(__file__).parents[1] / "data" / "envoy" / "metrics.bin.gz"
UNCLAIMED = Path(__file__).parent / "unclaimed_names.txt"


def family(name: str) -> Family | None:
    (reading,) = read_names([name])
    return FAMILIES[reading.family] if reading.family >= 0 else None


def place(name: str) -> tuple[str, str] | None:
    found = family(name)
    return (found.table, found.column) if found else None


def test_each_family_stands_once() -> None:
    assert {each.table for each in FAMILIES} == TABLES
    names = Counter(each.name.replace(".", "_") for each in FAMILIES)
    assert names.most_common(1)[0][1] == 1, "in Prometheus' spelling too"
    takes: dict[tuple[str, str], set[Takes]] = {}
    for each in FAMILIES:
        takes.setdefault((each.table, each.column), set()).add(each.takes)
    assert [place for place, of in takes.items() if len(of) > 1] == [], "a column holds one kind of number"


@pytest.mark.parametrize(
    ("name", "table", "column"),
    [
        ("cluster.upstream_rq_total", "upstreams", "attempts"),
        ("cluster.upstream_rq_time", "traffic", "duration"),
        ("cluster.upstream_rq_retry_overflow", "upstreams", "retry_overflow"),
        ("cluster.upstream_rq_active_overflow", "upstreams", "request_overflow"),
        ("cluster.upstream_rq_pending_overflow", "upstreams", "pending_overflow"),
        ("cluster.upstream_rq_per_try_timeout", "upstreams", "per_try_timeouts"),
        ("cluster.upstream_cx_active", "upstreams", "active_connections"),
        ("cluster.outlier_detection.ejections_active", "upstreams", "ejections_active"),
        ("cluster.outlier_detection.ejections_enforced_total", "upstreams", "ejections"),
        ("cluster.lb_healthy_panic", "upstreams", "panic"),
        ("cluster.membership_healthy", "upstreams", "healthy_hosts"),
        ("server.days_until_first_cert_expiring", "certificates", "left_days"),
        ("listener.ssl.certificate.expiration_unix_time_seconds", "certificates", "not_after_s"),
        ("server.uptime", "proxies", "uptime_s"),
        ("http.tracing.random_sampling", "proxies", "random_sampling"),
        ("http.downstream_cx_ssl_total", "traffic", "tls_opened"),
        ("istio_requests_total", "traffic", "requests"),
        ("istiocustom.istio_requests_total", "traffic", "requests"),
        ("istio_request_duration_milliseconds", "traffic", "duration"),
        ("istio_request_bytes", "traffic", "request_bytes"),
        ("istio_tcp_connections_opened_total", "traffic", "tcp_opened"),
        ("pilot_proxy_convergence_time", "control_plane", "histogram"),
        ("pilot_total_xds_rejects", "control_plane", "increment"),
        ("pilot_conflict_inbound_listener", "control_plane", "value"),
        ("citadel_server_root_cert_expiry_timestamp", "certificates", "not_after_s"),
        ("cert_expiry_seconds", "certificates", "left_s"),
        ("workload_manager_pending_proxy_count", "control_plane", "value"),
    ],
)
def test_what_is_known_of_envoy_and_istio(name: str, table: str, column: str) -> None:
    assert place(name) == (table, column)


@pytest.mark.parametrize("each", [each for each in FAMILIES if "." in each.name], ids=lambda each: each.name)
def test_every_spelling_of_envoys(each: Family) -> None:
    root, _, stat = each.name.partition(".")
    prometheus = "envoy_" + each.name.replace(".", "_")
    spellings = [each.name, "envoy." + each.name, prometheus]
    if root == "cluster":
        rest = "default.svc.cluster.local"
        spellings += [
            f"cluster.{rest}.{stat}",
            prometheus.replace("cluster_", "cluster_default_svc_cluster_local_", 1),
        ]
        spellings += [f"cluster.outbound|80|v1|product.{rest}.{stat}"]
        assert read_names([spellings[3]])[0].middle == read_names([spellings[4]])[0].middle == rest
    if root == "http" and not stat.startswith("rds"):
        spellings += [f"http.ingress.http.{stat}"]
    assert {family(name) for name in spellings} == {each}


def test_names_without_extracted_tags() -> None:
    names = ["envoy.cluster.a.b.upstream_rq_503", "http.in.downstream_rq_4xx", "cluster.a.upstream_rq_2xx"]
    names += ["listener.0.0.0.0_80.ssl.certificate.my.cert.expiration_unix_time_seconds"]
    readings = read_names(names)
    found = [FAMILIES[each.family].name if each.family >= 0 else None for each in readings]
    assert found == [
        "cluster.upstream_rq",
        "http.downstream_rq_xx",
        None,
        "listener.ssl.certificate.expiration_unix_time_seconds",
    ]
    assert [each[1:] for each in readings] == [
        ("upstream", "a.b", "503", ""),
        ("manager", "in", "4xx", ""),
        ("upstream", "a", "2xx", ""),
        ("listener", "0.0.0.0_80", "", "my.cert"),
    ]


def test_what_a_cluster_counts_twice_is_left_out() -> None:
    copies = [
        "cluster.internal.upstream_rq", "cluster.external.upstream_rq_time", "cluster.retry.upstream_rq_xx",
        "cluster.canary.upstream_rq_completed", "cluster.zone.a.b.upstream_rq_time", "cluster.x.internal.upstream_rq_200",
        "envoy.cluster.x.zone.a.b.upstream_rq_5xx", "envoy_cluster_external_upstream_rq",
        "envoy_cluster_retry_upstream_rq_xx", "envoy_cluster_zone_a_b_upstream_rq_time",
    ]  # fmt: skip
    assert {each.family for each in read_names(copies)} == {COPY}
    others = ["cluster.upstream_rq", "cluster.upstream_rq_time", "cluster.internal.upstream_cx_total"]
    assert COPY not in {each.family for each in read_names(others)}


def test_a_cluster_whose_name_ends_like_a_copy() -> None:
    time, copy = "cluster.corp.internal.upstream_rq_time", "cluster.corp.internal.internal.upstream_rq_time"
    readings = read_names([time, "cluster.corp.internal.upstream_rq_total", copy])
    assert [each.family for each in readings][::2] == [
        read_names(["cluster.upstream_rq_time"])[0].family,
        COPY,
    ]
    assert readings[0].middle == "corp.internal"
    assert read_names([time])[0].family == COPY, "nothing says that it is a cluster's"


def test_such_a_cluster_in_prometheus_spelling() -> None:
    names = ["envoy_cluster_corp_internal_upstream_rq_time", "envoy_cluster_corp_internal_upstream_rq_total"]
    readings = read_names(names)
    assert [FAMILIES[each.family].name for each in readings] == [
        "cluster.upstream_rq_time",
        "cluster.upstream_rq_total",
    ]
    assert {each.middle for each in readings} == {"corp.internal"}
    zone = read_names(["envoy_cluster_dev_zone_svc_cluster_local_upstream_rq"])
    assert zone[0].middle == "dev-zone.svc.cluster.local"


def test_names_of_others_are_nobodys() -> None:
    names = [
        "http.server.request.duration",
        "envoy_",
        "envoy_cluster_",
        "",
        ".",
        "cluster",
        "cluster.",
        "up",
        "m",
    ]
    names += [
        "http.upstream_rq_total",
        "cluster.downstream_rq_total",
        "envoy_cluster_x",
        "a.cluster.upstream_rq_total",
    ]
    assert {each.family for each in read_names(names)} == {OTHER}


@examples(60)
@given(
    st.lists(
        st.lists(
            st.sampled_from(
                ["cluster", "http", "envoy", ".", "_", "internal", "zone", "upstream_rq", "time", "ssl"]
            )
            | st.text(max_size=3),
            max_size=12,
        ).map("".join)
    )
)
def test_every_name_has_a_reading(names: list[str]) -> None:
    assert all(isinstance(each, Reading) and each.family < len(FAMILIES) for each in read_names(names))


def test_no_name_takes_long() -> None:
    """As long for a name of 64 KiB as for one of 1,000; nothing here goes by the square of it."""
    parts = ["ssl.certificate.", "zone_", "zone.a.", "_", ".", "upstream_rq_", "internal."]
    names = [
        f"{root}{part * (60_000 // len(part))}upstream_rq_time"
        for root in ("cluster.", "envoy_cluster_")
        for part in parts
    ]
    assert {each.family for each in read_names(names)} == {OTHER}


def test_unclaimed_names_of_the_capture() -> None:
    """Names that Envoy sends and no table has: a new one here is a decision."""
    batch = otlp.decode_points(read_requests(CAPTURE))
    names = sorted(set(batch.contexts.strings.take(batch.points["name"]).to_pylist()))
    readings = read_names(names)
    unclaimed = [name for name, each in zip(names, readings, strict=True) if each.family == OTHER]
    assert unclaimed == UNCLAIMED.read_text(encoding="utf-8").split()
    copies = {name for name, each in zip(names, readings, strict=True) if each.family == COPY}
    assert copies == {
        name
        for name in names
        if name.startswith(("cluster.internal.", "cluster.external.", "cluster.retry."))
    }


def test_labels_are_of_one_attribute_each() -> None:
    keys = [key for keys in LABELS.values() for key in keys]
    assert len(keys) == len(set(keys))


UPSTREAMS = {
    "outbound|80|v1|product.default.svc.cluster.local": Upstream("product", "default", "v1"),
    "outbound|9080||reviews.shop.svc.mesh.example;": Upstream("reviews", "shop", ""),
    "outbound_.80_.v2_.product.default.svc.cluster.local": Upstream("product", "default", "v2"),
    "outbound|443||api.corp.internal": Upstream("api.corp.internal", "", ""),
    "inbound|8080||": Upstream("inbound|8080||", "", ""),
    "PassthroughCluster": Upstream("PassthroughCluster", "", ""),
    "product_v1": Upstream("product_v1", "", ""),
    "a.b.svc": Upstream("a", "b", ""),
    "": Upstream("", "", ""),
}


@examples(100)
@given(
    st.lists(
        st.lists(
            st.sampled_from(["outbound", "|", "_.", "80", "v1", "a", ".", "svc", ";", "_", "ä"]), max_size=12
        ).map("".join),
        max_size=5,
    )
)
def test_names_of_upstreams(more: list[str]) -> None:
    """One by one as in columns."""
    names = [*UPSTREAMS, *more]
    found = [read_upstream(name) for name in names]
    assert found[: len(UPSTREAMS)] == list(UPSTREAMS.values())
    columns = read_upstreams(pl.Series(names, dtype=pl.String))
    assert [(each.server, each.namespace, each.subset) for each in found] == columns.select(
        "service_text", "namespace_text", "version_text"
    ).rows()
