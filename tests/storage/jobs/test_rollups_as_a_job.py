"""Roll-ups keep the contract of a job, on both engines."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest

from schemas.units import NS_PER_S
from schemas.watermark import Watermark
from storage.client import open_client
from storage.jobs import rollups
from storage.jobs.job import Job
from storage.jobs.rollups import HOUR_S, RollUps
from storage.settings import StorageSettings
from tests.storage.jobs.job_contract import JobContract
from tests.support.stores import Place, block, opened, write

HOURS = 2
NOW_S = int(time.time()) // HOUR_S * HOUR_S
START_S = NOW_S - 6 * HOUR_S
SUMS = {
    "red_1m": "SELECT uniqExact(slot, service), uniqExact(slot), sum(requests), sum(errors) FROM red_1m",
    "red_1h": "SELECT uniqExact(slot, service), uniqExact(slot), sum(requests), sum(errors) FROM red_1h",
    "edges_1m": "SELECT uniqExact(slot, client_service), uniqExact(slot), sum(calls), sum(errors) FROM edges_1m",
    "edges_1h": "SELECT uniqExact(slot, client_service), uniqExact(slot), sum(calls), sum(errors) FROM edges_1h",
    "upstream_servers": "SELECT sum(calls) FROM upstream_servers",
}


class RollUpCase:
    """Hours of two minutes each, and one after them that is never closed."""

    def __init__(self, settings: StorageSettings, stack: ExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._client = stack.enter_context(opened(settings))
        ends_ns = [(START_S + (hour + 1) * HOUR_S) * NS_PER_S for hour in range(HOURS)]
        self.watermarks = [Watermark(end_ns + 900 * NS_PER_S, end_ns) for end_ns in ends_ns]
        slots = [
            START_S + hour * HOUR_S + slot * 10 for hour in range(HOURS + 1) for slot in (0, 1, 2, 6, 7, 8)
        ]
        self._names = [f"s{number}" for number in range(4)]
        red = [
            {"slot": slot, "service": name, "requests": 1 + number, "errors": number}
            for slot in slots
            for number, name in enumerate(self._names)
        ]
        edges = [
            {
                "slot": row["slot"],
                "client_service": row["service"],
                "server_service": "x",
                "connection": "service",
                "upstream_cluster": "up",
                "calls": row["requests"],
                "errors": row["errors"],
            }
            for row in red
        ]
        write(settings, block("red_10s", red), block("edges_10s", edges))

    def job(self) -> Job:
        job = RollUps(open_client(self._settings.store_place), self._settings)
        self._stack.callback(job.close)
        return job

    def outcome(self) -> dict[str, Any]:
        return {table: self._client.query(sql).result_rows[0] for table, sql in SUMS.items()}

    def expected(self) -> dict[str, Any]:
        names = len(self._names)
        requests = HOURS * 6 * sum(range(1, names + 1))
        errors = HOURS * 6 * sum(range(names))
        minutes = (HOURS * 2 * names, HOURS * 2, requests, errors)
        hours = (HOURS * names, HOURS, requests, errors)
        return {
            "red_1m": minutes,
            "red_1h": hours,
            "edges_1m": minutes,
            "edges_1h": hours,
            "upstream_servers": (requests,),
        }


class TestRollUps(JobContract):
    @pytest.fixture
    def case(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[RollUpCase]:
        monkeypatch.setattr(rollups, "SERVICES_PER_INSERT", 2)  # several portions an hour
        with ExitStack() as stack:
            yield RollUpCase(place.settings(), stack)

    def test_hours_are_final_by_commits_and_not_by_a_grace_of_settings(self, place: Place) -> None:
        """A worker with a smaller grace than the others', as in a rolling restart, rolls no hour up whose
        rows still come without the mark ``late``.
        """
        with ExitStack() as stack:
            case = RollUpCase(place.settings(rollup_grace=timedelta(seconds=1)), stack)
            hour_later_ns = (NOW_S + HOUR_S) * NS_PER_S
            job = case.job()
            assert list(job.run(Watermark(hour_later_ns, START_S * NS_PER_S))) == []
            assert case.outcome()["red_1m"][2] == 0
            first = Watermark(hour_later_ns, (START_S + 2 * HOUR_S) * NS_PER_S - 1)
            assert list(job.run(first))
            assert case.outcome()["red_1m"][1] == 2  # the two minutes of the first hour
