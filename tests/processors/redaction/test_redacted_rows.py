"""Rows of all three signals against a plain loop over what was sent, through the processors as they are."""

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from processors.logs.signal import log_processor
from processors.panes import Emit
from processors.points.signal import point_processor
from processors.settings import ProcessorSettings
from processors.spans.sampling.settings import SamplingSettings
from processors.spans.signal import span_processor
from schemas import topics
from schemas.records import Record, TopicPartition
from schemas.redaction import RedactionRules
from schemas.spans import RESOURCE_CODES, RESOURCE_SCHEMA, SPAN_CODES, SPAN_SCHEMA
from tests.support.examples import examples
from tests.support.plain_redaction import plain_attributes, plain_text
from tests.support.span_log import KEEP_ALL, T0_S, rows

SETTINGS = ProcessorSettings(partitions=1)
NS = 10**9
RULES = (
    RedactionRules(),
    RedactionRules(
        drop=("http.request.header.*",), hash=("user.*",), hash_key="k" * 16, mask=("card",), mask_patterns=("[0-9]{4}-[0-9]{4}",)
    ),
    RedactionRules(credentials=False),
)  # fmt: skip
KEYS = ("http.request.header.authorization", "user.id", "card", "note", "password", "plain", "https://u:pw@h")
TEXTS = st.sampled_from([
    "", "ok", "GET /x?token=abc", "Bearer s3cr3t", "call https://u:pw@h", "call https://u:other@h", "1234-5678", "token bucket",
    "AKIAIOSFODNN7EXAMPLE",
])  # fmt: skip
SETS = st.dictionaries(st.sampled_from(KEYS), TEXTS, max_size=4)


def pairs(attributes: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in attributes.items()]


def resource(attributes: Mapping[str, str]) -> Resource:
    return Resource(attributes=pairs({"service.name": "shop", **attributes}))


def stored(emits: list[Emit], table: str) -> list[dict[str, Any]]:
    return rows(emits, table)


def records(value: bytes) -> list[Record]:
    return [Record(0, T0_S * NS, value, len(value)), Record(1, (T0_S + 600) * NS, b"", 0)]


def redacted_count(emits: list[Emit]) -> int:
    return sum(row["redacted"] for row in stored(emits, "ledger"))


class Truth:
    """What rows have to say, and how much of it was redacted."""

    def __init__(self, rules: RedactionRules) -> None:
        self._rules = rules
        self._texts: set[str] = set()
        self.count = 0

    def attributes(self, attributes: Mapping[str, str]) -> list[tuple[str, str]]:
        """Attributes that no other item shares."""
        pairs, count = plain_attributes(attributes, self._rules)
        self.count += count
        return pairs

    def of_resource(self, attributes: Mapping[str, str]) -> list[tuple[str, str]]:
        return self.attributes({"service.name": "shop", **attributes})

    def own(self, text: str) -> str:
        """A text that no other item shares."""
        self.count += plain_text(text, self._rules) != text
        return plain_text(text, self._rules)

    def text(self, text: str) -> str:
        """A text that counts once, whoever has it."""
        if text not in self._texts:
            self._texts.add(text)
            self.count += plain_text(text, self._rules) != text
        return plain_text(text, self._rules)


