"""The named questions, each beside a real Prometheus that has the same samples.

How far the two may be apart: a Prometheus has no sample at the ends of its window and extrapolates from the
first and the last one in it, at the rate between them; ours adds what each point in the window gained. With a
sample each 15 s in 5 min that is one gain of 20, known here, estimated there: nothing where rates are steady,
and at most 1/20 of how far that one gain is from the others' mean. Shares of two such numbers are closer.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client

from storage.questions import named, question
from tests.processors.points.counters import T0_S, Number, emits_of, log_of, payload
from tests.support import prometheus
from tests.support.prometheus import Prometheus
from tests.support.stores import opened, settings_for, write

pytestmark = pytest.mark.component("prometheus")

EVERY_S, SAMPLES = 15, 64
UNTIL_S = T0_S + 960
WINDOW_S = 300
RESTARTS_S = 900
BOUNDS = (1, 5, 10, 25, 50, 100, 250, 500, 1000)
EXTRAPOLATED = 0.05
"""One gain of 20, which is at most twice the mean."""
ROUNDED = 0.08
"""Of quantiles: rounding to a bucket of ours at either end (4.4 %) and what is extrapolated."""

Series = tuple[str, tuple[tuple[str, str], ...]]


def istio(cluster: str, reporter: str, destination: str, **labels: str) -> dict[str, str]:
    return {
        "reporter": reporter,
        "source_canonical_service": "front",
        "source_workload_namespace": "shop",
        "source_cluster": cluster,
        "destination_canonical_service": destination,
        "destination_workload_namespace": "shop",
        "destination_cluster": cluster,
        "request_protocol": "http",
        "response_code": "200",
        "response_flags": "-",
        "connection_security_policy": "unknown" if reporter == "source" else "mutual_tls",
        **labels,
    }


def counters() -> list[tuple[str, dict[str, str], int]]:
    """Counters, and what each gains in a step at most."""
    found: list[tuple[str, dict[str, str], int]] = []
    for cluster, many in (("east", 40), ("west", 90)):
        for to in ("cart", "pay"):
            found += [
                ("istio_requests_total", istio(cluster, "source", to), many),
                ("istio_requests_total", istio(cluster, "destination", to), many),
                ("istio_requests_total", istio(cluster, "destination", to, response_code="503"), many // 4),
                (
                    "istio_requests_total",
                    istio(cluster, "destination", to, connection_security_policy="none"),
                    many // 3,
                ),
            ]
        of = {
            "envoy_cluster_name": f"outbound|80||{cluster}.shop.svc.cluster.local",
            "app": "front",
            "namespace": "shop",
        }
        found += [
            ("envoy_cluster_upstream_rq_pending_overflow", of, 6),
            ("envoy_cluster_upstream_rq_retry", of, 9),
        ]
    return found


def made() -> dict[Series, list[float]]:
    """Values of each counter and gauge by step; one counter begins again in the window."""
    random = Random(11)
    series: dict[Series, list[float]] = {}
    for name, labels, most in counters():
        value, values = 0, []
        for step in range(SAMPLES):
            value = 0 if step == 55 and most == 90 else value
            value += random.randint(most // 2, most)
            values.append(float(value))
        series[name, tuple(labels.items())] = values
    for pod, restarts in (("cart-6d4cf56db6-aaaaa", 2), ("pay-6d4cf56db6-bbbbb", 0)):
        labels = {"pod": pod, "namespace": "shop", "container": "istio-proxy"}
        begun = [4.0] * 30 + [4.0 + restarts] * (SAMPLES - 30)
        series["kube_pod_container_status_restarts_total", tuple(labels.items())] = begun
        series["container_memory_working_set_bytes", tuple(labels.items())] = [
            float(random.randint(40, 90) << 20) for _ in range(SAMPLES)
        ]
    for days, metric in (
        (10, "citadel_server_cert_chain_expiry_timestamp"),
        (90, "citadel_server_root_cert_expiry_timestamp"),
    ):
        series[metric, (("app", "istiod"), ("namespace", "istio-system"))] = [
            float(UNTIL_S + days * 86400)
        ] * SAMPLES
    return series


@cache
def durations() -> dict[tuple[tuple[str, str], ...], list[list[int]]]:
    """Bucket counts (not cumulative over bounds) of the called services by step."""
    random = Random(12)
    found = {}
    for cluster in ("east", "west"):
        for to in ("cart", "pay"):
            counts = [0] * (len(BOUNDS) + 1)
            steps = []
            for _ in range(SAMPLES):
                for _ in range(600):
                    counts[
                        min(len(BOUNDS) - 1, int(random.triangular(0, len(BOUNDS), 3 if to == "cart" else 5)))
                    ] += 1
                steps.append(list(counts))
            found[tuple(istio(cluster, "destination", to).items())] = steps
    return found


GAUGES = ("container_memory", "citadel_server")
DURATION = "istio_request_duration_milliseconds"


def text_of(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in labels.items())


def openmetrics() -> str:
    """All samples as Prometheus reads them, at ``EVERY_S * step + 5`` after T0_S."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for (name, labels), values in made().items():
        shown = text_of(dict(labels))
        by_name[name] += [
            f"{name}{{{shown}}} {value} {T0_S + 5 + EVERY_S * step}" for step, value in enumerate(values)
        ]
    lines: list[str] = []
    for name, samples in by_name.items():
        kind = "gauge" if name.startswith(GAUGES) else "counter" if name.endswith("_total") else "unknown"
        lines += [f"# TYPE {name.removesuffix('_total') if kind == 'counter' else name} {kind}", *samples]
    lines.append(f"# TYPE {DURATION} histogram")
    for labels, steps in durations().items():
        shown = text_of(dict(labels))
        for step, counts in enumerate(steps):
            at = T0_S + 5 + EVERY_S * step
            for bound, upto in zip((*BOUNDS, "+Inf"), range(1, len(counts) + 1), strict=True):
                lines.append(f'{DURATION}_bucket{{{shown},le="{bound}"}} {sum(counts[:upto])} {at}')
            lines += [f"{DURATION}_sum{{{shown}}} 0 {at}", f"{DURATION}_count{{{shown}}} {sum(counts)} {at}"]
    return "\n".join([*lines, "# EOF", ""])


