"""The HTTP receiver, through a real client: status codes and bodies as the OTLP specification has them."""

import asyncio
import contextlib
import gzip
import io
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from prometheus_client import REGISTRY

from ingest.admission import RequestTooLarge
from ingest.http.encoding import JSON, PROTOBUF
from ingest.http.server import PATHS
from ingest.http.unpacking import gunzip
from ingest.server import IngestServer
from schemas import topics
from schemas.errors import LogFull, LogUnavailable, MalformedOtlp
from tests.support.memory_log import MemoryLog
from tests.support.receiving import Serve, span_ids, traces

SPAN = {
    "traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "eee19b7ec3c1b174",
    "name": "GET /",
    "kind": 2,
}


def traces_json(*spans: dict[str, Any]) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


@contextlib.asynccontextmanager
async def client(server: IngestServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.http_port}") as session:
        yield session


async def post(
    session: aiohttp.ClientSession,
    body: bytes,
    content_type: str = PROTOBUF,
    path: str = "/v1/traces",
    encoding: str = "",
) -> tuple[aiohttp.ClientResponse, bytes]:
    headers = {"Content-Type": content_type} | ({"Content-Encoding": encoding} if encoding else {})
    async with session.post(path, data=io.BytesIO(body), headers=headers) as response:
        return response, await response.read()


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_protobuf_is_in_the_log_when_the_answer_comes(serve: Serve, encoding: str) -> None:
    log = MemoryLog()
    body = traces(0, 200)
    async with serve(log) as server, client(server) as session:
        response, answer = await post(session, gzip.compress(body) if encoding else body, encoding=encoding)
        assert (response.status, response.content_type, answer) == (200, PROTOBUF, b"")
        assert sorted(log.span_ids()) == span_ids(0, 200)


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_json_is_in_the_log_when_the_answer_comes(serve: Serve, encoding: str) -> None:
    log = MemoryLog()
    body = traces_json(SPAN)
    async with serve(log) as server, client(server) as session:
        response, answer = await post(
            session, gzip.compress(body) if encoding else body, JSON + "; charset=utf-8", encoding=encoding
        )
        assert (response.status, response.content_type, answer) == (200, JSON, b"{}")
    assert log.span_ids() == [bytes.fromhex("eee19b7ec3c1b174")]


async def test_large_bodies_are_read_off_the_loop(serve: Serve) -> None:
    log = MemoryLog()
    async with serve(log) as server, client(server) as session:
        response, _ = await post(session, traces(0, 3000, padding=1000))
        assert response.status == 200
        response, _ = await post(session, gzip.compress(traces(3000, 3000, padding=1000)), encoding="gzip")
        assert response.status == 200
    assert sorted(log.span_ids()) == span_ids(0, 6000)
    assert server.held_bytes == 0


async def test_metrics_and_logs_in_json(serve: Serve) -> None:
    log = MemoryLog()
    metrics = {
        "resourceMetrics": [
            {"scopeMetrics": [{"metrics": [{"name": "up", "gauge": {"dataPoints": [{"asInt": "1"}]}}]}]}
        ]
    }
    logs = {
        "resourceLogs": [
            {"scopeLogs": [{"logRecords": [{"body": {"stringValue": "hello"}, "traceId": SPAN["traceId"]}]}]}
        ]
    }
    async with serve(log) as server, client(server) as session:
        assert (await post(session, json.dumps(metrics).encode(), JSON, "/v1/metrics"))[0].status == 200
        assert (await post(session, json.dumps(logs).encode(), JSON, "/v1/logs"))[0].status == 200
    assert log.metric_names() == ["up"]
    assert log.log_bodies() == ["hello"]


