"""schemas.otlp: which decoder it takes, and what both must agree on with opentelemetry-proto."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas import otlp
from tests.schemas.otlp_messages import make_span, make_traces


@pytest.mark.parametrize(
    "choice", ["reference", pytest.param("native", marks=pytest.mark.component("native"))]
)
def test_the_environment_chooses(choice: str) -> None:
    code = "from schemas import otlp; print(otlp.decoder_name, otlp.native)"
    answer = subprocess.check_output(
        [sys.executable, "-c", code], env={**os.environ, "MESHFLOW_DECODER": choice}, text=True
    )
    assert answer.split() == [choice, str(choice == "native")]


def test_without_native_code_the_reference_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "schemas.otlp.native", None)  # importing it fails
    assert otlp.load("auto")[0] == "reference"
    with pytest.raises(ImportError):
        otlp.load("native")


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="MESHFLOW_DECODER must be one of native, reference, auto"):
        otlp.load("fast")


def test_extra_keys_are_made_unique() -> None:
    batch = otlp.decode_spans([make_traces(make_span({"k": "v"}))], ["k", "j", "k"])
    assert batch.spans.schema.names[-2:] == ["attr:k", "attr:j"]
    assert len(batch) == 1


def test_positions_may_be_arrow_or_numpy_or_slices() -> None:
    payloads = [make_traces(make_span({"k": "1"}), make_span({"k": "2"}))]
    spans = otlp.decode_spans(payloads).spans
    every = [spans[name] for name in ("record", "offset", "length")]
    rows = otlp.decode_details(payloads, *every)
    assert rows["SpanAttributes"].to_pylist() == [[("k", "1")], [("k", "2")]]
    assert otlp.decode_details(payloads, *(pa.chunked_array([column.slice(1)]) for column in every)).equals(
        rows.slice(1)
    )
    assert otlp.decode_details(payloads, *(column.to_numpy()[::-1] for column in every))["SpanAttributes"][
        0
    ].as_py() == [("k", "2")]
    with pytest.raises(ValueError, match="differ in length"):
        otlp.decode_details(payloads, every[0], every[1], np.zeros(1, np.uint32))


@pytest.mark.component("native")
def test_batches_outlive_the_decoder_and_are_read_only() -> None:
    batch = otlp.decode_spans([make_traces(*(make_span(name=str(number)) for number in range(1000)))])
    names = batch.strings.take(batch.spans["name"])
    del batch
    assert names.to_pylist() == [str(number) for number in range(1000)]


@pytest.mark.component("native")
def test_native_descriptors_are_those_of_opentelemetry_proto() -> None:
    """A new version of opentelemetry-proto may add fields that native code must learn to check."""
    from schemas._native import descriptors  # noqa: PLC0415 - may be absent

    expected: dict[str, dict[int, str]] = {}

    def walk(descriptor: Descriptor) -> None:
        if descriptor.name in expected:
            return
        checked = {field.number: _checked(field) for field in descriptor.fields}
        expected[descriptor.name] = {number: kind for number, kind in checked.items() if kind}
        for field in descriptor.fields:
            if field.message_type:
                walk(field.message_type)

    for message in (TracesData, LogsData, MetricsData):
        walk(message.DESCRIPTOR)
    assert descriptors() == expected


def _checked(field: FieldDescriptor) -> str:
    if field.message_type:
        return field.message_type.name
    if field.type == FieldDescriptor.TYPE_STRING:
        return "text"
    if field.is_repeated and field.type != FieldDescriptor.TYPE_BYTES:
        is_fixed64 = field.type in (
            FieldDescriptor.TYPE_FIXED64,
            FieldDescriptor.TYPE_SFIXED64,
            FieldDescriptor.TYPE_DOUBLE,
        )
        return "fixed64s" if is_fixed64 else "varints"
    return ""