def requests() -> list[tuple[float, bytes]]:
    """The same samples as OTLP."""
    series, found = made(), []
    for step in range(SAMPLES):
        at = 5 + EVERY_S * step
        numbers = [
            Number(name, dict(labels), values[step], at, gauge=name.startswith(GAUGES))
            for (name, labels), values in series.items()
        ]
        numbers += [
            Number(DURATION, dict(labels), 0, at, bounds=tuple(map(float, BOUNDS)), counts=tuple(steps[step]))
            for labels, steps in durations().items()
        ]
        found.append((at + 0.5, payload({"service.name": "scraper"}, numbers)))
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus.started(tmp_path_factory.mktemp("prometheus"), openmetrics()) as running:
        yield running


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    settings = settings_for(tmp_path_factory.mktemp("store"))
    with opened(settings) as client:
        for emit in emits_of(log_of(requests())):
            write(settings, *emit.blocks)
        yield client


def ask(
    client: Client, name: str, keys: tuple[str, ...], value: str, **more: Any
) -> dict[tuple[str, ...], float]:
    """One value of a question's answer by some of its columns."""
    table: pa.Table = client.query_arrow(question(name, until_s=UNTIL_S, **more), use_strings=True)
    return {tuple(row[key] for key in keys): float(row[value]) for row in table.to_pylist()}


def both(server: Prometheus, promql: str, by: str, cluster: str) -> dict[tuple[str, ...], float]:
    """The answer for every cluster, and added up over all: ``%s`` in ``promql`` is what it is grouped by."""
    names = [cluster, *by.split(",")]
    each = server.values(promql.replace("%s", ",".join(names)), UNTIL_S, *names)
    over = server.values(promql.replace("%s", by), UNTIL_S, *by.split(","))
    return each | {("*", *key): value for key, value in over.items()}


DESTINATION = "destination_canonical_service"
SERVER = 'istio_requests_total{reporter="destination"%s}[5m]'


@pytest.mark.parametrize(("column", "function"), [("increase", "increase"), ("per_s", "rate")])
def test_requests_by_destination(client: Client, server: Prometheus, column: str, function: str) -> None:
    asked = f'sum by (%s) ({function}(istio_requests_total{{reporter="destination"}}[5m]))'
    theirs = both(server, asked, DESTINATION, "destination_cluster")
    ours = ask(client, "requests_by_destination", ("cluster", "destination"), column)
    assert len(theirs) == 6
    assert ours == pytest.approx(theirs, rel=EXTRAPOLATED)


@pytest.mark.parametrize(("column", "function"), [("increase", "increase"), ("per_s", "rate")])
def test_requests_by_source_and_destination(
    client: Client, server: Prometheus, column: str, function: str
) -> None:
    asked = f'sum by (%s) ({function}(istio_requests_total{{reporter="source"}}[5m]))'
    theirs = both(server, asked, f"source_canonical_service,{DESTINATION}", "source_cluster")
    ours = ask(client, "requests_by_edge", ("cluster", "source_service", "destination"), column)
    assert len(theirs) == 6
    assert ours == pytest.approx(theirs, rel=EXTRAPOLATED)


