"""What one peer can make a receiver hold or do, and what that leaves for the others: each limit is met, and
logged or answered.
"""

import gzip
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame

from ingest.http.encoding import PROTOBUF
from schemas.otlp.wire import framed
from tests.support.others import assert_others_are_served
from tests.support.receiving import LOGS, span_ids, traces
from tests.support.served import LONG_S, Served, eventually
from tests.support.wire import EXPORT, PREFACE, Wire, message

MIB = 1 << 20
GZIP = [*EXPORT, ("grpc-encoding", "gzip")]
native_only = pytest.mark.parametrize(
    "receiver", [pytest.param("native", marks=pytest.mark.component("native"))]
)


def records_in_as_many_scopes(records: int) -> bytes:
    """Log records of four bytes each, with what is around them."""
    return framed(1, b"\x12\x02\x12\x00" * records)


@native_only
def test_what_unpacks_to_very_many_records_costs_little_and_holds_up_nobody(
    tmp_path: Path, receiver: str
) -> None:
    """61 KB packed, 60 MiB unpacked. While it is read, others ask for the receiver's health, over and
    over.
    """
    request = records_in_as_many_scopes(15 * MIB)
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with (
        Served(tmp_path, receiver, buffer_size="512MiB") as served,
        grpc.insecure_channel(served.target, options) as channel,
    ):
        export = channel.unary_unary(LOGS)
        assert export(records_in_as_many_scopes(1), timeout=LONG_S) == b""
        before_bytes = served.rss_bytes()
        served.forget_peak()
        with ThreadPoolExecutor(1) as threads, grpc.insecure_channel(served.target, options[1:]) as other:
            health, done = health_pb2_grpc.HealthStub(other), threading.Event()

            def longest_check_s() -> float:
                longest_s = 0.0
                while not done.is_set():
                    began_s = time.monotonic()
                    health.Check(health_pb2.HealthCheckRequest(), timeout=LONG_S)
                    longest_s = max(longest_s, time.monotonic() - began_s)
                    time.sleep(0.01)
                return longest_s

            checking = threads.submit(longest_check_s)
            began_s = time.monotonic()
            assert export(request, compression=grpc.Compression.Gzip, timeout=LONG_S) == b""
            took_s = time.monotonic() - began_s
            done.set()
            assert checking.result() < max(1.5, took_s * 0.6)
        assert served.peak_bytes() - before_bytes < 512 * MIB, "a few times what it unpacks to"


@native_only
def test_large_requests_wait_within_limits(tmp_path: Path, receiver: str) -> None:
    """All of them come at once, and whole; each takes a while to read. Not all of them are kept until
    then.
    """
    bomb = message(gzip.compress(bytes(24 * MIB)), compressed=True)  # 24 KB: 40 of them fit into the window
    with Served(tmp_path, receiver, max_message="32MiB") as served, Wire(served.grpc_port) as wire:
        wire.begin()
        assert wire.is_alive()  # it has opened its window
        streams = range(1, 81, 2)
        wire.send(b"".join(wire.request(stream, bomb, GZIP) for stream in streams))
        for stream in streams:
            wire.listen(stream)
        statuses = [wire.heard.status(stream) for stream in streams]
        assert set(statuses) == {"3", "8"}, "what is unpacked is not OTLP; some had no place to wait"
        assert "max_receiving" in wire.heard.headers[streams[statuses.index("8")]]["grpc-message"]
        wire.send(
            wire.request(81, message(gzip.compress(traces(0, 1000, padding=2000)), compressed=True), GZIP)
        )
        assert wire.listen(81).status(81) == "0"


