"""Sends captured requests to an OTLP/gRPC receiver, in the rhythm in which they were sent."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import grpc

from schemas.errors import MalformedOtlp, MeshflowError
from schemas.otlp.shift import Captured, refused
from schemas.topics import LOGS, METRICS, SPANS

METHODS = {
    SPANS: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_IN_FLIGHT = 32


class TargetUnreachable(MeshflowError):
    """Nobody answers at the target."""


@dataclass(slots=True)
class Replayed:
    """What became of a replay's items (spans, data points, log records), by topic, and of its requests."""

    requests: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """Why items were rejected or requests failed -> how often."""
    failed: int = 0
    """Requests that were not answered with OK."""


async def replay(
    requests: Iterable[Captured], target: str, *, now: bool, speed: float, connect_s: float = 10.0
) -> Replayed:
    """Send requests one after the other, at ``speed`` times their own rhythm (0: as fast as they are
    answered).

    ``now`` moves every time by the same amount, so that the first request was sent now. Nothing is sent
    twice: a failed request is counted, as Envoy would lose it. Raises TargetUnreachable when there is no
    connection within ``connect_s``.
    """
    result = Replayed()
    async with grpc.aio.insecure_channel(target, options=_OPTIONS) as channel:
        try:
            await asyncio.wait_for(channel.channel_ready(), connect_s)
        except TimeoutError:
            raise TargetUnreachable(f"nobody answers OTLP/gRPC at {target}") from None
        calls = {topic: channel.unary_unary(method) for topic, method in METHODS.items()}
        began_ns = time.time_ns()
        first_ns = None
        sending: set[asyncio.Task[None]] = set()
        try:
            for captured in requests:
                first_ns = captured.newest_ns if first_ns is None else first_ns
                if speed > 0:
                    await asyncio.sleep(
                        (captured.newest_ns - first_ns) / speed / 1e9 - (time.time_ns() - began_ns) / 1e9
                    )
                body = captured.shifted(began_ns - first_ns) if now else captured.message.SerializeToString()
                if len(sending) >= _IN_FLIGHT:
                    _, sending = await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
                sending.add(asyncio.create_task(_send(calls[captured.topic], captured, body, result)))
        finally:
            await asyncio.gather(*sending)
    return result


async def _send(
    call: grpc.aio.UnaryUnaryMultiCallable, captured: Captured, body: bytes, result: Replayed
) -> None:
    result.requests += 1
    result.sent[captured.topic] += captured.items
    try:
        rejected, reason = refused(captured.topic, await call(body))
    except (grpc.aio.AioRpcError, MalformedOtlp) as error:
        result.failed += 1
        result.reasons[
            f"{error.code().name}: {error.details()}"
            if isinstance(error, grpc.aio.AioRpcError)
            else str(error)
        ] += 1
        return
    result.rejected[captured.topic] += rejected
    result.accepted[captured.topic] += captured.items - rejected
    if rejected:
        result.reasons[reason or "rejected without a reason"] += 1
