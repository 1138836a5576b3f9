"""A program that sends Envoy-like spans (``benchmarks.load``) over OTLP gRPC."""

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from benchmarks.load import EXPORT, SPANS_PER_TRACE, make_requests


@dataclass(slots=True)
class Sent:
    """What a load run did; CPU is the load program's own."""

    spans: int = 0
    requests: int = 0
    acknowledged: int = 0
    rejected: int = 0
    retried: int = 0
    bytes: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


async def send(
    target: str,
    requests: Sequence[bytes],
    spans: int,
    *,
    connections: int = 4,
    in_flight: int = 32,
    spans_per_s: int = 0,
) -> Sent:
    """Send every request over ``connections`` h2 connections with ``in_flight`` calls under way.

    ``spans_per_s``: no faster than that; 0: as fast as answers allow. A refusal that may be tried again
    (RESOURCE_EXHAUSTED, UNAVAILABLE) is, after 50 ms; any other error is raised.
    """
    sent = Sent(spans=spans, requests=len(requests), bytes=sum(map(len, requests)))
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(connections)]
    queue = enumerate(requests)
    gap_s = spans / len(requests) / spans_per_s if spans_per_s else 0.0

    async def work(channel: grpc.aio.Channel) -> None:
        export = channel.unary_unary(EXPORT)
        for number, request in queue:
            if (early_s := begin_s + number * gap_s - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            answer = await _export(export, request, sent)
            sent.acknowledged += 1
            if answer:
                sent.rejected += ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans

    usage, begin_s = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    await asyncio.gather(*(work(channels[number % connections]) for number in range(in_flight)))
    sent.wall_s = time.perf_counter() - begin_s
    after = resource.getrusage(resource.RUSAGE_SELF)
    sent.cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    await asyncio.gather(*(channel.close() for channel in channels))
    return sent


async def _export(export: grpc.aio.UnaryUnaryMultiCallable, request: bytes, sent: Sent) -> bytes:
    while True:
        try:
            answer: bytes = await export(request)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
                raise
            sent.retried += 1
            await asyncio.sleep(0.05)
        else:
            return answer


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: make the requests, say ``ready``, send them, print what was sent as a line of JSON."""
    parser = argparse.ArgumentParser(description="Send Envoy-like spans over OTLP gRPC.")
    parser.add_argument("--target", required=True, metavar="HOST:PORT")
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--operations", type=int, default=10)
    parser.add_argument("--spans-per-request", type=int, default=200)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument(
        "--in-flight", type=int, default=32, help="calls under way at a time, over all connections"
    )
    parser.add_argument(
        "--rate",
        type=int,
        default=0,
        metavar="SPANS",
        help="spans a second; 0: as fast as they are acknowledged",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--wait", action="store_true", help="send only after a line on standard input")
    options = parser.parse_args(argv)
    requests = make_requests(
        options.spans, options.services, options.operations, options.spans_per_request, options.seed
    )
    print("ready", flush=True)
    if options.wait:
        sys.stdin.readline()
    spans = -(-options.spans // SPANS_PER_TRACE) * SPANS_PER_TRACE
    limits = {"connections": options.connections, "in_flight": options.in_flight, "spans_per_s": options.rate}
    sent = asyncio.run(send(options.target, requests, spans, **limits))
    print(json.dumps({name: getattr(sent, name) for name in Sent.__slots__}), flush=True)


if __name__ == "__main__":
    main()