@pytest.mark.parametrize(("column", "quantile"), [("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)])
def test_latency(client: Client, server: Prometheus, column: str, quantile: float) -> None:
    asked = f"histogram_quantile({quantile}, sum by (%s,le) (rate({DURATION}_bucket[5m])))"
    theirs = both(server, asked, DESTINATION, "destination_cluster")
    ours = ask(client, "latency", ("cluster", "destination"), column)
    assert len(theirs) == 6
    assert ours == pytest.approx(theirs, rel=ROUNDED)


def test_error_percent(client: Client, server: Prometheus) -> None:
    all_of = 'sum by (%s) (rate(istio_requests_total{reporter="destination"}[5m]))'
    failed = 'sum by (%s) (rate(istio_requests_total{reporter="destination",response_code=~"5.."}[5m]))'
    theirs = both(server, f"100 * {failed} / {all_of}", DESTINATION, "destination_cluster")
    ours = ask(client, "error_percent", ("cluster", "destination"), "percent")
    assert len(theirs) == 6
    assert min(theirs.values()) > 5
    assert ours == pytest.approx(theirs, rel=EXTRAPOLATED)


@pytest.mark.parametrize(("column", "name"), [("pending_overflow", "pending_overflow"), ("retries", "retry")])
def test_overflow_and_retries_by_cluster(client: Client, server: Prometheus, column: str, name: str) -> None:
    asked = f"sum by (envoy_cluster_name) (increase(envoy_cluster_upstream_rq_{name}[5m]))"
    theirs = server.values(asked, UNTIL_S, "envoy_cluster_name")
    ours = ask(client, "overflow_and_retries", ("cluster", "upstream"), column)
    assert len(theirs) == 2
    assert {key[1:]: value for key, value in ours.items() if key[0] == "*"} == pytest.approx(
        theirs, rel=EXTRAPOLATED
    )


@pytest.mark.parametrize(("days", "found"), [(5, 0), (30, 1), (100, 2)])
def test_certificates_below_days(client: Client, server: Prometheus, days: int, found: int) -> None:
    theirs = [
        left
        for kind in ("cert_chain", "root_cert")
        for left in server.values(
            f"(citadel_server_{kind}_expiry_timestamp - time()) / 86400 < {days}", UNTIL_S
        ).values()
    ]
    ours = ask(client, "certificates_below", ("cluster", "kind", "name"), "days_left", days=days)
    assert len(theirs) == found
    assert sorted(value for key, value in ours.items() if key[0] == "*") == pytest.approx(theirs, abs=0.001)


def test_mtls_share(client: Client, server: Prometheus) -> None:
    all_of = 'sum by (%s) (rate(istio_requests_total{reporter="destination"}[5m]))'
    under = 'sum by (%s) (rate(istio_requests_total{reporter="destination",connection_security_policy="mutual_tls"}[5m]))'
    theirs = both(server, f"{under} / {all_of}", DESTINATION, "destination_cluster")
    ours = ask(client, "mtls_share", ("cluster", "destination"), "share")
    assert len(theirs) == 6
    assert max(theirs.values()) < 0.95
    assert ours == pytest.approx(theirs, rel=EXTRAPOLATED)


def test_restarts_of_proxies(client: Client, server: Prometheus) -> None:
    """A whole number here; there it is extrapolated by 1/59 (a sample each 15 s in 15 min)."""
    asked = (
        'sum by (pod) (increase(kube_pod_container_status_restarts_total{container="istio-proxy"}[15m])) > 0'
    )
    theirs = server.values(asked, UNTIL_S, "pod")
    ours = ask(client, "proxy_restarts", ("cluster", "pod"), "restarts", last=timedelta(seconds=RESTARTS_S))
    of_all = {key[1:]: value for key, value in ours.items() if key[0] == "*"}
    assert list(of_all.values()) == [2]
    assert of_all == pytest.approx(theirs, rel=1 / 59 + 0.001)


def test_memory_of_sidecars(client: Client, server: Prometheus) -> None:
    asked = 'sum by (pod) (container_memory_working_set_bytes{container="istio-proxy"})'
    theirs = server.values(asked, UNTIL_S, "pod")
    ours = ask(client, "proxy_memory", ("cluster", "pod"), "bytes")
    assert len(theirs) == 2
    assert {key[1:]: value for key, value in ours.items() if key[0] == "*"} == theirs


def test_every_question_is_checked() -> None:
    checked = Path(__file__).read_text(encoding="utf-8")
    assert len(named()) == 9
    assert all(f'"{name}"' in checked for name in named())
