"""One broker for a test run; topics of their own keep tests apart."""

from collections.abc import Iterator

import pytest

from tests.kafka.broker import Cluster


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running Kafka of one node. Tests that use it are marked ``component("kafka")``."""
    with Cluster(tmp_path_factory.mktemp("kafka") / "broker") as cluster:
        yield cluster
