"""What five real Envoys 1.40 exported: 490 trace, 360 metric and 626 log requests."""

import gzip
import struct
from pathlib import Path
from types import ModuleType

import pyarrow.compute as pc
import pytest

from schemas import topics
from tests.schemas.twins import compare_decode, compare_split

CAPTURES = Path(__file__).parents[1] / "data" / "envoy"
FILES = {
    topics.SPANS: ("traces", 490, 2195),
    topics.METRICS: ("metrics", 360, 91_454),
    topics.LOGS: ("logs", 626, 2195),
}


def _requests(name: str) -> list[bytes]:
    data, at, requests = gzip.decompress((CAPTURES / f"{name}.bin.gz").read_bytes()), 0, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        requests.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return requests


def test_spans(decoder: ModuleType) -> None:
    spans, resources, scopes, strings, _ = decoder.decode_spans(_requests("traces"), ["node_id"])
    assert len(spans) == 2195
    assert len(resources) == 5  # one per Envoy
    assert scopes.to_pylist() == [{"name": "envoy", "version": scopes["version"][0].as_py()}]
    assert pc.all(spans["proxy"]).as_py()
    assert spans["attr:node_id"].null_count == 0
    texts = strings.to_pylist()
    assert {texts[code] for code in resources["service"].to_pylist()} == {
        "front-proxy",
        "order-service",
        "product-service",
    }
    flags = {
        texts[entry["values"]]: entry["counts"]
        for entry in spans["response_flags"].value_counts().to_pylist()
    }
    assert flags["UO"] == 222  # circuit breakers: 210 and 6 requests, and 6 whose retry went through
    failed = spans.filter(spans["error"])
    assert len(failed) == 429
    assert (
        pc.sum(pc.equal(failed["status_code"], 0)).as_py() == 91
    )  # timeouts and resets: `error`, but status UNSET
    assert pc.sum(pc.equal(spans["status_code"], 2)).as_py() - 18 + 91 == 429  # 18 are a CLIENT's 404


@pytest.mark.component("native")
def test_both_decoders_agree() -> None:
    requests = _requests("traces")
    compare_decode(requests)
    compare_decode([b"".join(requests)])


@pytest.mark.component("native")
@pytest.mark.parametrize("topic", topics.TOPICS)
def test_both_splitters_agree(topic: str) -> None:
    name, request_count, item_count = FILES[topic]
    requests = _requests(name)
    assert len(requests) == request_count
    results = [compare_split(topic, request, 8) for request in requests]
    assert sum(items for _, items, *_ in results) == item_count
    assert not any(bad_trace_ids or bad_span_ids for _, _, bad_trace_ids, bad_span_ids, *_ in results)