async def test_bad_ids_are_a_partial_success(serve: Serve) -> None:
    log = MemoryLog()
    request = TracesData.FromString(traces(0, 3))
    request.resource_spans[0].scope_spans[0].spans[0].span_id = b"bad"
    async with serve(log) as server, client(server) as session:
        response, answer = await post(session, request.SerializeToString())
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
        assert (response.status, partial.rejected_spans) == (200, 1)
        assert "span id" in partial.error_message
        response, answer = await post(session, traces_json(SPAN, SPAN | {"traceId": "abcd"}), JSON)
        said = json.loads(answer)["partialSuccess"]
        assert (response.status, said["rejectedSpans"]) == (200, "1")
        assert "trace id" in said["errorMessage"]
    assert log.counts("rejected") == 2


ZIP_BOMB = gzip.compress(bytes(64 << 20))


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "status"),
    [
        (b"not OTLP", PROTOBUF, "", 400),
        (traces(0, 2)[:-1], PROTOBUF, "", 400),
        (b"{", JSON, "", 400),
        (b"", JSON, "", 400),
        (b"[]", JSON, "", 400),
        (b'{"resourceSpans": 5}', JSON, "", 400),
        (traces_json(SPAN | {"traceId": "not hex!"}), JSON, "", 400),
        (traces_json(SPAN | {"kind": {}}), JSON, "", 400),
        (b'{"resourceSpans":' + b"[" * 2000 + b"]" * 2000 + b"}", JSON, "", 400),
        (traces(0, 2), PROTOBUF, "gzip", 400),
        (gzip.compress(traces(0, 2))[:-10], PROTOBUF, "gzip", 400),
        (ZIP_BOMB, PROTOBUF, "gzip", 413),
        (ZIP_BOMB, JSON, "gzip", 413),
        (bytes(2 << 20), PROTOBUF, "", 413),
        (b" " * (1 << 20), JSON, "", 413),
    ],
    ids=[
        "garbage", "truncated", "not JSON", "empty JSON", "JSON list", "wrong JSON type", "not hex", "no enum", "deep JSON",
        "not gzip", "truncated gzip", "zip bomb", "JSON zip bomb", "too large", "too large JSON",
    ],
)  # fmt: skip
async def test_a_bad_request_is_answered_why_in_its_own_encoding(
    serve: Serve, body: bytes, content_type: str, encoding: str, status: int
) -> None:
    log = MemoryLog()
    async with serve(log, max_message="1MiB", max_json_message="512KiB") as server, client(server) as session:
        response, answer = await post(session, body, content_type, encoding=encoding)
        assert (response.status, response.content_type) == (status, content_type)
        said = json.loads(answer)["message"] if content_type == JSON else Status.FromString(answer).message
        assert said
        assert "Retry-After" not in response.headers
        assert (await post(session, traces(0, 1)))[0].status == 200
    assert log.span_ids() == span_ids(0, 1)


async def test_a_body_of_unknown_length_is_bounded(serve: Serve) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 16)

    async with (
        serve(MemoryLog(), max_message="1MiB") as server,
        client(server) as session,
        session.post("/v1/traces", data=endless(), headers={"Content-Type": PROTOBUF}) as response,
    ):
        assert response.status == 413


async def test_bodies_that_have_not_come_to_their_end_are_bounded_together(serve: Serve) -> None:
    """Half of a body takes the room; another one is turned away; the answer says when to come again."""

    def counted() -> float:
        return (
            REGISTRY.get_sample_value(
                "meshflow_ingest_unread_requests_total", {"protocol": "http", "topic": topics.SPANS}
            )
            or 0
        )

    before, log, rest = counted(), MemoryLog(), asyncio.Event()
    half, body = traces(0, 10, padding=30_000), traces(10, 10, padding=30_000)

    async def slow() -> AsyncIterator[bytes]:
        yield half[:200_000]
        await rest.wait()
        yield half[200_000:]

    async with serve(log, max_receiving="400KiB", retry_after="3s") as server, client(server) as session:
        first = asyncio.ensure_future(
            session.post("/v1/traces", data=slow(), headers={"Content-Type": PROTOBUF})
        )
        while server._http.receiving_bytes < 200_000:  # noqa: ASYNC110 - nothing else reports it
            await asyncio.sleep(0.01)
        response, answer = await post(session, body)
        assert (response.status, response.headers["Retry-After"]) == (429, "3")
        assert "max_receiving" in Status.FromString(answer).message
        assert counted() == before + 1
        rest.set()
        async with await first as response:
            assert response.status == 200
        assert (await post(session, body))[0].status == 200
    assert sorted(log.span_ids()) == span_ids(0, 20)


