"""A caller behind a real Envoy, whose upstreams fail in every way that a caller sees: nobody listens (UF), no
answer (UT), the connection ends (UC), 503, retries that end the same way (URX), an open breaker (UO), no host
(UH), no route (NR).

Only ``good`` and ``flaky`` have an Envoy of their own, and so spans.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from tests.support.kafka.ports import reserve_port
from tests.support.mesh.bootstrap import LOOPBACK, Listener, Proxy, Route, Upstream
from tests.support.mesh.mesh import Envoys, application, running_envoys

COUNTERS = {
    "total": "upstream_rq_total",
    "retries": "upstream_rq_retry",
    "connect_failures": "upstream_cx_connect_fail",
    "timeouts": "upstream_rq_timeout",
    "overflow": "upstream_rq_pending_overflow",
    "no_host": "upstream_cx_none_healthy",
}
"""What a test calls counters of an Envoy cluster, and what Envoy does."""

TIMES = 3
ONCE = ("good", "refusing", "silent", "closing", "unavailable", "unreachable", "nobody")
RETRIED = ("flaky", "refusing_retried", "silent_retried", "closing_retried", "unavailable_retried")
BURST = 8
"""Calls at once to ``busy``, which takes one and lets two wait."""

_TIMED_OUT = {"silent", "silent_retried", "unreachable"}
_NEVER = "60s"


@dataclass(frozen=True)
class FailingMesh:
    """A running caller."""

    envoys: Envoys
    caller: Proxy
    port: int

    async def drive(self) -> None:
        """TIMES calls to each upstream, one after the other; BURST at once to ``busy``; TIMES to no route."""
        async with aiohttp.ClientSession(f"http://{LOOPBACK}:{self.port}") as client:

            async def call(path: str, times: int) -> None:
                for _ in range(times):
                    async with client.get(f"/{path}/") as response:
                        await response.read()

            paths = (*ONCE, *RETRIED, "missing")
            await asyncio.gather(
                *(call(path, TIMES) for path in paths), *(call("busy", 1) for _ in range(BURST))
            )

    async def counters(self) -> Mapping[str, Mapping[str, int]]:
        """Envoy cluster to COUNTERS."""
        stats = await self.envoys.stats(self.caller)
        return {
            upstream.name: {
                name: stats.get(f"cluster.{upstream.name}.{counter}", 0) for name, counter in COUNTERS.items()
            }
            for upstream in self.caller.upstreams
        }


@asynccontextmanager
async def running_failing_mesh(
    folder: Path, otlp_port: int, *, service: str, spawn_upstream_span: bool
) -> AsyncIterator[FailingMesh]:
    """Start upstreams and Envoys, which export to ``otlp_port``; all have ended afterwards."""
    ports = iter(reserve_port, 0)
    async with AsyncExitStack() as stack:
        fine, broken, slow = next(ports), next(ports), next(ports)
        for port, serve in ((fine, _fine), (broken, _unavailable), (slow, _slow)):
            await stack.enter_async_context(application(port, serve))
        silent = await stack.enter_async_context(_accepting(_wait))
        closing = await stack.enter_async_context(_accepting(_close))
        unreachable = stack.enter_context(_full_backlog())
        good, flaky = (
            Proxy(
                f"{name}-of-{service}",
                f"{name}-of-{service}",
                "v1",
                next(ports),
                (Listener(next(ports), "INBOUND", (Route("in", "/", (("app", 1),)),), spawn_upstream_span),),
                (Upstream("app", (app,)),),
            )
            for name, app in (("good", fine), ("flaky", broken))
        )
        refusing = next(ports)
        upstreams = {
            "good": good.listeners[0].port,
            "flaky": flaky.listeners[0].port,
            "refusing": refusing,
            "refusing_retried": refusing,
            "silent": silent,
            "silent_retried": silent,
            "closing": closing,
            "closing_retried": closing,
            "unavailable": broken,
            "unavailable_retried": broken,
            "unreachable": unreachable,
        }
        routes = [_once(name) for name in (*ONCE, "busy")] + [_retried(name) for name in RETRIED]
        caller = Proxy(
            f"{service}-0",
            service,
            "v1",
            next(ports),
            (Listener(next(ports), "OUTBOUND", tuple(routes), spawn_upstream_span),),
            (
                *(Upstream(name, (port,)) for name, port in upstreams.items()),
                Upstream("busy", (slow,), max_requests=1),
                Upstream("nobody", ()),
            ),
        )
        envoys = await stack.enter_async_context(running_envoys((caller, good, flaky), folder, otlp_port))
        yield FailingMesh(envoys, caller, caller.listeners[0].port)


def _once(name: str) -> Route:
    return Route(name, f"/{name}/", ((name, 1),), "0.8s" if name in _TIMED_OUT else _NEVER)


def _retried(name: str) -> Route:
    per_try = "0.6s" if name in _TIMED_OUT else _NEVER
    return Route(name, f"/{name}/", ((name, 1),), _NEVER, 2, per_try)


async def _fine(_: web.Request) -> web.Response:
    return web.Response(text="{}")


async def _unavailable(_: web.Request) -> web.Response:
    return web.Response(status=503)


async def _slow(_: web.Request) -> web.Response:
    await asyncio.sleep(0.2)
    return web.Response(text="{}")


async def _wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the caller goes."""
    while await reader.read(1 << 16):
        pass
    writer.close()


async def _close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """After a request's head."""
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


_Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _accepting(peer: _Peer) -> AsyncIterator[int]:
    """A port that takes connections."""
    server = await asyncio.start_server(peer, LOOPBACK, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextmanager
def _full_backlog() -> Iterator[int]:
    """A port where one connection waits to be accepted, and the kernel drops the SYNs of others."""
    with socket.create_server((LOOPBACK, 0), backlog=0) as server:
        port = server.getsockname()[1]
        with socket.create_connection((LOOPBACK, port)):
            yield port
