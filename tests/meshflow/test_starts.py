"""Starts on a host where other processes run already, and before what a process needs is there."""

import asyncio
import os
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from console.settings import ConsoleSettings
from meshflow.lifecycle import metrics_port
from meshflow.run.ingest_workers import _settings_of
from meshflow.settings import Settings
from meshflow.wiring import once_there
from schemas.errors import AddressInUse, SinkUnavailable, SinkUnusable
from storage.client import open_client
from storage.settings import ChdbStore, ClickHouseStore, parse_store_url
from tests.support.kafka.ports import reserve_port
from tests.support.store_server import StoreServer
from tests.support.up import LONG_S, MESHFLOW, ROOT, eventually


def settings_with(port: int, asked_for: bool) -> Settings:
    """With this port of /metrics: asked for, or as if it were the default."""
    settings = Settings()
    console = ConsoleSettings(metrics_port=port)
    if not asked_for:
        console.model_fields_set.discard("metrics_port")
    return settings.model_copy(update={"console": console})


async def test_where_the_port_of_metrics_is_taken_a_free_one_does(caplog: pytest.LogCaptureFixture) -> None:
    async with metrics_port(settings_with(0, asked_for=True)) as first:
        async with metrics_port(settings_with(first, asked_for=False)) as second:
            assert second not in (0, first)
        (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert f":{first} is taken" in line
        assert f"/metrics is on port {second}" in line
        with pytest.raises(AddressInUse, match=r"console\.metrics_port"):
            async with metrics_port(settings_with(first, asked_for=True)):
                pass


async def test_an_address_that_is_not_ours_is_no_port_that_is_taken() -> None:
    settings = settings_with(9, asked_for=False)
    console = settings.console.model_copy(update={"host": "192.0.2.1"})
    with pytest.raises(AddressInUse, match=r"192\.0\.2\.1:9 "):
        async with metrics_port(settings.model_copy(update={"console": console})):
            pass


@pytest.mark.parametrize("asked_for", [False, True])
def test_workers_of_ingest_ask_for_ports_of_metrics_as_their_settings_do(asked_for: bool) -> None:
    made = _settings_of(settings_with(9464, asked_for), 2, (1, 2))
    assert made.console.metrics_port == 9466
    assert ("metrics_port" in made.console.model_fields_set) == asked_for


async def test_a_start_waits_for_a_database_that_is_not_up_yet(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = StoreServer(tmp_path)
    place = parse_store_url(server.url())
    opening = asyncio.ensure_future(once_there(lambda: open_client(place), place, asyncio.Event()))
    try:
        while not caplog.records:  # noqa: ASYNC110 - nothing else says that it waits
            await asyncio.sleep(0.05)
        assert not opening.done()
        await asyncio.to_thread(server.start)
        client = await asyncio.wait_for(opening, LONG_S)
        assert client is not None
        client.close()
        assert server.stop() == 0
    finally:
        server.kill()
    assert "the database is not there yet" in caplog.records[0].getMessage()


async def test_a_start_that_waits_ends_when_it_is_stopped() -> None:
    place = parse_store_url(f"clickhouse://127.0.0.1:{reserve_port()}/default")
    stop = asyncio.Event()
    waiting = asyncio.ensure_future(once_there(lambda: open_client(place), place, stop))
    await asyncio.sleep(0)
    stop.set()
    assert await asyncio.wait_for(waiting, LONG_S) is None


async def test_a_start_does_not_wait_for_what_no_waiting_mends() -> None:
    def fail(error: Exception) -> None:
        raise error

    server = parse_store_url("clickhouse://127.0.0.1:8123/default")
    folder = parse_store_url("chdb:///nowhere")
    assert isinstance(server, ClickHouseStore)
    assert isinstance(folder, ChdbStore)
    with pytest.raises(SinkUnusable, match="password"):
        await once_there(lambda: fail(SinkUnusable("wrong password")), server, asyncio.Event())
    with pytest.raises(SinkUnavailable, match="another process"):
        await once_there(lambda: fail(SinkUnavailable("in use by another process")), folder, asyncio.Event())


def test_process_starts_before_its_database_and_its_brokers(tmp_path: Path) -> None:
    """Neither is there: the process logs so, goes on when the database is there, and stops at SIGTERM. It
    has not loaded the embedded engine, which it does not need. The default port of /metrics is taken, as by
    another process of the host: it says which other one it took.
    """
    server = StoreServer(tmp_path / "store")
    log = tmp_path / "process.log"
    environment = {
        **os.environ,
        "MESHFLOW_STORE": server.url(),
        "MESHFLOW_LOG": f"kafka://127.0.0.1:{reserve_port()}",
    }
    command = [*MESHFLOW, "process", "--data", str(tmp_path / "data")]
    console = ConsoleSettings()
    with log.open("wb") as out, ExitStack() as taken:
        with suppress(OSError):  # by a stranger already
            taken.enter_context(socket.create_server((console.host, console.metrics_port)))
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, env=environment)
        try:
            eventually(
                lambda: "the database is not there yet" in log.read_text(), f"it waits, see {log}", LONG_S
            )
            server.start()
            eventually(
                lambda: f":{console.metrics_port} is taken" in log.read_text(),
                f"it goes on, see {log}",
                LONG_S,
            )
            eventually(lambda: "/metrics is on port" in log.read_text(), f"it says where, see {log}", LONG_S)
            loaded = Path(f"/proc/{process.pid}/maps").read_text()
            assert "polars" in loaded
            assert "chdb" not in loaded
            process.send_signal(signal.SIGTERM)
            assert process.wait(LONG_S) == 0, log.read_text()
        finally:
            process.kill()
            server.kill()
    assert "Traceback" not in log.read_text()
