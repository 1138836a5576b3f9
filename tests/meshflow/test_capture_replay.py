"""Captured requests: read, told apart, moved in time, and sent in their rhythm to a real gRPC server."""

import asyncio
import gzip
import struct
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from meshflow.tools.capture import CaptureBroken, read_captures
from meshflow.tools.replay import METHODS, TargetUnreachable, replay
from schemas.errors import MalformedOtlp
from schemas.otlp.shift import Captured, read
from schemas.topics import LOGS, METRICS, SPANS

ENVOY = Path(__file__).parents[1] / "data" / "envoy"
FILES = {SPANS: ENVOY / "traces.bin.gz", METRICS: ENVOY / "metrics.bin.gz", LOGS: ENVOY / "logs.bin.gz"}


def request(start_ns: int, *, trace_id: bytes = b"t" * 16, offset_ns: int = 1000) -> bytes:
    message = ExportTraceServiceRequest()
    span = message.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = trace_id, b"s" * 8, "call"
    span.start_time_unix_nano, span.end_time_unix_nano = start_ns, start_ns + offset_ns
    span.events.add(time_unix_nano=start_ns + 1, name="event")
    attribute = span.attributes.add(key="when_unix_nano")
    attribute.value.int_value = start_ns
    return bytes(message.SerializeToString())


def write(path: Path, requests: Sequence[bytes]) -> Path:
    path.write_bytes(b"".join(struct.pack(">I", len(body)) + body for body in requests))
    return path


@pytest.mark.parametrize(
    ("topic", "requests", "items"), [(SPANS, 490, 2195), (METRICS, 360, 91454), (LOGS, 626, 2195)]
)
def test_signals_are_told_apart_whatever_the_file_is_called(
    tmp_path: Path, topic: str, requests: int, items: int
) -> None:
    misnamed = tmp_path / ("metrics.bin" if topic == SPANS else "traces.bin")
    misnamed.write_bytes(gzip.decompress(FILES[topic].read_bytes()))
    captured = list(read_captures([misnamed]))
    assert {one.topic for one in captured} == {topic}
    assert (len(captured), sum(one.items for one in captured)) == (requests, items)


def test_files_are_merged_by_time_and_bytes_are_reported() -> None:
    reported: list[int] = []
    captured = list(read_captures(list(FILES.values()), reported.append))
    assert len(captured) == 490 + 360 + 626
    order = [one.topic for one in captured]
    assert sum(left != right for left, right in pairwise(order)) > 100
    assert sum(reported) == sum(path.stat().st_size for path in FILES.values())


def test_every_time_moves_by_the_same_amount_and_nothing_else_does() -> None:
    base_ns = 1_700_000_000_000_000_000
    before = ExportTraceServiceRequest.FromString(request(base_ns))
    after = ExportTraceServiceRequest.FromString(read(request(base_ns)).shifted(5))
    span = after.resource_spans[0].scope_spans[0].spans[0]
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (base_ns + 5, base_ns + 1005)
    assert span.events[0].time_unix_nano == base_ns + 6
    assert span.attributes[0].value.int_value == base_ns
    assert read(after.SerializeToString()).shifted(-5) == before.SerializeToString()


def test_envoys_start_times_in_microseconds_stay_microseconds() -> None:
    captured = next(iter(read_captures([FILES[METRICS]])))
    moved = type(captured.message).FromString(captured.shifted(1_000_000_000))

    def starts(message: Any) -> list[int]:
        metrics = [
            metric
            for metric in message.resource_metrics[0].scope_metrics[0].metrics
            if metric.HasField("sum")
        ]
        return [point.start_time_unix_nano for metric in metrics for point in metric.sum.data_points]

    assert starts(captured.message)
    assert {
        after - before for before, after in zip(starts(captured.message), starts(moved), strict=True)
    } == {1_000_000}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0", "ends within the length of request 1"),
        (b"\0\0\0\x09abc", "ends within request 1"),
        (b"#!/bin/sh\n" * 3, "is not a capture"),
        (struct.pack(">I", 3) + b"\xff\xff\xff", "request 1 is not an OTLP Export request"),
        (b"\x1f\x8b" + b"garbage" * 5, "cannot be unpacked"),
    ],
)
def test_what_is_no_capture_is_a_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "capture.bin"
    path.write_bytes(content)
    with pytest.raises(CaptureBroken, match=message):
        list(read_captures([path]))
    with pytest.raises(MalformedOtlp):
        read(b"\xff\xff")


class Receiver:
    """A gRPC server that keeps what comes, and answers as the test says."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.answer: bytes | grpc.StatusCode = b""
        self.target = ""

    async def export(self, body: bytes, context: Any) -> bytes:
        self.came.append(body)
        if isinstance(self.answer, grpc.StatusCode):
            await context.abort(self.answer, "as planned")
        assert isinstance(self.answer, bytes)
        return self.answer


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = grpc.aio.server()
    for path in METHODS.values():
        _, service, method = path.split("/")
        handlers = {method: grpc.unary_unary_rpc_method_handler(receiver.export)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    receiver.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield receiver
    await server.stop(0)


def captured(*starts_ms: int) -> list[Captured]:
    return [read(request(1_700_000_000_000_000_000 + start * 1_000_000)) for start in starts_ms]


async def test_rhythm_is_kept_and_the_first_request_is_now(receiver: Receiver) -> None:
    sent_after: list[float] = []

    def requests() -> Iterator[Captured]:
        began = time.monotonic()
        for one in captured(0, 200, 400):
            yield one
            sent_after.append(time.monotonic() - began)

    before_ns = time.time_ns()
    result = await replay(requests(), receiver.target, now=True, speed=2.0)
    assert result.accepted == {SPANS: 3}
    assert [took >= due for took, due in zip(sent_after, (0, 0.099, 0.199), strict=True)] == [True] * 3
    newest = sorted(read(body).newest_ns for body in receiver.came)
    assert before_ns <= newest[0] <= time.time_ns()
    assert [ns - newest[0] for ns in newest] == [0, 200_000_000, 400_000_000]


async def test_without_now_bytes_are_sent_as_they_were(receiver: Receiver) -> None:
    requests = captured(0, 60_000, 120_000)
    await asyncio.wait_for(replay(requests, receiver.target, now=False, speed=0), 30)
    assert sorted(receiver.came) == sorted(one.message.SerializeToString() for one in requests)


async def test_rejected_items_and_failed_requests_are_counted(receiver: Receiver) -> None:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 1
    response.partial_success.error_message = "a bad id"
    receiver.answer = response.SerializeToString()
    rejected = await replay(captured(0, 0), receiver.target, now=False, speed=0)
    assert (rejected.accepted[SPANS], rejected.rejected[SPANS], rejected.reasons) == (0, 2, {"a bad id": 2})
    receiver.answer = grpc.StatusCode.RESOURCE_EXHAUSTED
    failed = await replay(captured(0), receiver.target, now=False, speed=0)
    assert (failed.failed, failed.accepted[SPANS], failed.reasons) == (
        1,
        0,
        {"RESOURCE_EXHAUSTED: as planned": 1},
    )


async def test_nobody_at_the_target_is_a_clear_error() -> None:
    with pytest.raises(TargetUnreachable, match=r"127\.0\.0\.1:1"):
        await replay(captured(0), "127.0.0.1:1", now=False, speed=0, connect_s=0.3)
