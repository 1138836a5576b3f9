"""/metrics of processes without SQL: who asks is checked, and clients are bounded, as on the SQL port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from console.port import MetricsServer
from console.settings import ConsoleSettings
from meshflow.lifecycle import metrics_port
from meshflow.settings import Settings
from schemas.errors import AddressInUse
from tests.console.plain_http import LONG_S, ask, connect, parse, read_to_end, request

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def metrics(**settings: Any) -> AsyncIterator[MetricsServer]:
    given = {"metrics_port": 0, "client_timeout": timedelta(seconds=LONG_S), **settings}
    server = MetricsServer(ConsoleSettings(**given))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def scrape(*headers: str, host: str = "localhost") -> bytes:
    return request("/metrics", b"", *headers, method="GET", host=host)


async def test_a_scrape_is_answered() -> None:
    async with metrics() as server:
        reply = await ask(server, scrape())
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/plain")
        assert b"meshflow_ingest_items_total" in reply.body
        assert (await ask(server, request("/", b"SELECT 1"))).status == 404


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:9464", "10.1.2.3", ""])
async def test_a_foreign_host_reads_nothing(host: str) -> None:
    async with metrics() as server:
        reply = await ask(server, scrape(host=host))
        assert reply.status == 421
        assert b"console.hosts" in reply.body
        assert b"meshflow_" not in reply.body


@pytest.mark.parametrize(
    "header", ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"]
)
async def test_a_foreign_page_reads_nothing(header: str) -> None:
    async with metrics() as server:
        reply = await ask(server, scrape(header))
        assert reply.status == 403
        assert b"meshflow_" not in reply.body


async def test_own_names_are_answered() -> None:
    async with metrics(hosts=("ingest",)) as server:
        for host in ("ingest:9464", "127.0.0.1", "[::1]:9464"):
            assert (await ask(server, scrape("Origin: http://ingest", host=host))).status == 200


async def test_no_browser_guesses_what_an_answer_is() -> None:
    async with metrics() as server:
        for sent in (scrape(), request("/nowhere"), scrape(host="evil.example"), scrape("Origin: null")):
            headers = (await ask(server, sent)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"


async def test_headers_are_bounded() -> None:
    async with metrics() as server:
        assert (await ask(server, scrape(*(f"X-{number}: 1" for number in range(1_000))))).status == 400
        assert (await ask(server, scrape("X: " + "x" * 100_000))).status == 400
        assert (await ask(server, scrape())).status == 200


async def test_connections_are_bounded() -> None:
    async with metrics(max_connections=5) as server:
        with ExitStack() as parts:
            clients = [parts.enter_context(connect(server)) for _ in range(5)]
            for client in clients:
                client.sendall(SCRAPE)
                assert parse(await asyncio.to_thread(client.recv, 1 << 16)).status == 200
            assert (await ask(server, scrape())).status == 0


@pytest.mark.parametrize("sent", [b"", b"GET /met", SCRAPE, b"POST /metrics HTTP/1.1\r\nContent-Le"])
async def test_silent_slow_and_idle_connections_are_closed(sent: bytes) -> None:
    async with metrics(client_timeout=timedelta(milliseconds=500)) as server:
        with connect(server) as client:
            client.sendall(sent)
            await asyncio.to_thread(read_to_end, client)
        assert (await ask(server, scrape())).status == 200


async def test_ingest_process_and_repartition_have_this_port() -> None:
    """All three open it by ``metrics_port``; tests/e2e asks the processes themselves."""
    settings = Settings(console=ConsoleSettings(metrics_port=0))
    async with metrics_port(settings) as port:
        server = MetricsServer(settings.console)
        server.port = port
        assert (await ask(server, scrape(host="evil.example"))).status == 421
        assert (await ask(server, scrape())).status == 200
        taken = Settings(console=ConsoleSettings(metrics_port=port))
        with pytest.raises(AddressInUse, match=r"console\.metrics_port"):
            async with metrics_port(taken):
                pass
