"""Data points and log records: native equals the reference on what SDKs may send, with clusters, limits."""

from random import Random
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Exemplar,
    Gauge,
    Metric,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint as Point
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from schemas import otlp, topics
from schemas.otlp.limits import CUT_KEY, DEFAULT_LIMITS, Limits
from schemas.otlp.wire import framed
from tests.schemas.noise import make_noise
from tests.schemas.otlp_messages import (
    key_values,
    logs,
    make_span,
    make_traces,
    metrics,
    traces,
)
from tests.schemas.twins import LIMITS, MALFORMED, compare_decode, compare_items
from tests.support.examples import examples

native = pytest.mark.component("native")
seeds = st.integers(0, 2**64 - 1)
limits = st.tuples(st.integers(0, 40), st.integers(0, 120), st.integers(0, 5), st.integers(0, 2)).map(
    lambda numbers: Limits(*numbers)
)


@native
@examples(60)
@given(st.lists(metrics, max_size=3), st.lists(logs, max_size=3), limits)
def test_real_messages(metrics_data: list[bytes], logs_data: list[bytes], some: Limits) -> None:
    for topic, payloads in ((topics.METRICS, metrics_data), (topics.LOGS, logs_data)):
        clusters = [f"c{number % 2}" for number in range(len(payloads))]
        assert compare_items(topic, payloads)[0] != MALFORMED
        assert compare_items(topic, payloads, clusters, some)[0] != MALFORMED
        assert compare_items(topic, [b"".join(payloads)])[0] != MALFORMED


@native
@examples(30)
@given(traces, limits)
def test_spans_within_limits(payload: bytes, some: Limits) -> None:
    assert compare_decode([payload, payload], ["east", ""], some)[0] != MALFORMED


@native
@examples(100)
@given(
    seeds,
    st.sampled_from([topics.METRICS, topics.LOGS]),
    st.lists(st.sampled_from(["", "a", "b"]), min_size=3, max_size=3),
)
def test_noise_of_many_payloads(seed: int, topic: str, clusters: list[str]) -> None:
    random = Random(seed)
    payloads = [make_noise(random, topic) for _ in range(3)]
    compare_items(topic, [*payloads], clusters)
    compare_items(topic, payloads[:1] * 3, clusters)


def points(resource: dict[str, str], *attributes: list[tuple[str, str]], name: str = "m") -> bytes:
    data = [Point(as_int=1, attributes=key_values(each)) for each in attributes]
    metric = Metric(name=name, gauge=Gauge(data_points=data))
    of_resource = ResourceMetrics(
        resource=Resource(attributes=key_values(resource)), scope_metrics=[ScopeMetrics(metrics=[metric])]
    )
    return MetricsData(resource_metrics=[of_resource]).SerializeToString()


def test_a_series_does_not_depend_on_the_order_of_attributes(decoder: ModuleType) -> None:
    pairs = [("a", "1"), ("b", "2")]
    one = points({"service.name": "s", "zone": "z"}, pairs, pairs[::-1], [("a", "12"), ("b", "")])
    two = points({"zone": "z", "service.name": "s"}, pairs)
    other = points({"zone": "z", "service.name": "t"}, pairs)
    renamed = points({"zone": "z", "service.name": "s"}, pairs, name="n")
    series = decoder.decode_points([one, two, other, renamed]).points["series"].to_pylist()
    assert series[0] == series[1] == series[3]
    assert len(set(series)) == 4


def test_shared_parts_are_there_once(decoder: ModuleType) -> None:
    batch = decoder.decode_points([points({"service.name": "s"}, *[[("a", "b")]] * 5)] * 3)
    assert len(batch) == 15
    tables = batch.contexts
    assert [len(part) for part in (tables.resources, tables.scopes, tables.attributes)] == [1, 1, 1]


def test_the_cluster_of_a_payload_is_that_of_resources_that_name_none(decoder: ModuleType) -> None:
    anonymous, named = points({"service.name": "s"}, []), points({"k8s.cluster.name": "own"}, [])
    batch = decoder.decode_points([anonymous, anonymous, anonymous, named, named], ["x", "x", "y", "x", "y"])
    resources = batch.contexts.resources
    of_points = resources["cluster"].take(batch.points["resource"])
    assert batch.contexts.strings.take(of_points).to_pylist() == ["x", "x", "y", "own", "own"]
    identities = batch.points["identity_lo"].to_pylist()
    assert identities[0] == identities[1] != identities[2], "another cluster's point is no copy"
    assert identities[3] == identities[4], "a cluster of its own"
    assert batch.points["series"][0] != batch.points["series"][2]


