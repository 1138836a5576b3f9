"""``meshflow store``: the embedded engine alone, answering as a ClickHouse server does; for small
installations and tests.

``meshflow console``: the same read-only port in front of a ClickHouse server.
"""

import asyncio
import os
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from console.password import check_exposure
from console.server import SqlServer
from meshflow.lifecycle import stop_on_signals
from meshflow.ports import published
from meshflow.run.folders import keep_private, use_temporary_folder
from meshflow.settings import Settings
from schemas.errors import SinkUnavailable
from storage.settings import ChdbStore
from storage.sql.chdb_engine import ChdbEngine
from storage.sql.server_engine import ServerEngine

_ROWS_FOLDER = "rows"
"""In the data folder: rows of inserts that are under way."""


@dataclass(frozen=True, slots=True)
class StorePorts:
    """Where a running store answers, as ports.json has it."""

    host: str
    sql: int
    pid: int


def run(settings: Settings, writable: bool, on_ready: Callable[[StorePorts], None]) -> None:
    """Answer SQL until SIGINT or SIGTERM, which let writes finish; a second one ends at once. Raises
    MeshflowError when it cannot start.
    """
    asyncio.run(_run(settings, writable, on_ready))


async def _run(settings: Settings, writable: bool, on_ready: Callable[[StorePorts], None]) -> None:
    stop = stop_on_signals()
    place = settings.storage.store_place
    if not isinstance(place, ChdbStore):
        raise SinkUnavailable(
            "`store` serves tables in a folder of this machine; a ClickHouse server (storage.store) answers for itself"
        )
    keep_private(settings.storage.data, place.directory)
    console = check_exposure(settings.console)
    async with AsyncExitStack() as parts:
        engine = await asyncio.to_thread(ChdbEngine, str(place.directory.resolve()), writable=writable)
        parts.callback(engine.close)
        use_temporary_folder(settings)
        sql = SqlServer(console, engine, _rows_folder(settings.storage.data) if writable else None)
        await sql.start()
        parts.push_async_callback(sql.stop)
        ports = StorePorts(settings.console.host, sql.port, os.getpid())
        parts.enter_context(published(settings.storage.data, ports))
        on_ready(ports)
        await stop.wait()


def run_console(settings: Settings, on_ready: Callable[[int], None]) -> None:
    """Answer read-only SQL on the store, a ClickHouse server, until SIGINT or SIGTERM. Raises MeshflowError
    when it cannot start.
    """
    asyncio.run(_run_console(settings, on_ready))


async def _run_console(settings: Settings, on_ready: Callable[[int], None]) -> None:
    stop = stop_on_signals()
    place = settings.storage.store_place
    if isinstance(place, ChdbStore):
        raise SinkUnavailable(
            "`console` needs a ClickHouse server: MESHFLOW_STORE=clickhouse://HOST:PORT/DATABASE; `store` serves tables in a folder"
        )
    console = check_exposure(settings.console)
    async with AsyncExitStack() as parts:
        engine = ServerEngine(place)
        parts.callback(engine.close)
        sql = SqlServer(console, engine)
        await sql.start()
        parts.push_async_callback(sql.stop)
        on_ready(sql.port)
        await stop.wait()


def _rows_folder(data: Path) -> Path:
    """The folder, without what a killed process left in it."""
    folder = data / _ROWS_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
