"""The SQL port over a plain socket: requests that no HTTP library would send, and an engine that answers at
once.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from console.port import MetricsServer
from console.server import SqlServer
from console.settings import ConsoleSettings
from schemas.sql import Answer, Limits, Query

LONG_S = 60.0
"""How long anything that must happen may take on a busy machine."""


class SameAnswer:
    """An engine that gives one answer to every statement."""

    def __init__(self, body: bytes = b"1\n") -> None:
        self.body = body
        self.asked: list[Query] = []
        self.rows: list[bytes] = []

    def execute(self, query: Query, limits: Limits) -> Answer:
        self.asked.append(query)
        if query.data:
            self.rows.append(query.data.read_bytes())
        return Answer(bytes(bytearray(self.body)), "TabSeparated", 0, 0)  # a copy, as an engine would make

    def interrupt(self) -> None:
        """Nothing runs for long."""

    def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def serving(
    engine: Any = None, rows_folder: Path | None = None, **settings: Any
) -> AsyncIterator[SqlServer]:
    """A running SQL port."""
    given = {"sql_port": 0, "client_timeout": timedelta(seconds=LONG_S), **settings}
    server = SqlServer(ConsoleSettings(**given), engine or SameAnswer(), rows_folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@dataclass
class Reply:
    """What came back; ``status`` 0 where the connection ended without an answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse(answer: bytes) -> Reply:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    return Reply(int(words[1]) if len(words) > 1 else 0, headers, body)


def request(
    path: str | bytes = "/",
    body: bytes = b"SELECT 1",
    *headers: str | bytes,
    method: str = "POST",
    host: str = "localhost",
) -> bytes:
    """A request that asks for the end of the connection; its length is added unless a header says one."""
    lines = [header if isinstance(header, bytes) else header.encode() for header in headers]
    if not any(line.lower().startswith((b"content-length", b"transfer-encoding")) for line in lines):
        lines.append(b"Content-Length: %d" % len(body))
    target = path if isinstance(path, bytes) else path.encode()
    first = method.encode() + b" " + target + b" HTTP/1.1"
    return b"\r\n".join([first, b"Host: " + host.encode(), b"Connection: close", *lines, b"", body])


def connect(server: SqlServer | MetricsServer, receive_buffer: int = 0) -> socket.socket:
    """A connection; with ``receive_buffer`` the system takes little for those who do not read."""
    client = socket.socket()
    client.settimeout(LONG_S)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", server.port))
    return client


def read_to_end(client: socket.socket) -> bytes:
    """All that comes until the other side ends the connection."""
    received = bytearray()
    try:
        while part := client.recv(1 << 16):
            received += part
    except ConnectionResetError:
        pass
    return bytes(received)


async def ask(server: SqlServer | MetricsServer, sent: bytes) -> Reply:
    """The answer to some bytes."""

    def work() -> Reply:
        with connect(server) as client:
            with suppress(ConnectionError):  # refused before all of it was sent: the answer says why
                client.sendall(sent)
            return parse(read_to_end(client))

    return await asyncio.to_thread(work)


async def eventually(happened: Any, what: str) -> None:
    """Wait until something happened."""
    async with asyncio.timeout(LONG_S):
        while not happened():  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
    assert happened(), what