def test_log_records_have_the_cluster_of_their_payload(decoder: ModuleType) -> None:
    def records(resource: dict[str, str]) -> bytes:
        of_resource = ResourceLogs(
            resource=Resource(attributes=key_values(resource)),
            scope_logs=[ScopeLogs(log_records=[LogRecord()])],
        )
        return LogsData(resource_logs=[of_resource]).SerializeToString()

    anonymous, named = records({"service.name": "s"}), records({"k8s.cluster.name": "own"})
    batch = decoder.decode_logs([anonymous, anonymous, anonymous, named, named], ["x", "x", "", "x", "y"])
    resources = batch.contexts.resources
    of_logs = resources["cluster"].take(batch.logs["resource"])
    assert batch.contexts.strings.take(of_logs).to_pylist() == ["x", "x", "", "own", "own"]
    identities = batch.logs["identity_lo"].to_pylist()
    assert identities[0] == identities[1] != identities[2], "another cluster's record is no copy"
    assert identities[3] == identities[4], "a cluster of its own"


def test_clusters_are_as_many_as_payloads() -> None:
    for decode in (otlp.decode_spans, otlp.decode_points, otlp.decode_logs):
        with pytest.raises(ValueError, match="1 clusters for 2 payloads"):
            decode([b"", b""], clusters=["a"])


def test_spans_have_the_cluster_of_their_payload(decoder: ModuleType) -> None:
    payload = make_traces(make_span(), resource={"service.name": "s"})
    spans, resources, _, strings, _ = decoder.decode_spans([payload, payload], [], ["x", "y"])
    clusters = strings.take(resources["cluster"].take(spans["resource"]))
    assert clusters.to_pylist() == ["x", "y"]


def test_what_is_over_a_limit_is_cut_marked_and_counted(decoder: ModuleType) -> None:
    long = {"service.name": "s" * 200, "k": "größe" * 100, "x" * 101: "gone"}
    batch = decoder.decode_points([points(long, [("a", "b")])], limits=LIMITS)
    (attributes,) = batch.contexts.resources["attributes"].to_pylist(maps_as_pydicts="strict")
    assert list(attributes) == ["service.name", "k", CUT_KEY]
    assert attributes["service.name"] == "s" * 100
    assert len(attributes["k"].encode()) in (99, 100)
    left = 100 + 700 - len(attributes["k"].encode())
    assert attributes[CUT_KEY] == f"{left} bytes, 1 keys"
    assert batch.contexts.cut == 3, "the set, and the service and its name as texts"
    assert decoder.decode_points([points(long, [("a", "b")])], limits=DEFAULT_LIMITS).contexts.cut == 0


def test_limits_hold_for_spans_events_and_links(decoder: ModuleType) -> None:
    many = {f"k{number}": "v" for number in range(10)}
    span = make_span(
        many, events=[{"attributes": key_values(many)}], links=[{"attributes": key_values(many)}]
    )
    payload = make_traces(span, resource=many)
    spans, resources, *_, cut = decoder.decode_spans([payload], [], (), LIMITS)
    positions = [spans[name].to_numpy() for name in ("record", "offset", "length")]
    details = decoder.decode_details([payload], *positions, LIMITS)
    (row,) = details.to_pylist(maps_as_pydicts="strict")
    (resource,) = resources["attributes"].to_pylist(maps_as_pydicts="strict")
    for cut_set in (resource, row["SpanAttributes"], row["Events.Attributes"][0], row["Links.Attributes"][0]):
        assert len(cut_set) == LIMITS.set_entries + 1
        assert cut_set[CUT_KEY] == "0 bytes, 4 keys"
    assert cut == 1


@native
def test_every_field_of_a_metric_twice() -> None:
    """Data of one kind, of another, then of the first again; what counts is the last run."""
    point = framed(1, b"\x19" + bytes(8))
    for kinds in ([5, 7, 5], [7, 7], [9, 10, 11], [7, 9, 9]):
        metric = b"".join(framed(kind, point + b"\x10\x02") for kind in kinds)
        compare_items(topics.METRICS, [framed(1, framed(2, framed(2, metric)))])


LONG = "größe" * 40


def long_of(text: str) -> int:
    """How many bytes of a long text are left out."""
    return len(text.encode()) - len(text.encode()[: LIMITS.value_bytes].decode(errors="ignore").encode())


