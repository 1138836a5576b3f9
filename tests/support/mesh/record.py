"""Records what a mesh exports: ``python -m tests.support.mesh.record FOLDER`` writes ``traces.bin.gz`` and
``expected.json``.

``traces.bin.gz`` is the format of ``meshflow replay``: u32 big-endian length, Export request, repeated.
``expected.json`` holds Envoy's own counters: for each service and Envoy cluster ``calls``
(``upstream_rq_total``) and ``unsent`` (overflow, no healthy host), and ``spans``.
"""

import argparse
import asyncio
import gzip
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.mesh.bootstrap import LOOPBACK
from tests.support.mesh.mesh import running_mesh

SIGNALS = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}


class Recorder:
    """An OTLP gRPC receiver that keeps the requests as they came, by signal."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: dict[str, list[bytes]] = {signal: [] for signal in SIGNALS}

    def spans(self) -> int:
        """How many spans came."""
        requests = map(ExportTraceServiceRequest.FromString, self.requests["traces"])
        return sum(
            len(scope.spans)
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
        )


@asynccontextmanager
async def running_recorder() -> AsyncIterator[Recorder]:
    """Listen on a free port."""
    recorder = Recorder()
    server = grpc.aio.server()

    def handler(signal: str) -> grpc.GenericRpcHandler:
        async def export(request: bytes, _context: object) -> bytes:
            recorder.requests[signal].append(request)
            return b""

        return grpc.method_handlers_generic_handler(
            SIGNALS[signal], {"Export": grpc.unary_unary_rpc_method_handler(export)}
        )

    server.add_generic_rpc_handlers([handler(signal) for signal in SIGNALS])
    recorder.port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    try:
        yield recorder
    finally:
        await server.stop(None)


async def record(folder: Path, rounds: int) -> None:
    """Run a mesh with ``spawn_upstream_span`` and write what it sent."""
    with tempfile.TemporaryDirectory() as scratch:
        async with (
            running_recorder() as recorder,
            running_mesh(Path(scratch), recorder.port, spawn_upstream_span=True) as mesh,
        ):
            await mesh.drive(rounds)
            exported = await mesh.exported()
            expected = {"spans": exported, "edges": await mesh.counters()}
    if recorder.spans() != exported:
        raise SystemExit(f"Envoys say that they sent {exported} spans, {recorder.spans()} came")
    write(folder, recorder.requests["traces"], expected)


def write(folder: Path, requests: list[bytes], expected: dict[str, object]) -> None:
    """Both files."""
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.GzipFile(folder / "traces.bin.gz", "wb", compresslevel=9, mtime=0) as file:
        for request in requests:
            file.write(len(request).to_bytes(4, "big") + request)
    (folder / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Record the spans of a mesh with spawn_upstream_span.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    asyncio.run(record(options.folder, options.rounds))
