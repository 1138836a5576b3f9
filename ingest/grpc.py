"""OTLP/gRPC: the three Export methods on raw bytes, and ``grpc.health.v1``.

OTLP specification, "OTLP/gRPC". A request costs some 0.5 ms of CPU in grpcio whatever its size, so the way
through here is short: no message objects, one empty answer for all.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.rpc import code_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ingest.admission import UNAUTHENTICATED, Refusal
from ingest.pending import REQUEST_OVERHEAD_BYTES
from ingest.receive import Receiver
from ingest.security import Credentials, TlsIdentity, authorize
from ingest.settings import IngestSettings
from schemas import self_metrics, topics
from schemas.errors import AddressInUse
from schemas.otlp.responses import FULL_SUCCESS, partial_success
from schemas.units import Duration

SERVICES = {
    "opentelemetry.proto.collector.trace.v1.TraceService": topics.SPANS,
    "opentelemetry.proto.collector.metrics.v1.MetricsService": topics.METRICS,
    "opentelemetry.proto.collector.logs.v1.LogsService": topics.LOGS,
}

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

_MIN_PING_INTERVAL_MS = 10_000  # OpenTelemetry exporters are commonly set to ping every 10-30 s; grpc's default of 5 min would cut them off

_FEWEST_RPCS = 4096

_LAST_STATE_S = 0.1  # for NOT_SERVING to reach those who watch


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # grpcio-health-checking has no types
    """Ends the watches of a server that stops: it would wait for them as for any call, and they never end."""

    def __init__(self) -> None:
        super().__init__()
        self._stopping = asyncio.Event()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802 - the service's name for it
        """Stream the service's state until the sender or this server ends it."""
        watch = asyncio.ensure_future(super().Watch(request, context))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([watch, stopping], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([watch], timeout=_LAST_STATE_S if self._stopping.is_set() else 0)
        finally:
            watch.cancel()
            stopping.cancel()
            await asyncio.gather(watch, stopping, return_exceptions=True)

    async def stop(self) -> None:
        """Answer every watcher NOT_SERVING, then end the watches."""
        await self.enter_graceful_shutdown()
        self._stopping.set()


class _Exports(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Which code takes a call. A call without a token that holds goes to one that refuses it and never reads
    (unpacks) its message.
    """

    def __init__(self, receiver: Receiver, credentials: Credentials) -> None:
        self.credentials = credentials
        self._taking = {
            f"/{service}/Export": grpc.unary_unary_rpc_method_handler(_export(topic, receiver))
            for service, topic in SERVICES.items()
        }
        self._refusing = {
            (f"/{service}/Export", reason): grpc.stream_unary_rpc_method_handler(_refuse_all(topic, reason))
            for service, topic in SERVICES.items()
            for reason in UNAUTHENTICATED
        }

    def service(self, details: Any) -> Any:
        """See grpc.GenericRpcHandler."""
        handler = self._taking.get(details.method)
        tokens = self.credentials.tokens
        if handler is None or tokens is None:
            return handler
        shown = next((value for key, value in details.invocation_metadata if key == "authorization"), None)
        reason = authorize(None if shown is None else shown.encode(errors="replace"), tokens)
        return handler if reason is None else self._refusing[details.method, reason]


class _ServerTls:
    """grpcio's TLS credentials, whose certificates can be replaced: it asks for them at each new
    connection.
    """

    def __init__(self, identity: TlsIdentity) -> None:
        self._next: Any = None
        self.credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(identity), self._take, bool(identity.client_ca)
        )

    def replace(self, identity: TlsIdentity) -> None:
        """From the next connection on."""
        self._next = _configuration(identity)

    def _take(self) -> Any:
        """Called by threads of grpcio's own; None is "no change"."""
        configuration, self._next = self._next, None
        return configuration


class GrpcServer:
    """The gRPC receiver on ``settings.host``; ``port`` is the one it got."""

    def __init__(
        self, receiver: Receiver, settings: IngestSettings, credentials: Credentials, reuse_port: bool = False
    ) -> None:
        self._server = grpc.aio.server(
            options=_channel_options(settings, reuse_port), maximum_concurrent_rpcs=_most_rpcs(settings)
        )
        self._health = _Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._exports = _Exports(receiver, credentials)
        self._server.add_generic_rpc_handlers((self._exports,))
        self._tls = _ServerTls(credentials.tls) if credentials.tls else None
        self._address = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._wanted_port = settings.grpc_port
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises AddressInUse."""
        address = f"{self._address}:{self._wanted_port}"
        try:
            if self._tls is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, self._tls.credentials)
        except RuntimeError as error:
            raise AddressInUse(f"OTLP/gRPC cannot listen on {address}: {error}") from error
        await self._server.start()
        for service in SERVICES:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def replace(self, credentials: Credentials) -> None:
        """Tokens hold at once, certificates for new connections."""
        self._exports.credentials = credentials
        if self._tls is not None and credentials.tls is not None:
            self._tls.replace(credentials.tls)

    async def stop(self, grace_s: float) -> None:
        """Take no new requests, finish those that have begun; cut them off after ``grace_s``."""
        await self._health.stop()
        await self._server.stop(grace_s)


def _most_rpcs(settings: IngestSettings) -> int:
    """Calls at once, on all connections: twice as many as the buffer can hold, so that the buffer refuses,
    with a time to wait.
    """
    return max(_FEWEST_RPCS, 2 * settings.buffer_size // REQUEST_OVERHEAD_BYTES)


def _ms(duration: Duration) -> int:
    return round(duration.total_seconds() * 1000)


def _channel_options(settings: IngestSettings, reuse_port: bool) -> list[tuple[str, int]]:
    """Channel arguments (grpc/impl/channel_arg_names.h)."""
    return [
        ("grpc.max_receive_message_length", settings.max_message),
        ("grpc.max_connection_age_ms", _ms(settings.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", _ms(settings.max_connection_age_grace)),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_time)),
        ("grpc.keepalive_timeout_ms", _ms(settings.keepalive_timeout)),
        ("grpc.keepalive_permit_without_calls", 1),
        # each defaults to a minute or two, whatever keepalive_timeout says
        ("grpc.http2.ping_timeout_ms", _ms(settings.keepalive_timeout)),
        ("grpc.http2.settings_timeout", _ms(settings.keepalive_timeout)),
        ("grpc.server_handshake_timeout_ms", _ms(settings.keepalive_timeout)),
        ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
        # unless it is one of `--workers`, a second receiver on the port must fail to start, not take half of
        # the requests
        ("grpc.so_reuseport", int(reuse_port)),
    ]


def _configuration(identity: TlsIdentity) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(identity.key, identity.certificate)], identity.client_ca or None
    )


def _export(topic: str, receiver: Receiver) -> Callable[[bytes, Any], Awaitable[bytes]]:
    taken = self_metrics.REQUESTS.labels("grpc", topic, code_pb2.Code.Name(code_pb2.OK))

    async def export(request: bytes, context: Any) -> bytes:
        result = await receiver.receive(topic, request)
        if isinstance(result, Refusal):
            self_metrics.REQUESTS.labels("grpc", topic, result.code_name).inc()
            await _refuse(result, context)
            return b""
        taken.inc()
        if not result.rejected:
            return FULL_SUCCESS
        return partial_success(topic, result.rejected, result.reason).SerializeToString()

    return export


def _refuse_all(topic: str, reason: str) -> Callable[[Any, Any], Awaitable[bytes]]:
    async def refuse(_unread: Any, context: Any) -> bytes:
        refusal = UNAUTHENTICATED[reason]
        self_metrics.UNAUTHENTICATED.labels("grpc", reason).inc()
        self_metrics.REQUESTS.labels("grpc", topic, refusal.code_name).inc()
        await _refuse(refusal, context)
        return b""

    return refuse


async def _refuse(refusal: Refusal, context: Any) -> None:
    """Abort with the status and, where repeating helps, RetryInfo in ``grpc-status-details-bin``. Always
    raises.
    """
    details = (("grpc-status-details-bin", refusal.status().SerializeToString()),)
    await context.abort(_STATUS_CODES[refusal.code], refusal.message, trailing_metadata=details)
