"""One store server for a test run."""

from collections.abc import Iterator

import pytest

from tests.support.store_server import StoreServer


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    server = StoreServer(tmp_path_factory.mktemp("store-server"))
    try:
        yield server.start()
    finally:
        server.kill()
