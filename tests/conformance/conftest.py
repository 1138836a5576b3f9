"""The receivers under test, each in a process of its own."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.receiving import RECEIVERS
from tests.support.served import Served

ABUSED: dict[str, Any] = {"max_message": "4MiB", "max_concurrent_streams": 512, "buffer_size": "64MiB"}
"""Limits that an attack meets."""

IMPATIENT: dict[str, Any] = {"keepalive_time": "3s", "keepalive_timeout": "3s", "body_timeout": "3s"}
"""For peers that are too slow: on a busy machine others may be, so that they try again."""


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


@pytest.fixture(scope="module", params=RECEIVERS)
def impatient(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same, which waits for nobody."""
    with Served(tmp_path_factory.mktemp("impatient"), request.param, **ABUSED, **IMPATIENT) as served:
        yield served
        assert served.stop() == 0
