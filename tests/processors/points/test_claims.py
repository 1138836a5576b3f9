"""Families and labels of a batch's points: as its names and attributes say, in every spelling; and what the
counters of the captured mesh gained.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

from processors.points.claims import Claims
from processors.points.increments import increments
from processors.points.last_points import NOTHING_KNOWN
from processors.slots import PaneTime
from schemas import otlp
from schemas.families import FAMILIES, LABELS
from schemas.metric_names import COPY, OTHER
from schemas.points import PointBatch
from tests.support.span_log import read_requests

CAPTURE = Path(__file__).parents[2] / "data" / "envoy" / "metrics.bin.gz"
PANE_NS = 5_000_000_000


def batch_of(*points: tuple[str, Mapping[str, str]]) -> PointBatch:
    metrics = [
        Metric(
            name=name,
            sum=Sum(
                data_points=[
                    NumberDataPoint(
                        attributes=[
                            KeyValue(key=key, value=AnyValue(string_value=text))
                            for key, text in attributes.items()
                        ]
                    )
                ]
            ),
        )
        for name, attributes in points
    ]
    data = MetricsData(resource_metrics=[ResourceMetrics(scope_metrics=[ScopeMetrics(metrics=metrics)])])
    return otlp.decode_points([data.SerializeToString()])


def rows(batch: PointBatch) -> np.ndarray:
    return np.arange(len(batch), dtype=np.uint32)


PRODUCT = "outbound|80|v1|product.default.svc.cluster.local"


def test_one_meaning_of_each_spelling() -> None:
    batch = batch_of(
        ("cluster.upstream_rq", {"envoy.cluster_name": PRODUCT, "envoy.response_code": "503"}),
        ("cluster.default.svc.cluster.local.upstream_rq", {"envoy.response_code": "503", "envoy.cluster_name": "outbound|80|v1|product"}),
        (f"envoy.cluster.{PRODUCT}.upstream_rq_503", {"x": "y"}),
        ("envoy_cluster_upstream_rq", {"envoy_cluster_name": PRODUCT, "envoy_response_code": "503"}),
        (
            "envoy_cluster_default_svc_cluster_local_upstream_rq",
            {"envoy_cluster_name": "outbound|80|v1|product", "envoy_response_code": "503"},
        ),
    )  # fmt: skip
    claims = Claims.of(batch)
    assert {FAMILIES[number].name for number in claims.family} == {"cluster.upstream_rq"}
    labels = claims.labels(batch, rows(batch))
    assert labels.select("upstream", "code").unique().rows() == [(PRODUCT, "503")]


def test_labels_of_istio_and_of_http() -> None:
    istio = {
        "reporter": "source", "source_canonical_service": "a", "source_workload": "a-v1", "destination_workload": "b-v2",
        "destination_service_name": "b", "response_code": "200", "connection_security_policy": "unknown",
    }  # fmt: skip
    batch = batch_of(
        ("istio_requests_total", istio),
        ("http.downstream_rq_xx", {"envoy.http_conn_manager_prefix": "in", "envoy.response_code_class": "4"}),
        ("http.in.downstream_rq_4xx", {}),
        ("listener.a.ssl.certificate.c.expiration_unix_time_seconds", {}),
        ("other", {"reporter": "source"}),
        ("cluster.internal.upstream_rq", {}),
    )
    claims = Claims.of(batch)
    assert claims.family.tolist()[-2:] == [OTHER, COPY]
    of_istio, *http, certificate = claims.labels(batch, rows(batch)[:4]).to_dicts()
    assert {label: text for label, text in of_istio.items() if text} == {
        "reporter": "source",
        "source_service": "a",
        "destination_service": "b-v2",
        "destination_name": "b",
        "code": "200",
        "security": "unknown",
    }
    for each in http:
        assert (each["manager"], each["code"]) == ("in", "4xx")
    assert (certificate["listener"], certificate["certificate"]) == ("a", "c")
    assert set(of_istio) == LABELS.keys() - {"code_class"}


def test_a_batch_of_nothing() -> None:
    empty = otlp.decode_points([])
    claims = Claims.of(empty)
    assert len(claims.family) == 0
    assert claims.labels(empty, rows(empty)).height == 0


def test_what_the_captured_mesh_counted() -> None:
    """Requests by upstream and code are Envoy's own last numbers, whatever the panes."""
    whole = otlp.decode_points(read_requests(CAPTURE))
    truth: dict[tuple[int, str, str], float] = defaultdict(float)
    names = [family.name for family in FAMILIES]
    claims = Claims.of(whole)
    counted = np.flatnonzero(claims.family == names.index("cluster.upstream_rq")).astype(np.uint32)
    labels = claims.labels(whole, counted)
    instance = whole.points["resource"].to_numpy()[counted].tolist()
    for of, value in zip(
        zip(instance, labels["upstream"], labels["code"], strict=True),
        whole.points["value"].to_numpy()[counted],
        strict=True,
    ):
        truth[of] = max(truth[of], value)
    pane = whole.points["time_ns"].to_numpy()[counted] // PANE_NS
    found: dict[tuple[int, str, str], float] = defaultdict(float)
    last = NOTHING_KNOWN
    for number in np.unique(pane).tolist():
        of_pane = counted[pane == number]
        time = PaneTime(number * PANE_NS, PANE_NS, 0)
        gained, last = increments(whole, of_pane, last, pane=number, lookback=36, time=time)
        assert len(gained.unknown) == 0, "the mesh began within the lookback"
        points = gained.rows["point"].to_numpy()
        of_rows = claims.labels(whole, points)
        resources = whole.points["resource"].to_numpy()[points].tolist()
        for at, upstream, code, value in zip(
            resources, of_rows["upstream"], of_rows["code"], gained.rows["value"], strict=True
        ):
            found[at, upstream, code] += value
    assert len(truth) > 20
    assert found == truth
