"""Upstreams that fail in every way, behind real Envoys: each call is on an edge once, and the sums are what
Envoy's own counters say, as docs/sql.md has it ("Whose count is which").
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.mesh.failing import BURST, ONCE, RETRIED, TIMES, running_failing_mesh
from tests.support.up import Up, running_up

pytestmark = pytest.mark.component("envoy")

Counters = Mapping[str, Mapping[str, int]]
PER_REQUEST, PER_ATTEMPT = "per-request", "per-attempt"
"""Callers whose Envoy makes one span for all attempts, and one for each (``spawn_upstream_span``)."""
SHOWN = {"good", "flaky"}
"""Upstreams that send spans."""


class Sums:
    """What one caller's edges say, by Envoy cluster."""

    def __init__(self, up: Up, service: str) -> None:
        self.up, self.service = up, service

    def of(self, what: str, where: str = "1") -> Counter[str]:
        """The sum of a column, without those that are 0."""
        rows = self.up.sql(
            f"SELECT upstream_cluster, sum({what}) AS n FROM edges WHERE client_service = '{self.service}' AND {where}"
            " GROUP BY ALL HAVING n != 0"
        )
        return Counter({cluster: int(number) for cluster, number in rows})


def has(flag: str) -> str:
    return f"has(splitByChar(',', response_flags), '{flag}')"


def of(counters: Counters, name: str) -> Counter[str]:
    return Counter({cluster: counts[name] for cluster, counts in counters.items() if counts[name]})


async def run(folder: Path, up: Up, service: str) -> tuple[int, Counters]:
    """Spans that were sent, and Envoy's counters."""
    spawn = service == PER_ATTEMPT
    async with running_failing_mesh(
        folder, up.ports["grpc"], service=service, spawn_upstream_span=spawn
    ) as mesh:
        await mesh.drive()
        return await mesh.envoys.exported(), await mesh.counters()


async def test_each_call_is_on_an_edge_once_and_sums_are_envoys_counters(tmp_path: Path) -> None:
    services = (PER_REQUEST, PER_ATTEMPT)
    with running_up(tmp_path / "up", "", "--pane", "1s", "--wait", "2") as up:
        runs = await asyncio.gather(*(run(tmp_path, up, service) for service in services))
        up.wait_for(sum(spans for spans, _ in runs))
        for service, (_, counters) in zip(services, runs, strict=True):
            sums = Sums(up, service)
            assert_each_request_is_there_once(sums, counters)
            assert_attempts_are_those_of_envoy(sums, counters)
        assert_names(up)


def assert_each_request_is_there_once(sums: Sums, counters: Counters) -> None:
    made = Counter(dict.fromkeys((*ONCE, *RETRIED, ""), TIMES) | {"busy": BURST})
    assert sums.of("calls + unsent + unanswered - retries") == made
    answered = Counter({"good": TIMES, "busy": counters["busy"]["total"], "": TIMES})
    assert sums.of("errors") - sums.of("retries") == made - answered, "no route is a 404, no error to Envoy"


def assert_attempts_are_those_of_envoy(sums: Sums, counters: Counters) -> None:
    retries, total = of(counters, "retries"), of(counters, "total")
    unseen = Counter[str]()
    if sums.service == PER_REQUEST:  # of attempts that no span is below, all are one
        unseen = Counter({cluster: count for cluster, count in retries.items() if cluster not in SHOWN})
    unconnected = sums.of("unanswered", f"upstream_cluster = 'unreachable' AND NOT {has('UF')}")
    assert sums.of("calls + unanswered", f"NOT {has('UF')}") == total - unseen + unconnected
    assert sums.of("retries") == retries - unseen
    refused = {"refusing", "refusing_retried"}
    failures = Counter(
        {name: count for name, count in of(counters, "connect_failures").items() if name in refused}
    )
    assert set(failures) == refused
    assert sums.of("unanswered", has("UF")) - Counter({"unreachable": TIMES}) == failures - unseen
    assert sums.of("unsent", has("UO")) == of(counters, "overflow")
    assert sums.of("unsent", has("UH")) == of(counters, "no_host")
    assert sums.of("unsent", has("NR")) == Counter({"": TIMES})
    assert sums.of("unanswered", "upstream_cluster = 'unreachable'") == Counter({"unreachable": TIMES})
    assert "unreachable" not in total


def assert_names(up: Up) -> None:
    """Of services that send spans, and of others by their cluster."""
    rows = up.sql(
        "SELECT upstream_cluster, server_service, connection FROM edges"
        f" WHERE client_service = '{PER_ATTEMPT}' AND NOT unsent GROUP BY ALL"
    )
    silent = {*ONCE, *RETRIED, "busy"} - SHOWN - {"nobody"}
    assert {(cluster, server, connection) for cluster, server, connection in rows} == {
        *((cluster, f"{cluster}-of-{PER_ATTEMPT}", "service") for cluster in SHOWN),
        *((cluster, cluster, "external") for cluster in silent),
    }