@pytest.mark.parametrize(
    ("content_type", "encoding"), [("text/plain", ""), (PROTOBUF, "br"), ("application/octet-stream", "")]
)
async def test_other_types_are_unsupported(serve: Serve, content_type: str, encoding: str) -> None:
    async with serve(MemoryLog()) as server, client(server) as session:
        response, answer = await post(session, b"", content_type, encoding=encoding)
        assert response.status == 415
        assert b"is not read here" in answer


async def test_other_methods_and_paths(serve: Serve) -> None:
    async with serve(MemoryLog()) as server, client(server) as session:
        async with session.get("/v1/traces") as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")
        async with session.post("/v1/unknown") as response:
            assert response.status == 404
        async with session.get("/health") as response:
            assert (response.status, await response.json()) == (200, {"status": "SERVING"})


@pytest.mark.parametrize(
    ("fault", "status", "retry_after"),
    [
        (LogUnavailable("away"), 503, "1"),
        (LogFull("full", retry_after_s=2.5), 429, "3"),
        (RuntimeError("a bug"), 500, None),
    ],
)
@pytest.mark.parametrize("content_type", [PROTOBUF, JSON])
async def test_what_the_log_does_not_take_is_not_acknowledged(
    serve: Serve, fault: Exception, status: int, retry_after: str | None, content_type: str
) -> None:
    faults: list[Exception] = [fault]
    log = MemoryLog(lambda: faults.pop() if faults else None)
    async with serve(log) as server, client(server) as session:
        response, answer = await post(
            session, traces_json(SPAN) if content_type == JSON else traces(0, 1), content_type
        )
        assert (response.status, response.content_type, response.headers.get("Retry-After")) == (
            status,
            content_type,
            retry_after,
        )
        if retry_after:
            assert b"google.rpc.RetryInfo" in answer
    assert log.span_ids() == []
    assert log.counts("refused") == 1


async def test_a_full_buffer_bounds_large_requests_too(serve: Serve) -> None:
    log = MemoryLog()
    log.open.clear()
    limit = 24 << 20
    async with serve(log, buffer_size=limit) as server, client(server) as session:
        bodies = {first: traces(first, 1000, padding=2000) for first in range(0, 20_000, 1000)}
        calls = {first: asyncio.ensure_future(post(session, body)) for first, body in bodies.items()}
        while sum(call.done() for call in calls.values()) < 10:
            assert server.held_bytes <= limit
            await asyncio.wait(
                [call for call in calls.values() if not call.done()], return_when=asyncio.FIRST_COMPLETED
            )
        log.open.set()
        statuses = {first: (await call)[0].status for first, call in calls.items()}
    assert set(statuses.values()) == {200, 429}
    taken = [
        identifier
        for first, status in statuses.items()
        if status == 200
        for identifier in span_ids(first, 1000)
    ]
    assert sorted(log.span_ids()) == taken


def test_every_topic_has_a_path() -> None:
    assert list(PATHS) == ["/v1/traces", "/v1/metrics", "/v1/logs"]


def test_gunzip_reads_several_members_and_stops_at_the_limit() -> None:
    members = gzip.compress(b"abc") + gzip.compress(b"def")
    assert gunzip(members, 6) == b"abcdef"
    assert gunzip(b"", 0) == b""
    with pytest.raises(RequestTooLarge):
        gunzip(members, 5)
    for end in range(1, len(members)):
        if end != len(gzip.compress(b"abc")):
            with pytest.raises(MalformedOtlp):
                gunzip(members[:end], 100)


def test_a_zip_bomb_is_not_unpacked_beyond_the_limit() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge):
            gunzip(ZIP_BOMB, 1 << 20)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 << 20