@native_only
def test_one_peer_leaves_room_for_others(tmp_path: Path, receiver: str) -> None:
    """It begins as many messages as it may, and ends none; others send what comes in pieces."""
    with (
        Served(tmp_path, receiver, max_receiving="8MiB", max_message="1MiB") as served,
        Wire(served.grpc_port) as greedy,
    ):
        greedy.begin()
        assert greedy.is_alive()
        for stream in range(1, 129, 2):
            piece = message(bytes(8000), length=MIB)
            greedy.send_frames(
                greedy.headers(stream), DataFrame(stream, piece), *[DataFrame(stream, bytes(16_000))] * 3
            )
            if stream % 16 == 15:
                assert greedy.is_alive()  # it has read all of it, and opened the window again
        heard = greedy.listen(127)
        assert heard.status(127) == "8"
        assert "max_receiving" in heard.headers[127]["grpc-message"]
        with Wire(served.grpc_port) as other:
            other.begin()
            body = message(traces(0, 400, padding=2000))
            other.send_frames(other.headers(1), DataFrame(1, body[:16_000]))
            assert other.is_alive()
            frames = [
                DataFrame(1, body[start : start + 16_000]) for start in range(16_000, len(body), 16_000)
            ]
            other.send_frames(*frames, DataFrame(1, b"", flags=["END_STREAM"]))
            assert other.listen(1).status(1) == "0"
        greedy.__exit__()
        assert served.stop() == 0
        assert sorted(served.span_ids()) == span_ids(0, 400)


def test_bodies_over_http_are_bounded_together(tmp_path: Path, receiver: str) -> None:
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {MIB}\r\n\r\n".encode()
    with (
        Served(tmp_path, receiver, max_receiving="4MiB", max_message="1MiB", retry_after="2s") as served,
        ExitStack() as stack,
    ):
        peers = [
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", served.http_port), LONG_S)))
            for _ in range(8)
        ]
        for peer in peers:
            with suppress(ConnectionError):  # turned away, and gone
                peer.sendall(head + bytes(900_000))
        answers = dict[socket.socket, bytes]()
        while len(answers) < 4:
            readable, _, _ = select.select([peer for peer in peers if peer not in answers], [], [], LONG_S)
            assert readable, "four of eight have to be turned away"
            answers.update({peer: peer.recv(1 << 16) for peer in readable})
        for answer in answers.values():
            assert answer.startswith(b"HTTP/1.1 429")
            assert b"Retry-After: 2\r\n" in answer
        assert_others_are_served(served)
        assert not select.select([peer for peer in peers if peer not in answers], [], [], 0)[0], (
            "the other four go on"
        )


def test_a_low_limit_of_files_is_raised(tmp_path: Path, receiver: str) -> None:
    with (
        Served(tmp_path, receiver, ulimit="-Sn 200", max_connections=1000, max_http_connections=10) as served,
        ExitStack() as stack,
    ):
        wires = [stack.enter_context(Wire(served.grpc_port)).begin() for _ in range(400)]
        assert all(wire.is_alive() for wire in wires)
        assert_others_are_served(served)
        assert "ulimit" not in served.said


def test_where_files_are_few_connections_are_fewer_and_it_is_said(tmp_path: Path, receiver: str) -> None:
    """700 files, half of them for the process itself."""
    with Served(tmp_path, receiver, ulimit="-n 700") as served:
        assert "311 gRPC and 38 HTTP connections" in served.said
        with ExitStack() as stack:
            wires = [stack.enter_context(Wire(served.grpc_port)).begin() for _ in range(311)]
            assert all(wire.is_alive() for wire in wires)
            for _ in range(100):
                with Wire(served.grpc_port) as late:
                    late.begin()
                    late.listen()
            assert served.open_files() < 500
            wires[0].__exit__()
            assert_others_are_served(served)


@native_only
def test_connections_that_cannot_be_accepted_are_logged(tmp_path: Path, receiver: str) -> None:
    with Served(tmp_path, receiver) as served:
        assert_others_are_served(served)
        files = served.open_files()
        served.limit_files(files)
        with ExitStack() as stack:
            wires = [stack.enter_context(Wire(served.grpc_port)) for _ in range(20)]
            eventually(lambda: "could not be accepted" in served.said, "the log says so")
            assert "Too many open files" in served.said
            served.limit_files(files + 500)
            assert all(wire.begin().is_alive() for wire in wires)
        assert_others_are_served(served)
        assert served.said.count("could not be accepted") < 10, "now and then, not each time"


