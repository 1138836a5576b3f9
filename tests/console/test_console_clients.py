"""Clients that are silent, slow, many, or do not read: each ends in time, and others are served meanwhile."""

import asyncio
import gzip
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from console.connections import fitted
from console.server import SqlServer
from schemas.sql import Answer, Limits, Query
from tests.console.plain_http import (
    LONG_S,
    SameAnswer,
    ask,
    connect,
    eventually,
    parse,
    read_to_end,
    request,
    serving,
)

SHORT = timedelta(milliseconds=500)
MANY = 30
LARGE = os.urandom(1 << 20) * 30
SMALL_BUFFER = 4096


@contextmanager
def connections(
    server: SqlServer, count: int, sent: bytes, receive_buffer: int = 0
) -> Iterator[list[socket.socket]]:
    """So many clients that have sent something and then do nothing."""
    with ExitStack() as parts:
        clients = [parts.enter_context(connect(server, receive_buffer)) for _ in range(count)]
        for client in clients:
            client.sendall(sent)
        yield clients


SILENT = (b"", b"GET /", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Le")
IDLE = (
    b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\nGET /pi",
)


async def test_connections_without_a_request_are_closed() -> None:
    async with serving(client_timeout=SHORT) as server:
        with ExitStack() as parts:
            clients = [
                client
                for sent in SILENT + IDLE
                for client in parts.enter_context(connections(server, MANY // 3, sent))
            ]
            ends = await asyncio.gather(*(asyncio.to_thread(read_to_end, client) for client in clients))
    statuses = [parse(end).status for end in ends]
    assert statuses == [0] * (MANY // 3 * len(SILENT)) + [200] * (MANY // 3 * len(IDLE))


async def test_headers_that_come_byte_by_byte_are_not_waited_for() -> None:
    async with serving(client_timeout=SHORT) as server:
        with connections(server, 1, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ") as (client,):
            await asyncio.to_thread(trickle, client, b"x")


NEVER_ENDING = (
    request("/", b"SEL", "Content-Length: 8"),
    request("/", b"3\r\nSEL\r\n", "Transfer-Encoding: chunked"),
    request("/?decompress=1", b"0123", "Content-Length: 100"),
    request("/", gzip.compress(b"SELECT 1")[:9], "Content-Encoding: gzip", "Content-Length: 100"),
    request("/", b"--b\r\n", "Content-Type: multipart/form-data; boundary=b", "Content-Length: 100"),
)


async def test_bodies_that_never_end_keep_nobody_out() -> None:
    engine = SameAnswer()
    async with serving(
        engine, client_timeout=SHORT * 2, min_rate=1 << 30, max_queries=1, max_waiting_queries=0
    ) as server:
        with ExitStack() as parts:
            clients = [
                client
                for body in NEVER_ENDING
                for client in parts.enter_context(connections(server, MANY // 5, body))
            ]
            assert (await ask(server, request())).body == b"1\n"
            assert len(engine.asked) == 1
            ends = await asyncio.gather(*(asyncio.to_thread(read_to_end, client) for client in clients))
        assert {parse(end).status for end in ends} == {408}
        assert all(b"console.client_timeout" in end for end in ends)
        assert (await ask(server, request())).status == 200


async def test_bodies_that_come_byte_by_byte_end_too() -> None:
    async with serving(client_timeout=SHORT, min_rate=1 << 30) as server:
        with connections(server, 1, request("/", b"", "Transfer-Encoding: chunked")) as (client,):
            await asyncio.to_thread(trickle, client, b"1\r\n-\r\n")


def trickle(client: socket.socket, part: bytes) -> None:
    """Send until the other side has had enough."""
    try:
        while True:
            client.sendall(part)
            time.sleep(0.02)
    except ConnectionError:
        return


async def test_large_bodies_get_the_time_that_they_need(tmp_path: Path) -> None:
    engine = SameAnswer()
    rows = os.urandom(1 << 20)
    async with serving(engine, tmp_path, client_timeout=SHORT, min_rate=1024) as server:
        with connect(server) as client:
            client.sendall(
                request("/?query=INSERT+INTO+t+FORMAT+RowBinary", b"", f"Content-Length: {2 * len(rows)}")
            )
            client.sendall(rows)
            await asyncio.sleep(2 * SHORT.total_seconds())  # longer than client_timeout alone
            client.sendall(rows)
            assert parse(await asyncio.to_thread(read_to_end, client)).status == 200
    assert engine.rows == [rows * 2]
    assert os.listdir(tmp_path) == []


async def test_further_connections_are_closed_at_once() -> None:
    async with serving(max_connections=5) as server:
        with connections(server, 5, b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n") as clients:
            for client in clients:
                assert parse(await asyncio.to_thread(client.recv, 1 << 16)).status == 200
            assert (await ask(server, request())).status == 0
        await eventually_answers(server)


async def eventually_answers(server: SqlServer) -> None:
    async with asyncio.timeout(LONG_S):
        while (await ask(server, request())).status != 200:
            pass


def test_connections_leave_files_for_others(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert fitted(1) == 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        assert fitted(128) == 100
        assert "ulimit -n" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("accepted", ["identity", "gzip"])
async def test_answers_that_nobody_reads_are_bounded_and_dropped(accepted: str) -> None:
    sent = request("/", b"SELECT 1", f"Accept-Encoding: {accepted}")
    room = 2 * len(LARGE)
    async with serving(
        SameAnswer(LARGE),
        client_timeout=SHORT * 2,
        min_rate=1 << 30,
        max_held_size=room,
        max_waiting_queries=MANY,
    ) as server:
        with connections(server, MANY, sent, SMALL_BUFFER) as clients:
            await eventually(lambda: server.held_bytes > 0, "answers are held")
            most = 0
            async with asyncio.timeout(LONG_S):
                while server.held_bytes or server.under_way:
                    most = max(most, server.held_bytes)
                    await asyncio.sleep(0.01)
            ends = await asyncio.gather(*(asyncio.to_thread(read_to_end, client) for client in clients))
    assert 0 < most <= room
    refused = [end for end in ends if parse(end).headers.get("x-clickhouse-exception-code") == "202"]
    assert refused
    assert all(b"console.max_held_size" in end for end in refused)
    assert not any(len(end) > len(LARGE) for end in ends)


async def test_small_answers_are_given_while_large_ones_take_the_room() -> None:
    engine = SameAnswer(LARGE)
    async with serving(engine, max_held_size=len(LARGE)) as server:
        with connections(server, 1, request(), SMALL_BUFFER):
            await eventually(lambda: server.held_bytes > 0, "the large answer is held")
            engine.body = b"small\n"
            assert (await ask(server, request())).body == b"small\n"
        await eventually(lambda: server.held_bytes == 0, "nothing is held for who is gone")


async def test_an_answer_that_is_read_too_slowly_is_dropped() -> None:
    def sip(client: socket.socket) -> int:
        size = 0
        try:
            while part := client.recv(512):
                size += len(part)
        except ConnectionResetError:
            pass
        return size

    async with serving(SameAnswer(LARGE * 4), client_timeout=SHORT, min_rate=1 << 40) as server:
        with connections(server, 1, request(), SMALL_BUFFER) as (client,):
            assert await asyncio.to_thread(sip, client) < len(LARGE * 4)


async def test_pipelined_requests_of_who_does_not_read_end_too() -> None:
    sent = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2000
    async with serving(client_timeout=SHORT) as server:
        with connect(server, SMALL_BUFFER) as client:
            client.settimeout(None)
            await asyncio.to_thread(trickle, client, sent)


async def test_requests_of_who_does_not_wait_for_answers_are_bounded() -> None:
    engine = NoAnswer()
    sent = request("/", b"", *[f"X-{number}: {'x' * 8000}" for number in range(50)])
    first = request().replace(b"Connection: close\r\n", b"")
    async with serving(engine) as server:
        with connect(server) as client:
            client.sendall(first)
            await asyncio.to_thread(engine.began.wait)
            await asyncio.to_thread(trickle, client, sent)
            engine.ending.set()


class NoAnswer(SameAnswer):
    """An engine that answers when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()
        self.ending = threading.Event()

    def execute(self, query: Query, limits: Limits) -> Answer:
        self.began.set()
        self.ending.wait()
        return super().execute(query, limits)

    def interrupt(self) -> None:
        self.ending.set()


async def test_large_answers_come_whole() -> None:
    large = LARGE[: 5 << 20]
    async with serving(SameAnswer(large), max_queries=2) as server:
        plain, packed, head, old = await asyncio.gather(
            ask(server, request()),
            ask(server, request("/", b"SELECT 1", "Accept-Encoding: gzip")),
            ask(server, request("/?query=SELECT+1", b"", method="HEAD")),
            ask(server, request("/", b"SELECT 1", "Accept-Encoding: gzip").replace(b"HTTP/1.1", b"HTTP/1.0")),
        )
        assert server.held_bytes == 0
    assert plain.body == large
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(large)))
    assert packed.headers["content-encoding"] == old.headers["content-encoding"] == "gzip"
    assert gzip.decompress(unchunked(packed.body)) == gzip.decompress(old.body) == large


def unchunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    position = 0
    while True:
        end = body.index(b"\r\n", position)
        size = int(body[position:end], 16)
        if not size:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        position = end + 2 + size + 2
