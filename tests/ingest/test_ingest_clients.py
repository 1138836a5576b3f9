"""Clients as they are: pages of browsers, those of other protocols, those on the wrong port."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

import aiohttp
import grpc
import pytest
from pydantic import ValidationError

from ingest.http.encoding import JSON, PROTOBUF
from ingest.server import IngestServer
from ingest.settings import CorsSettings
from tests.support.memory_log import MemoryLog
from tests.support.receiving import export, grpc_client, receiving, span_ids, traces

SHOP = "https://shop.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


async def ask(
    server: IngestServer,
    method: str,
    path: str = "/v1/traces",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> tuple[int, Mapping[str, str], str]:
    address = f"http://127.0.0.1:{server.http_port}{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, address, headers=headers, data=body) as response,
    ):
        return response.status, response.headers, await response.text()


@pytest.mark.parametrize(
    ("origins", "origin", "allowed", "credentials"),
    [
        ([SHOP], SHOP, SHOP, True),
        ([SHOP], "https://shop.example.evil", None, False),
        ([SHOP], "http://shop.example", None, False),
        (["https://*.shop.example"], "https://a.b.shop.example", "https://a.b.shop.example", True),
        (["https://*.shop.example"], SHOP, None, False),
        (["https://*.shop.example"], "https://evil/.shop.example", None, False),
        (["http://localhost:*"], "http://localhost:3000", "http://localhost:3000", True),
        (["http://localhost:*"], "http://localhost", "http://localhost", True),
        (["*"], "https://anybody.example", "*", False),
        (["*"], "null", "*", False),
        ([SHOP], "null", None, False),
    ],
)
async def test_pages_of_listed_origins_may_send(
    origins: list[str], origin: str, allowed: str | None, credentials: bool
) -> None:
    log = MemoryLog()
    async with receiving(log, cors={"origins": origins}) as server:
        status, headers, _ = await ask(server, "OPTIONS", headers={"Origin": origin, **PREFLIGHT})
        assert headers.get("Access-Control-Allow-Origin") == allowed
        assert status == (403 if allowed is None else 204)
        assert headers.get("Access-Control-Allow-Credentials") == ("true" if credentials else None)
        if allowed:
            names = headers["Access-Control-Allow-Headers"].split(", ")
            assert {"content-type", "content-encoding", "authorization"} <= set(names)
            assert headers["Access-Control-Allow-Methods"] == "POST"
        status, headers, _ = await ask(
            server, "POST", headers={"Origin": origin, "Content-Type": PROTOBUF}, body=traces(0, 1)
        )
        assert (status, headers.get("Access-Control-Allow-Origin")) == (200, allowed)
        assert headers["Vary"] == "Origin"


async def test_pages_read_refusals_too_and_a_preflight_needs_no_token(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text("sesame" * 5 + "\n")
    cors = {"origins": [SHOP], "headers": ["X-Tenant"]}
    async with receiving(MemoryLog(), cors=cors, auth={"tokens": str(tokens)}) as server:
        status, headers, _ = await ask(server, "OPTIONS", headers={"Origin": SHOP, **PREFLIGHT})
        assert (status, headers["Access-Control-Allow-Headers"].split(", ")[-1]) == (204, "x-tenant")
        status, headers, _ = await ask(server, "POST", headers={"Origin": SHOP, "Content-Type": JSON})
        assert (status, headers["Access-Control-Allow-Origin"]) == (401, SHOP)
        assert headers["Access-Control-Expose-Headers"] == "Retry-After"


async def test_without_origins_there_is_no_cors() -> None:
    async with receiving(MemoryLog()) as server:
        status, headers, _ = await ask(server, "OPTIONS", headers={"Origin": SHOP, **PREFLIGHT})
        assert (status, headers["Allow"]) == (405, "POST")
        status, others, _ = await ask(
            server, "POST", headers={"Origin": SHOP, "Content-Type": PROTOBUF}, body=traces(0, 1)
        )
        assert status == 200
        assert not [name for name in (*headers, *others) if name.startswith("Access-Control")]


@pytest.mark.parametrize(
    "origin", ["shop.example", "https://shop.example/", "https://*", "https://a.*.b", ""]
)
def test_what_is_no_origin_is_refused_by_the_settings(origin: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        CorsSettings(origins=(origin,))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/api/v2/spans", "Zipkin's spans are not taken here, OTLP is: an OpenTelemetry Collector"),
        ("/api/traces?format=jaeger.thrift", "Jaeger's spans"),
        ("/loki/api/v1/push", "Loki's log lines"),
        ("/api/v1/write", "Prometheus remote write"),
        ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", "ingest.grpc_port"),
        ("/v1/trace", "there is nothing at this path"),
        ("/", "there is nothing at this path"),
    ],
)
async def test_other_paths_are_answered_with_those_that_there_are(path: str, text: str) -> None:
    async with receiving(MemoryLog()) as server:
        for method in ("POST", "GET"):
            status, _, body = await ask(server, method, path, body=b"[]" if method == "POST" else b"")
            assert status == 404
            assert text in body
            assert "/v1/traces" in body
            assert "/v1/metrics or /v1/logs" in body


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_grpc_on_the_http_port_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    log = MemoryLog()
    async with receiving(log) as server:
        for _ in range(5):
            target = f"127.0.0.1:{server.http_port}"
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
            async with grpc.aio.insecure_channel(target, options=options) as channel:
                with pytest.raises(grpc.aio.AioRpcError):
                    await export(channel, traces(0, 1), timeout=20)
        async with grpc_client(server) as channel:
            await export(channel, traces(0, 1))
    (line,) = lines(caplog)
    assert "gRPC (HTTP/2) on the port of OTLP/HTTP" in line
    assert "ingest.grpc_port" in line
    assert not any(record.exc_info for record in caplog.records)
    assert log.span_ids() == span_ids(0, 1)


@pytest.mark.component("native")
async def test_http_on_the_grpc_port_is_answered_and_one_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = MemoryLog()
    async with receiving(log, receiver="native") as server:
        for _ in range(5):
            async with (
                aiohttp.ClientSession() as session,
                session.post(
                    f"http://127.0.0.1:{server.grpc_port}/v1/traces",
                    data=traces(0, 1),
                    headers={"Content-Type": PROTOBUF},
                ) as response,
            ):
                assert response.status == 400
                assert "OTLP/HTTP is taken on the port of ingest.http_port" in await response.text()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.grpc_port)
        writer.write(b"G")
        await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await reader.read()
        async with grpc_client(server) as channel:
            await export(channel, traces(0, 1))
    logged = [line for line in lines(caplog) if "spoken to in another protocol" in line]
    assert 1 <= len(logged) <= 2, "the first at once, the rest together"
    assert all("HTTP/1.1" in line for line in logged)
    assert not any(record.exc_info for record in caplog.records)
    assert log.span_ids() == span_ids(0, 1)


async def test_grpcio_ends_a_connection_of_http_and_says_nothing_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It answers with frames of HTTP/2, before any code of a server is asked; others are served."""
    log = MemoryLog()
    async with receiving(log, receiver="grpcio") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.grpc_port)
        writer.write(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        heard = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        assert not heard.startswith(b"HTTP/")
        async with grpc_client(server) as channel:
            await export(channel, traces(0, 1))
    assert not lines(caplog)
    assert log.span_ids() == span_ids(0, 1)