def test_http_connections_beyond_the_limit_are_closed(tmp_path: Path, receiver: str) -> None:
    with Served(tmp_path, receiver, max_http_connections=5) as served, ExitStack() as stack:
        peers = [
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", served.http_port), LONG_S)))
            for _ in range(10)
        ]
        assert [is_open_http(peer) for peer in peers] == [True] * 5 + [False] * 5
        peers[0].close()

        def is_served() -> bool:
            with closing(socket.create_connection(("127.0.0.1", served.http_port), LONG_S)) as peer:
                return is_open_http(peer)

        eventually(is_served, "a connection that ended makes place for another")


def is_open_http(peer: socket.socket) -> bool:
    """Whether a connection is served."""
    peer.settimeout(LONG_S)
    try:
        peer.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        return peer.recv(1 << 16).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False


def test_an_old_connection_is_asked_to_go_and_then_cut_off(tmp_path: Path, receiver: str) -> None:
    """One with a request that does not end goes on, in grace; the other is done at once."""
    ages: dict[str, Any] = {"max_connection_age": "1s", "max_connection_age_grace": "2s"}
    with (
        Served(tmp_path, receiver, **ages) as served,
        Wire(served.grpc_port) as busy,
        Wire(served.grpc_port) as idle,
    ):
        idle.begin()
        busy.begin().send_frames(busy.headers(1), DataFrame(1, message(b"abc", length=1000)))
        heard = idle.listen()
        assert heard.goaway == 0
        began_s = time.monotonic()
        heard = busy.listen_for(lambda heard: heard.goaway is not None, "GOAWAY")
        assert heard.goaway == 0
        assert busy.listen().closed
        assert time.monotonic() - began_s < LONG_S / 2, "after its grace, not after body_timeout"


def test_an_idle_peer_that_answers_pings_stays(tmp_path: Path, receiver: str) -> None:
    with (
        Served(tmp_path, receiver, keepalive_time="1s", keepalive_timeout="30s") as served,
        Wire(served.grpc_port) as wire,
    ):
        wire.begin().listen_for(lambda heard: heard.pinged >= 3, "three pings")
        wire.send(wire.request(1, message(traces(0, 1))))
        assert wire.listen(1).status(1) == "0"


@native_only
@pytest.mark.parametrize(
    "sent",
    [b"", PREFACE[:7], PREFACE + SettingsFrame(0).serialize()],
    ids=["nothing", "half a preface", "settings"],
)
def test_a_peer_that_went_silent_does_not_hold_up_a_stop(tmp_path: Path, receiver: str, sent: bytes) -> None:
    with (
        Served(tmp_path, receiver, drain_time="60s", keepalive_timeout="60s") as served,
        Wire(served.grpc_port) as wire,
    ):
        wire.send(sent)
        assert_others_are_served(served)
        began_s = time.monotonic()
        assert served.stop() == 0
        assert time.monotonic() - began_s < 30
        assert wire.listen().closed


def test_who_stops_says_so_to_those_who_are_connected(tmp_path: Path, receiver: str) -> None:
    with Served(tmp_path, receiver) as served, Wire(served.grpc_port) as wire:
        wire.begin()
        assert wire.is_alive()
        with ThreadPoolExecutor(1) as threads:
            stopping = threads.submit(served.stop)
            assert wire.listen().goaway == 0
            assert stopping.result() == 0


@native_only
def test_headers_alone_take_a_place_and_are_counted(tmp_path: Path, receiver: str) -> None:
    """max_concurrent_streams: those beyond are refused, so that a client that keeps to the rules waits."""
    with Served(tmp_path, receiver, max_concurrent_streams=10) as served, Wire(served.grpc_port) as wire:
        wire.begin()
        for stream in range(1, 41, 2):
            wire.send_frames(HeadersFrame(stream, wire.encode(EXPORT), flags=["END_HEADERS"]))
        assert wire.is_alive()
        refused = {stream for stream, code in wire.heard.resets.items() if code == 7}
        assert refused == set(range(21, 41, 2))
