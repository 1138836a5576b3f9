"""OpenTelemetry's SDK for Python as a sender of one trace of two spans; the text of ``noise``
has a byte that is not UTF-8. ``python -m tests.support.python_client SERVICE PROTOCOL ENDPOINT COMPRESSION``.

The SDK's own encoder refuses such a text, so that the byte is put into the request that it has encoded.
"""

import gzip
import sys
import urllib.request
from collections.abc import Sequence

import grpc
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

from tests.support.receiving import TRACES

PLACEHOLDER, NOISE = b"cafe!", b"caf\xe9!"
_WAIT_S = 60


class Exporter(SpanExporter):
    """Sends what the SDK's encoder makes, with the byte in it."""

    def __init__(self, protocol: str, endpoint: str, compression: str) -> None:
        self.endpoint = endpoint
        self.compression = compression
        self.send = self._over_grpc if protocol == "grpc" else self._over_http

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch. An answer that is no success ends the program."""
        self.send(encode_spans(spans).SerializeToString().replace(PLACEHOLDER, NOISE))
        return SpanExportResult.SUCCESS

    def _over_grpc(self, request: bytes) -> None:
        compression = grpc.Compression.Gzip if self.compression == "gzip" else grpc.Compression.NoCompression
        with grpc.insecure_channel(self.endpoint, compression=compression) as channel:
            channel.unary_unary(TRACES)(request, timeout=_WAIT_S, wait_for_ready=True)

    def _over_http(self, request: bytes) -> None:
        headers = {"Content-Type": "application/x-protobuf"}
        if self.compression == "gzip":
            headers["Content-Encoding"], request = "gzip", gzip.compress(request)
        address = f"http://{self.endpoint}/v1/traces"
        urllib.request.urlopen(urllib.request.Request(address, request, headers), timeout=_WAIT_S).close()


def main(service: str, protocol: str, endpoint: str, compression: str) -> None:
    """Send the trace."""
    provider = TracerProvider(resource=Resource({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(Exporter(protocol, endpoint, compression)))
    tracer = provider.get_tracer("tests")
    with tracer.start_as_current_span("checkout", kind=SpanKind.SERVER) as checkout:
        checkout.set_attribute("http.response.status_code", 500)
        checkout.set_status(StatusCode.ERROR, "no stock")
        checkout.add_event("reserved")
        attributes = {"db.system.name": "postgresql", "noise": PLACEHOLDER.decode()}
        with tracer.start_as_current_span("SELECT stock", kind=SpanKind.CLIENT, attributes=attributes):
            pass
    provider.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
