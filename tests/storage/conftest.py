"""The two places that every test of the contract runs against: chdb in this process, and `meshflow store
--writable` over HTTP.
"""

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import clickhouse_connect
import pytest

from tests.support.store_server import StoreServer
from tests.support.stores import ChdbPlace, HttpPlace, Place

_numbers = count()


@pytest.fixture(params=["chdb", "http"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty place: a folder, or a database of a server that other tests use too."""
    if request.param == "chdb":
        yield ChdbPlace(tmp_path)
        return
    server: StoreServer = request.getfixturevalue("store_server")
    database = f"test_{next(_numbers)}"
    with closing(
        clickhouse_connect.get_client(host="127.0.0.1", port=server.port, autogenerate_session_id=False)
    ) as client:
        client.command(f"CREATE DATABASE {database}")
        yield HttpPlace(tmp_path, server, database)
        client.command(f"DROP DATABASE {database} SYNC")
