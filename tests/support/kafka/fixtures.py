"""One broker for a test run; topics of their own keep tests apart."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.kafka.broker import Cluster
from tests.support.kafka.workers import stop_all


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running Kafka of one node. Tests that use it are marked ``component("kafka")``."""
    with Cluster(tmp_path_factory.mktemp("kafka") / "broker") as cluster:
        yield cluster


@pytest.fixture
async def no_worker_left() -> AsyncIterator[None]:
    """Stops the workers that a test which failed has left in its loop."""
    yield
    await stop_all()
