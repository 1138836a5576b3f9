"""What benchmarks are fed: valid traces with the promised size, and the same ones each time."""

from collections import Counter

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks.load import make_requests

NOW_NS = 1_800_000_000_000_000_000


def read(requests: list[bytes]) -> list[tuple[str, Span]]:
    """(service, span) of every span."""
    return [
        (resource_spans.resource.attributes[0].value.string_value, span)
        for request in requests
        for resource_spans in ExportTraceServiceRequest.FromString(request).resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def attributes(span: Span) -> dict[str, str]:
    return {attribute.key: attribute.value.string_value for attribute in span.attributes}


def test_requests_hold_whole_traces_of_envoy_like_spans() -> None:
    requests = make_requests(5_000, 20, 10, 200, seed=1, now_ns=NOW_NS)
    spans = read(requests)
    assert len(spans) == 5_000
    assert 900 < sum(map(len, requests)) / len(spans) < 970
    by_id = {(span.trace_id, span.span_id): (service, span) for service, span in spans}
    assert len(by_id) == 5_000
    assert set(Counter(span.trace_id for _, span in spans).values()) == {5}
    assert len({service for service, _ in spans}) == 20
    assert len({attributes(span)["envoy.route"] for _, span in spans}) == 10

    called = 0
    for service, span in spans:
        assert len(span.attributes) == 21
        assert NOW_NS <= span.start_time_unix_nano < span.end_time_unix_nano
        assert not any(
            "{" in value for key, value in attributes(span).items() if key != "response.details"
        ), "a mark was left"
        if span.parent_span_id:
            parent_service, parent = by_id[span.trace_id, span.parent_span_id]
            assert (parent.kind == Span.SPAN_KIND_CLIENT) == (span.kind == Span.SPAN_KIND_SERVER)
            called += parent_service != service
    assert called > 1_500
    flags = Counter(attributes(span)["response_flags"] for _, span in spans)
    assert flags["UO"] > 0
    assert 0 < flags["URX"] < 200


def test_requests_depend_on_their_arguments_alone() -> None:
    first = make_requests(1_000, 10, 10, 100, seed=1, now_ns=NOW_NS)
    assert first == make_requests(1_000, 10, 10, 100, seed=1, now_ns=NOW_NS)
    assert first != make_requests(1_000, 10, 10, 100, seed=2, now_ns=NOW_NS)


def test_many_services_share_a_request_and_few_do_not() -> None:
    few, many = (make_requests(20_000, services, 10, 200, seed=1, now_ns=NOW_NS) for services in (10, 1_000))
    assert len(few) == len(many) == 100
    resources = [len(ExportTraceServiceRequest.FromString(request).resource_spans) for request in few]
    assert max(resources) <= 2
    resources = [len(ExportTraceServiceRequest.FromString(request).resource_spans) for request in many]
    assert min(resources) >= 8
