"""An HTTP port that answers to its own names alone: aiohttp behind the guard, with bounded connections and
headers.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from console.connections import Connections, fitted
from console.guard import make_guard, protocol_log, set_safe_headers
from console.names import Names
from console.settings import ConsoleSettings
from schemas.errors import AddressInUse

_LOGGER = logging.getLogger(__name__)

_LINGERING_S = 1.0
"""How long a refused body is read and thrown away, so that its sender sees the answer."""
_MAX_HEADERS = 64

Exposition = Callable[[], Awaitable[bytes]]
"""What /metrics answers."""


class Port:
    """Answers what ``app`` routes, while it runs. One event loop's."""

    def __init__(self, settings: ConsoleSettings, finish_s: float = 1.0) -> None:
        """``finish_s``: how long answers under way are waited for when the port stops."""
        self._settings = settings
        self._finish_s = finish_s
        guard = make_guard(
            Names(settings.host, settings.hosts),
            lambda request: self.expect(request, body=request.can_read_body),
        )
        self.app = web.Application(client_max_size=settings.max_request_size, middlewares=[guard])
        self.app.on_response_prepare.append(set_safe_headers)
        self._runner: web.AppRunner | None = None
        self._connections: Connections | None = None
        self._listener: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Answer on a socket that listens."""
        timeout_s = self._settings.client_timeout.total_seconds()
        self._runner = web.AppRunner(
            self.app,
            access_log=None,
            handle_signals=False,
            logger=protocol_log,
            auto_decompress=False,  # unpacked in threads, with errors that say what is wrong
            keepalive_timeout=timeout_s,
            lingering_time=_LINGERING_S,
            max_headers=_MAX_HEADERS,
            shutdown_timeout=self._finish_s,
        )
        await self._runner.setup()
        assert self._runner.server is not None
        limit = fitted(self._settings.max_connections)
        self._connections = Connections(self._runner.server, limit, timeout_s)
        self._listener = await asyncio.get_running_loop().create_server(self._connections, sock=listener)

    def close(self) -> None:
        """Take no more connections."""
        if self._listener:
            self._listener.close()

    async def stop(self) -> None:
        """Close the port; return when what is under way is answered, or is given up."""
        self.close()
        if self._runner:
            await self._runner.cleanup()

    def expect(self, request: web.Request, *, body: bool) -> None:
        """See :meth:`console.connections.Connections.expect`."""
        if self._connections:
            self._connections.expect(request, body=body)


class MetricsServer:
    """/metrics of a process that answers no SQL; who asks is checked as on the SQL port."""

    def __init__(self, settings: ConsoleSettings) -> None:
        self._settings = settings
        self._port = Port(settings)
        add_metrics(self._port.app)
        self.port = settings.metrics_port

    async def start(self) -> None:
        """Listen; :attr:`port` is then the real port: where the default one is taken, by another process of
        meshflow mostly, a free one. Raises AddressInUse for a port that was asked for.
        """
        listener = self._listener()
        self.port = listener.getsockname()[1]
        await self._port.start(listener)

    def _listener(self) -> socket.socket:
        host, port = self._settings.host, self._settings.metrics_port
        try:
            return _listen(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or "metrics_port" in self._settings.model_fields_set:
                raise AddressInUse(
                    f"{host}:{port} (console.metrics_port) cannot be listened on: {error.strerror};"
                    " choose another with --metrics-port"
                ) from error
        listener = _listen(host, 0)
        _LOGGER.warning(
            "%s:%d is taken, by another process of meshflow perhaps: /metrics is on port %d;"
            " set console.metrics_port to choose one",
            host, port, listener.getsockname()[1],
        )  # fmt: skip
        return listener

    async def stop(self) -> None:
        """Close the port."""
        await self._port.stop()


def add_metrics(app: web.Application, exposition: Exposition | None = None) -> None:
    """Answer /metrics with ``exposition``, or with this process's own metrics."""
    give = exposition or _own_metrics

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await give(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/metrics", metrics)


def listen_for_sql(host: str, port: int) -> socket.socket:
    """A socket that listens, for this process or one that inherits it. Raises AddressInUse."""
    try:
        return _listen(host, port)
    except OSError as error:
        raise AddressInUse(
            f"SQL cannot listen on {host}:{port}: {error.strerror}; choose another with --sql-port"
        ) from error


def _listen(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


async def _own_metrics() -> bytes:
    return generate_latest()
