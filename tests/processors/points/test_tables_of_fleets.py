"""Tables of counters: bounds, readers that resume, random fleets against a plain program."""

from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.processors.points.counters import (
    ENVOY,
    T0_S,
    Number,
    balance,
    blocks_of,
    emits_of,
    log_of,
    payload,
    rows,
    rows_of,
    settings,
    summed,
)
from tests.support.examples import examples

CAPTURE = Path(__file__).parents[2] / "data" / "envoy" / "metrics.bin.gz"
RQ = "cluster.upstream_rq"
PRODUCT = "outbound|80|v1|product.shop.svc.cluster.local"
IN_MANAGER = {"envoy.http_conn_manager_prefix": "inbound_0.0.0.0_80"}


def envoy(service: str, instance: str = "a", **more: str) -> dict[str, str]:
    return {
        **ENVOY,
        "service.name": service,
        "service.namespace": "shop",
        "service.instance.id": instance,
        **more,
    }


def code(cluster: str, code: str = "200") -> dict[str, str]:
    return {"envoy.cluster_name": cluster, "envoy.response_code": code}


def test_names_without_bound_become_other_and_sums_stay() -> None:
    few = settings(labels={"services": 3, "nodes": 16, "series": 20, "new_services": 2})
    log = [
        (
            t * 5.0,
            payload(
                envoy(f"s{t}-{i}"),
                [Number(RQ, code(f"u{t}-{i}-{j}"), 1, t * 5.0, t * 5.0 - 1) for j in range(4)],
            ),
        )
        for t in range(45)
        for i in range(8)
    ]
    found = rows(log, few)
    for table in ("traffic_10s", "upstreams_10s"):
        value = "requests" if table == "traffic_10s" else "attempts"
        total = sum(row[value] for row in found[table])
        assert total == (45 * 8 * 4 if table == "traffic_10s" else 0)
    names = {row["service"] for row in found["traffic_10s"]}
    assert "other" in names
    assert len(names) < 45 * 3 + 1
    assert len({row["peer_service"] for row in found["traffic_10s"]}) < 45 * 17
    whole = emits_of(log_of(log), few)
    blocks = blocks_of(whole)
    for emit in whole[8:45:18]:
        for token, table in blocks_of(emits_of(log_of(log), few, emit.commit)).items():
            assert table.equals(blocks[token]), token


def test_labels_are_cut() -> None:
    log = [(1, payload(envoy("s" * 3_000), [Number(RQ, code("u" * 3_000), 1, 1)]))]
    (row,) = rows(log)["traffic_10s"]
    assert len(row["service"]) == len(row["peer_service"]) == 256


SERVICES, CODES = ("a", "b"), ("200", "404", "503")


@examples(4)
@given(st.integers(0, 2**32))
def test_rows_are_a_function_of_the_log_and_sum_up_to_a_plain_programs(seed: int) -> None:
    random = Random(seed)
    given = settings(pane="2s", metrics_lookback="20s", lookback="6s")
    state: dict[tuple[str, str, str, str], tuple[float, int, float]] = {}
    expected: dict[tuple[Any, ...], float] = defaultdict(float)
    log: list[tuple[float, bytes]] = []
    for second in range(0, 40, 2):
        for service in SERVICES:
            for instance in ("1", "2"):
                if random.random() < 0.3:
                    continue
                numbers = [Number("server.uptime", {}, random.choice([5, 50]), second, gauge=True)]
                for upstream in ("u1", PRODUCT):
                    for status in CODES:
                        key = (service, instance, upstream, status)
                        start, value, seen_s = state.get(key, (max(second - 1, 0), 0, second))
                        if second - seen_s > 18 or random.random() < 0.05:
                            start, value = max(second - 1, 0), 0  # begins again
                        more = random.choice([0, 0, 1, 7])
                        state[key] = (start, value + more, second)
                        numbers.append(Number(RQ, code(upstream, status), value + more, second, start))
                        if more:
                            name = "product" if upstream == PRODUCT else upstream
                            expected[T0_S + second // 10 * 10, service, name, status] += more
                request = payload(envoy(service, instance), numbers)
                log.append((second, request))
                if random.random() < 0.2:
                    log.append((second + random.random(), request))
    log.sort(key=lambda each: each[0])
    records = log_of(log)
    whole = emits_of(records, given)
    blocks = blocks_of(whole)
    found = rows_of(whole)
    by = ("slot", "service", "peer_service", "response_code")
    assert summed(found["traffic_10s"], by, "requests") == dict(expected)
    assert sum(row["errors"] for row in found["traffic_10s"]) == sum(
        v for k, v in expected.items() if k[3] == "503"
    )
    balance(found)
    for emit in random.sample(whole, 2):
        again = blocks_of(emits_of(records, given, emit.commit))
        for token, table in again.items():
            assert table.equals(blocks[token]), token