def test_a_spans_own_texts_and_lists_are_cut_and_marked(decoder: ModuleType) -> None:
    span = make_span(
        {"a": "b"},
        name=LONG,
        trace_state="k=" + "v" * 200,
        status=Status(message="m" * 150),
        events=[{"name": "e" * 130}, {"name": "f"}, {}],
        links=[{"trace_state": "k=" + "v" * 200}] * 5,
    )
    payload = make_traces(span)
    spans, _, _, strings, _ = decoder.decode_spans([payload], [], (), LIMITS)
    kept = LONG.encode()[:100].decode(errors="ignore")
    assert strings[spans["name"][0].as_py()].as_py() == strings[spans["operation"][0].as_py()].as_py() == kept
    assert strings[spans["status_message"][0].as_py()].as_py() == "m" * 100
    assert len(strings[spans["trace_state"][0].as_py()].as_py()) == 100
    positions = [spans[name].to_numpy() for name in ("record", "offset", "length")]
    (row,) = decoder.decode_details([payload], *positions, LIMITS).to_pylist(maps_as_pydicts="strict")
    left = long_of(LONG) + 102 + 50
    assert row["SpanAttributes"] == {"a": "b", CUT_KEY: f"{left} bytes, 0 keys, 1 events, 3 links"}
    assert row["Events.Name"] == ["e" * 100, "f"]
    assert row["Events.Attributes"] == [{CUT_KEY: "30 bytes, 0 keys"}, {}]
    assert [len(text) for text in row["Links.TraceState"]] == [100, 100]
    assert row["Links.Attributes"] == [{CUT_KEY: "102 bytes, 0 keys"}] * 2


def test_a_logs_texts_are_cut_and_marked_in_a_set_of_its_own(decoder: ModuleType) -> None:
    long = LogRecord(
        body=AnyValue(string_value="b" * 500),
        severity_text="s" * 110,
        event_name="e" * 120,
        attributes=key_values({"a": "b"}),
    )
    short = LogRecord(body=AnyValue(string_value="b"), attributes=key_values({"a": "b"}))
    payload = LogsData(
        resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[short, long, short, long])])]
    ).SerializeToString()
    batch = decoder.decode_logs([payload], limits=LIMITS)
    assert [len(text) for text in batch.logs["body"].to_pylist()] == [1, 400, 1, 400]
    rows = batch.logs["attributes"].to_pylist()
    assert rows[0] == rows[2]
    sets = batch.contexts.attributes["attributes"].to_pylist(maps_as_pydicts="strict")
    assert sets[rows[0]] == {"a": "b"}
    assert sets[rows[1]] == sets[rows[3]] == {"a": "b", CUT_KEY: "130 bytes, 0 keys"}
    assert batch.contexts.cut == 2
    identities = batch.logs.select(["identity_hi", "identity_lo"]).to_pylist()
    whole = decoder.decode_logs([payload], limits=DEFAULT_LIMITS).logs.select(["identity_hi", "identity_lo"])
    assert identities == whole.to_pylist(), "what is left out tells copies from others nevertheless"


def test_a_metrics_texts_and_a_points_exemplars_are_cut_and_marked(decoder: ModuleType) -> None:
    point = Point(as_int=1, exemplars=[Exemplar(as_int=number) for number in range(5)])
    metric = Metric(
        name="n" * 110, description="d" * 120, unit="u" * 130, gauge=Gauge(data_points=[point, Point()])
    )
    payload = MetricsData(
        resource_metrics=[ResourceMetrics(scope_metrics=[ScopeMetrics(metrics=[metric])])]
    ).SerializeToString()
    batch = decoder.decode_points([payload], limits=LIMITS)
    strings = batch.contexts.strings
    for column, letter in (("name", "n"), ("description", "d"), ("unit", "u")):
        assert strings.take(batch.points[column]).to_pylist() == [letter * 100] * 2
    sets = batch.contexts.attributes["attributes"].take(batch.points["attributes"])
    assert sets.to_pylist(maps_as_pydicts="strict") == [
        {CUT_KEY: "60 bytes, 0 keys, 3 exemplars"},
        {CUT_KEY: "60 bytes, 0 keys"},
    ]
    assert batch.exemplars["value"].to_pylist() == [0.0, 1.0]
    assert batch.contexts.cut == 2


@pytest.mark.parametrize(
    ("resource", "service", "namespace"),
    [
        ({"cluster_name": "reviews.shop", "node_name": "sidecar~10.0.0.7~r-0.shop~x"}, "reviews", "shop"),
        ({"cluster_name": "front", "node_name": "front-0"}, "front", ""),
        ({"cluster_name": "", "node_name": "sidecar~10.0.0.7~r-v1-545db77b95-2ps7q.shop~x"}, "r-v1", "shop"),
        ({"cluster_name": "kubernetes"}, "", ""),
        ({"service.name": "own", "cluster_name": "front", "node_name": "front-0"}, "own", ""),
    ],
)
def test_envoys_access_logs_have_their_service(
    decoder: ModuleType, resource: dict[str, str], service: str, namespace: str
) -> None:
    of_resource = ResourceLogs(
        resource=Resource(attributes=key_values(resource)), scope_logs=[ScopeLogs(log_records=[LogRecord()])]
    )
    batch = decoder.decode_logs([LogsData(resource_logs=[of_resource]).SerializeToString()])
    codes = [batch.contexts.resources[name][0].as_py() for name in ("service_name", "namespace")]
    assert [batch.contexts.strings[code].as_py() for code in codes] == [service, namespace]
