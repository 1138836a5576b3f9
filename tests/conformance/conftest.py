"""The receivers under test, each in a process of its own."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.served import Served
from tests.ingest.receiving import RECEIVERS

ABUSED: dict[str, Any] = {
    "max_message": "4MiB",
    "max_concurrent_streams": 512,
    "keepalive_time": "3s",
    "keepalive_timeout": "3s",
    "body_timeout": "3s",
    "buffer_size": "64MiB",
}
"""Limits that an attack meets within a test's patience."""


@pytest.fixture(params=RECEIVERS)
def receiver(request: pytest.FixtureRequest) -> str:
    """The setting ``receiver``: each test runs on every kind."""
    return str(request.param)


@pytest.fixture(scope="module", params=RECEIVERS)
def abused(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One process for all attacks of a file: what one of them leaves behind, the next would show."""
    with Served(tmp_path_factory.mktemp("abused"), request.param, **ABUSED) as served:
        yield served
        assert served.stop() == 0, "a receiver that was attacked still stops as it should"