@examples(20)
@given(
    st.sampled_from(RULES),
    SETS,
    st.lists(st.tuples(TEXTS, TEXTS, SETS, TEXTS, SETS, SETS), min_size=1, max_size=3),
    TEXTS,
)
def test_spans(
    rules: RedactionRules,
    shared: dict[str, str],
    spans: list[tuple[str, str, dict[str, str], str, dict[str, str], dict[str, str]]],
    scope: str,
) -> None:
    data = TracesData()
    of_resource = data.resource_spans.add(resource=resource(shared))
    of_scope = of_resource.scope_spans.add(scope=InstrumentationScope(name=scope))
    for number, (name, message, own, event, of_event, of_link) in enumerate(spans, 1):
        of_scope.spans.append(
            Span(
                trace_id=number.to_bytes(16), span_id=number.to_bytes(8), name=name, kind=Span.SPAN_KIND_SERVER,
                start_time_unix_nano=T0_S * NS + number, end_time_unix_nano=T0_S * NS + number + 5,
                attributes=pairs(own), status=Status(message=message),
                events=[Span.Event(name=event, attributes=pairs(of_event))],
                links=[Span.Link(trace_id=bytes(16), span_id=bytes(8), attributes=pairs(of_link))],
            )
        )  # fmt: skip
    processor = span_processor(TopicPartition(topics.SPANS, 0), SETTINGS, KEEP_ALL, None, rules)
    emits = processor.feed(records(data.SerializeToString()))
    truth = Truth(rules)
    of_all = truth.of_resource(shared), truth.own(scope)
    expected = {
        f"{number:032x}": (
            *of_all, truth.text(name), truth.text(message), truth.attributes(own), [truth.own(event)],
            [truth.attributes(of_event)], [truth.attributes(of_link)],
        )
        for number, (name, message, own, event, of_event, of_link) in enumerate(spans, 1)
    }  # fmt: skip
    found = {
        row["TraceId"]: (
            row["ResourceAttributes"], row["ScopeName"], row["SpanName"], row["StatusMessage"], row["SpanAttributes"],
            row["Events.Name"], row["Events.Attributes"], row["Links.Attributes"],
        )
        for row in stored(emits, "otel_traces")
    }  # fmt: skip
    assert found == expected
    assert redacted_count(emits) == truth.count
    counted: dict[str, int] = {}
    for name, *_ in spans:
        counted[truth.text(name)] = counted.get(truth.text(name), 0) + 1
    assert {row["operation"]: row["requests"] for row in stored(emits, "red_10s")} == counted


@examples(20)
@given(st.sampled_from(RULES), SETS, st.lists(st.tuples(TEXTS, SETS, TEXTS), min_size=1, max_size=3), SETS)
def test_log_records(
    rules: RedactionRules,
    shared: dict[str, str],
    given_records: list[tuple[str, dict[str, str], str]],
    of_scope: dict[str, str],
) -> None:
    data = LogsData()
    of_resource = data.resource_logs.add(resource=resource(shared))
    scope_logs = of_resource.scope_logs.add(scope=InstrumentationScope(name="s", attributes=pairs(of_scope)))
    for number, (body, own, event) in enumerate(given_records, 1):
        scope_logs.log_records.add(
            time_unix_nano=T0_S * NS + number,
            body=AnyValue(string_value=body),
            attributes=pairs(own),
            event_name=event,
        )
    emits = log_processor(TopicPartition(topics.LOGS, 0), SETTINGS, None, rules).feed(
        records(data.SerializeToString())
    )
    truth = Truth(rules)
    of_all = truth.of_resource(shared), truth.attributes(of_scope)
    sets = {tuple(own.items()): truth.attributes(own) for own in distinct(own for _, own, _ in given_records)}
    expected = [
        (*of_all, truth.own(body), sets[tuple(own.items())], truth.text(event))
        for body, own, event in given_records
    ]
    found = [
        (
            row["ResourceAttributes"],
            row["ScopeAttributes"],
            row["Body"],
            row["LogAttributes"],
            row["EventName"],
        )
        for row in stored(emits, "otel_logs")
    ]
    assert found == expected
    assert redacted_count(emits) == truth.count


@examples(20)
@given(st.sampled_from(RULES), SETS, st.lists(st.tuples(TEXTS, SETS, SETS), min_size=1, max_size=3))
def test_data_points(
    rules: RedactionRules, shared: dict[str, str], points: list[tuple[str, dict[str, str], dict[str, str]]]
) -> None:
    data = MetricsData()
    of_scope = data.resource_metrics.add(resource=resource(shared)).scope_metrics.add()
    for number, (description, own, of_exemplar) in enumerate(points, 1):
        gauge = of_scope.metrics.add(name=f"m{number}", description=description).gauge
        point = gauge.data_points.add(as_double=1, time_unix_nano=T0_S * NS, attributes=pairs(own))
        point.exemplars.add(as_double=1, filtered_attributes=pairs(of_exemplar))
    emits = point_processor(TopicPartition(topics.METRICS, 0), SETTINGS, None, rules).feed(
        records(data.SerializeToString())
    )
    truth = Truth(rules)
    of_all = truth.of_resource(shared)
    sets = {tuple(own.items()): truth.attributes(own) for own in distinct(own for _, own, _ in points)}
    expected = [
        (of_all, truth.text(description), sets[tuple(own.items())], [truth.attributes(of_exemplar)])
        for description, own, of_exemplar in points
    ]
    found = [
        (
            row["ResourceAttributes"],
            row["MetricDescription"],
            row["Attributes"],
            row["Exemplars.FilteredAttributes"],
        )
        for row in stored(emits, "otel_metrics_gauge")
    ]
    assert found == expected
    assert redacted_count(emits) == truth.count


def distinct(sets: Any) -> list[dict[str, str]]:
    """Attribute sets without those that were there before, in the same order of keys."""
    return list({tuple(attributes.items()): attributes for attributes in sets}.values())


def test_attributes_that_sampling_asks_for_are_redacted_before_it_looks() -> None:
    data = TracesData()
    of_scope = data.resource_spans.add(resource=resource({})).scope_spans.add()
    for number, value in enumerate(("gold", "silver"), 1):
        of_scope.spans.append(
            Span(trace_id=number.to_bytes(16), span_id=number.to_bytes(8), name="x", kind=Span.SPAN_KIND_SERVER,
                 start_time_unix_nano=T0_S * NS, end_time_unix_nano=T0_S * NS + 1, attributes=pairs({"tier": value}))
        )  # fmt: skip
    digest = hashlib.sha256(b"gold").hexdigest()[:32]
    kept = {}
    for name, rules, values in (
        ("plain", RedactionRules(), ["gold"]),
        ("dropped", RedactionRules(drop=("tier",)), ["gold"]),
        ("masked", RedactionRules(mask=("tier",)), ["****"]),
        ("hashed", RedactionRules(hash=("tier",)), [digest]),
    ):
        policy = {
            "name": "tier",
            "type": "string_attribute",
            "string_attribute": {"key": "tier", "values": values},
        }
        sampling = SamplingSettings.model_validate({"policies": [policy]})
        processor = span_processor(TopicPartition(topics.SPANS, 0), SETTINGS, sampling, None, rules)
        emits = processor.feed(records(data.SerializeToString()))
        kept[name] = [row["SpanAttributes"] for row in stored(emits, "otel_traces")]
    assert kept == {
        "plain": [[("tier", "gold")]],
        "dropped": [],
        "masked": [[("tier", "****")], [("tier", "****")]],
        "hashed": [[("tier", digest)]],
    }


def test_every_column_of_codes_is_known_to_be_one() -> None:
    """Spans have the first code of equal texts in these columns."""
    numbers = {"flags", "resource", "scope", "record", "offset", "length"}
    assert {field.name for field in SPAN_SCHEMA if field.type == pa.uint32()} == numbers | {*SPAN_CODES}
    assert {field.name for field in RESOURCE_SCHEMA if field.type == pa.uint32()} == {"base", *RESOURCE_CODES}


def test_dimensions_of_red_are_redacted_by_key_and_by_pattern() -> None:
    data = TracesData()
    of_scope = data.resource_spans.add(resource=resource({})).scope_spans.add()
    said = [{"tier": "gold", "user": "ann"}, {"tier": "token=abc", "user": "ann"}, {}]
    for number, own in enumerate(said, 1):
        of_scope.spans.append(
            Span(
                trace_id=number.to_bytes(16),
                span_id=number.to_bytes(8),
                name="x",
                kind=Span.SPAN_KIND_SERVER,
                start_time_unix_nano=T0_S * NS,
                end_time_unix_nano=T0_S * NS + 1,
                attributes=pairs(own),
            )
        )
    dimensions = [{"name": name, "key": name, "default": "none"} for name in ("tier", "user")]
    settings = ProcessorSettings.model_validate({"partitions": 1, "dimensions": dimensions})
    found = {}
    for name, rules in (
        ("hash", RedactionRules(hash=("user",))),
        ("drop", RedactionRules(drop=("user",))),
        ("mask", RedactionRules(mask=("*",))),
    ):
        processor = span_processor(TopicPartition(topics.SPANS, 0), settings, KEEP_ALL, None, rules)
        red = stored(processor.feed(records(data.SerializeToString())), "red_10s")
        found[name] = {(*dict(row["dimensions"]).values(), row["requests"]) for row in red}
    ann = hashlib.sha256(b"ann").hexdigest()[:32]
    assert found == {
        "hash": {("gold", ann, 1), ("token=****", ann, 1), ("none", "none", 1)},
        "drop": {("gold", "none", 1), ("token=****", "none", 1), ("none", "none", 1)},
        "mask": {("****", "****", 2), ("none", "none", 1)},
    }
