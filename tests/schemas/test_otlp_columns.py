"""What the columns of a SpanBatch say of spans."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from schemas.errors import MalformedOtlp
from schemas.histogram import UPPER_NS, bucket_of
from schemas.otlp.semantics import (
    GRPC_STATUSES,
    MAX_BYTES,
    MAX_TIME_NS,
    PROTOCOLS,
    RESOURCE_KEYS,
    SPAN_KEYS,
    SPAN_PARTS,
)
from schemas.spans import RESOURCE_SCHEMA, SCOPE_SCHEMA, SPAN_SCHEMA
from tests.schemas.otlp_messages import SPAN_ID, TRACE_ID, make_span, make_traces

_CODES = ("name", "operation", "trace_state", "status_message", "response_flags", "upstream_cluster", "peer", "db_system", "db_name",
          "messaging_system", "messaging_destination")  # fmt: skip


def _rows(decoder: ModuleType, *payloads: bytes, extra_keys: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Spans as dicts, codes and resources resolved."""
    spans, resources, _, strings, _ = decoder.decode_spans(payloads, extra_keys)
    rows: list[dict[str, Any]] = spans.to_pylist()
    texts = strings.to_pylist()
    for row in rows:
        for name in (*_CODES, *(f"attr:{key}" for key in extra_keys)):
            row[name] = None if row[name] is None else texts[row[name]]
        resource = resources.slice(row["resource"], 1).to_pylist()[0]
        row["resource"] = {
            name: value if name in ("gateway", "base", "attributes") else texts[value]
            for name, value in resource.items()
        }
    return rows


def _row(
    decoder: ModuleType, attributes: Mapping[str, Any] | list[tuple[str, Any]], **fields: Any
) -> dict[str, Any]:
    (row,) = _rows(decoder, make_traces(make_span(attributes, **fields)))
    return row


def test_own_fields(decoder: ModuleType) -> None:
    span = make_span(
        parent_span_id=b"\xff" * 8,
        trace_state="a=b",
        flags=0x301,
        name="GET /",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=1_700_000_000_000_000_000,
        end_time_unix_nano=1_700_000_000_000_001_000,
        status=Status(code=Status.STATUS_CODE_ERROR, message="no"),
    )
    payload = make_traces(span)
    (row,) = _rows(decoder, b"", payload)
    assert row["trace_hi"] == int.from_bytes(TRACE_ID[:8], "big")
    assert row["trace_lo"] == int.from_bytes(TRACE_ID[8:], "big")
    assert row["span_id"] == int.from_bytes(SPAN_ID, "big")
    assert row["parent_id"] == 2**64 - 1
    assert (row["start_ns"], row["end_ns"], row["duration_ns"]) == (
        1_700_000_000_000_000_000,
        1_700_000_000_000_001_000,
        1000,
    )
    assert row["bucket"] == bucket_of(1000)
    assert (row["kind"], row["status_code"], row["flags"]) == (2, 2, 0x301)
    assert (row["name"], row["operation"], row["trace_state"], row["status_message"]) == (
        "GET /",
        "GET /",
        "a=b",
        "no",
    )
    assert row["record"] == 1
    assert payload[row["offset"] : row["offset"] + row["length"]] == span.SerializeToString()


def test_absent_fields(decoder: ModuleType) -> None:
    (row,) = _rows(decoder, make_traces(Span()))
    resource = row.pop("resource")
    assert {value for name, value in row.items() if name not in ("offset", "bucket")} == {
        0,
        "",
    }  # and False, which is 0
    assert row["bucket"] == bucket_of(0)
    assert resource == {
        "service": "unknown_service",
        "attributes": [],
        **dict.fromkeys(["namespace", "cluster", "version", "instance", "pod", "address"], ""),
        **dict.fromkeys(["gateway", "base"], 0),
    }


@pytest.mark.parametrize("payloads", [[], [b""], [b"", b""]])
def test_no_spans(decoder: ModuleType, payloads: list[bytes]) -> None:
    spans, resources, scopes, strings, _ = decoder.decode_spans(payloads, ["k"])
    assert spans.schema.names == [*SPAN_SCHEMA.names, "attr:k"]
    assert (resources.schema, scopes.schema) == (RESOURCE_SCHEMA, SCOPE_SCHEMA)
    assert (len(spans), len(resources), len(scopes), strings.to_pylist()) == (0, 0, 0, [""])


def test_ids_of_a_wrong_length_read_as_zero(decoder: ModuleType) -> None:
    (row,) = _rows(decoder, make_traces(Span(trace_id=b"x" * 15, span_id=b"x" * 9, parent_span_id=b"x")))
    assert [row[name] for name in ("trace_hi", "trace_lo", "span_id", "parent_id")] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (5, 3, (5, 3, 0)),
        (0, 2**63, (0, MAX_TIME_NS, MAX_TIME_NS)),
        (2**64 - 1, 2**64 - 1, (MAX_TIME_NS, MAX_TIME_NS, 0)),
    ],
)
def test_times(decoder: ModuleType, start: int, end: int, expected: tuple[int, int, int]) -> None:
    row = _row(decoder, {}, start_time_unix_nano=start, end_time_unix_nano=end)
    assert (row["start_ns"], row["end_ns"], row["duration_ns"]) == expected


def test_buckets_are_those_of_the_histogram(decoder: ModuleType) -> None:
    durations = sorted(
        {max(0, bound + delta) for bound in UPPER_NS for delta in (-1, 0, 1) if bound + delta <= MAX_TIME_NS}
    )
    spans = [make_span(end_time_unix_nano=duration) for duration in durations]
    table, *_ = decoder.decode_spans([make_traces(*spans)], [])
    assert table["duration_ns"].to_pylist() == durations
    assert table["bucket"].to_pylist() == [bucket_of(duration) for duration in durations]


@pytest.mark.parametrize(("kind", "status", "expected"), [(5, 2, (5, 2)), (6, 3, (0, 0)), (-1, -1, (0, 0))])
def test_unknown_enum_numbers_read_as_zero(
    decoder: ModuleType, kind: int, status: int, expected: tuple[int, int]
) -> None:
    row = _row(decoder, {}, kind=kind, status=Status(code=status))  # type: ignore[arg-type]  # any int32 is allowed on the wire
    assert (row["kind"], row["status_code"]) == expected


@pytest.mark.parametrize(
    "field",
    [
        field
        for field in SPAN_KEYS
        if field
        not in (
            "http_status",
            "retry_count",
            "error",
            "component",
            "route",
            "messaging_operation",
            "grpc_status",
        )
    ],
)
def test_each_key_of_a_text_field_and_their_order(decoder: ModuleType, field: str) -> None:
    keys = SPAN_KEYS[field]
    for index, key in enumerate(keys):
        assert _row(decoder, {key: "v"})[field] == "v"
        assert _row(decoder, {name: name for name in reversed(keys[index:])})[field] == key
        assert _row(decoder, dict.fromkeys(keys[:index], "") | {key: 7})[field] == "7"


@pytest.mark.parametrize("field", ["http_status", "retry_count"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("200", 200),
        (503, 503),
        ("0", 0),
        ("", 0),
        ("65535", 65535),
        ("65536", 0),
        ("-1", 0),
        (-1, 0),
        ("2xx", 0),
        ("٣", 0),
        (2.0, 2),
        ("007", 7),
    ],
)
def test_numbers(decoder: ModuleType, field: str, value: Any, expected: int) -> None:
    for key in SPAN_KEYS[field]:
        assert _row(decoder, {key: value})[field] == expected


CLIENT, SERVER = Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER


@pytest.mark.parametrize(
    ("attributes", "kind", "status", "expected"),
    [
        ({}, SERVER, 0, False),
        ({}, SERVER, 1, False),
        ({}, SERVER, 2, True),
        ({"error": "true"}, SERVER, 0, True),
        ({"error": True}, SERVER, 0, True),
        ({"error": "false"}, SERVER, 0, False),
        ({"error": False}, SERVER, 2, True),
        ({"http.status_code": "404"}, CLIENT, 2, False),
        ({"http.response.status_code": 404}, CLIENT, 2, False),
        ({"http.status_code": "404"}, SERVER, 2, True),
        ({"http.status_code": "404", "error": "true"}, CLIENT, 2, True),
        ({"http.status_code": "500"}, CLIENT, 2, True),
        ({"http.status_code": "0", "error": "true"}, CLIENT, 0, True),
    ],
)
def test_errors(
    decoder: ModuleType, attributes: dict[str, Any], kind: Any, status: Any, expected: bool
) -> None:
    assert _row(decoder, attributes, kind=kind, status=Status(code=status))["error"] is expected


@pytest.mark.parametrize(
    ("attributes", "kind", "status", "expected"),
    [
        ({"http.response.status_code": 503}, SERVER, 0, True),
        ({"http.status_code": "500"}, CLIENT, 0, True),
        ({"http.status_code": "599"}, CLIENT, 0, True),
        ({"http.status_code": "600"}, CLIENT, 0, False),
        ({"http.status_code": "503"}, SERVER, 1, False),  # the application says that it is well
        ({"http.status_code": "503"}, SERVER, 2, False),  # `error` says it
        ({"http.status_code": "503"}, 1, 0, False),
        ({"http.status_code": "429"}, SERVER, 0, False),
        ({"http.status_code": "429"}, CLIENT, 0, True),
        ({"http.status_code": "404"}, CLIENT, 0, False),
        ({"http.status_code": "302"}, CLIENT, 0, False),
        ({"http.status_code": "0"}, CLIENT, 0, False),
        ({"rpc.grpc.status_code": 14}, SERVER, 0, True),
        ({"rpc.grpc.status_code": 5}, SERVER, 0, False),
        ({"rpc.grpc.status_code": 5}, CLIENT, 0, True),
        ({"rpc.grpc.status_code": 16}, CLIENT, 0, True),
        ({"rpc.grpc.status_code": 17}, CLIENT, 0, False),
        ({"rpc.grpc.status_code": 0}, CLIENT, 0, False),
        ({"rpc.response.status_code": "DEADLINE_EXCEEDED"}, SERVER, 0, True),
        ({"rpc.response.status_code": "PERMISSION_DENIED"}, SERVER, 0, False),
        ({"rpc.response.status_code": "PERMISSION_DENIED"}, CLIENT, 0, True),
        ({"rpc.response.status_code": "OK"}, CLIENT, 0, False),
        ({"rpc.response.status_code": "-32602"}, CLIENT, 0, False),
        ({"grpc.status_code": "13"}, CLIENT, 0, True),
        ({"grpc.status_code": "13", "http.status_code": "200"}, SERVER, 0, True),
    ],
)
def test_code_errors(
    decoder: ModuleType, attributes: dict[str, Any], kind: Any, status: Any, expected: bool
) -> None:
    """http/http-spans.md and rpc/grpc.md of the semantic conventions, status by status."""
    assert _row(decoder, attributes, kind=kind, status=Status(code=status))["code_error"] is expected


@pytest.mark.parametrize("code", range(17))
def test_grpc_codes_have_their_names(decoder: ModuleType, code: int) -> None:
    for kind in (SERVER, CLIENT):
        by_number, by_name = (
            _row(decoder, {"rpc.grpc.status_code": value}, kind=kind)["code_error"]
            for value in (code, GRPC_STATUSES[code])
        )
        assert by_number is by_name


@pytest.mark.parametrize(
    ("kind", "operation", "expected"),
    [
        (4, None, 1), (4, "publish", 1), (4, "create", 0), (5, None, 2), (5, "process", 2), (3, "send", 1), (3, "publish", 1),
        (3, "receive", 2), (3, "poll", 2), (3, "settle", 0), (3, None, 0), (1, "send", 0), (2, "receive", 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "key", ["messaging.operation.type", "messaging.operation", "messaging.operation.name"]
)
def test_messaging_roles(
    decoder: ModuleType, kind: Any, operation: str | None, expected: int, key: str
) -> None:
    row = _row(decoder, {} if operation is None else {key: operation}, kind=kind)
    assert row["messaging_role"] == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, ""),
        ({"db.system": "redis", "server.address": "cache"}, ""),
        ({"messaging.system": "kafka", "messaging.operation.type": "send"}, ""),
        ({"component": "proxy", "upstream_cluster": "tcp", "response_flags": "UF"}, ""),
        ({"http.method": ""}, ""),
        ({"http.request.method": "GET"}, "http"),
        ({"http.method": "GET"}, "http"),
        ({"http.status_code": "0"}, "http"),  # what Envoy writes of a reset
        ({"http.response.status_code": 200}, "http"),
        ({"http.protocol": "HTTP/1.1", "component": "proxy"}, "http"),  # Envoy's span of one attempt
        ({"http.flavor": "2.0"}, "http"),
        ({"http.url": "http://a/b"}, "http"),
        ({"url.full": "http://a/b"}, "http"),
        ({"db.system.name": "elasticsearch", "url.full": "http://search/_bulk"}, "http"),
        ({"rpc.system": "connect_rpc", "http.request.method": "POST"}, "http"),
        ({"rpc.system": "apache_dubbo"}, ""),
        ({"rpc.system": "grpc"}, "grpc"),
        ({"rpc.system.name": "grpc"}, "grpc"),
        ({"rpc.grpc.status_code": 0}, "grpc"),
        ({"grpc.status_code": "0", "http.protocol": "HTTP/2", "http.status_code": "200"}, "grpc"),
        ({"grpc.path": "/a.B/C", "http.method": "POST"}, "grpc"),
        ({"grpc.authority": "a:80"}, "grpc"),
        ({"grpc.content_type": "application/grpc"}, "grpc"),
    ],
)
def test_protocols(decoder: ModuleType, attributes: dict[str, Any], expected: str) -> None:
    assert PROTOCOLS[_row(decoder, attributes)["protocol"]] == expected


@pytest.mark.parametrize("field", ["request_bytes", "response_bytes"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("43", 43),
        (43, 43),
        ("0", 0),
        (str(MAX_BYTES), MAX_BYTES),
        (MAX_BYTES + 1, 0),
        (2**63 - 1, 0),
        ("9" * 400, 0),
        (-1, 0),
        ("-1", 0),
        ("1e3", 0),
        ("12 B", 0),
        ("٣", 0),
        (True, 0),
        (["5"], 0),
    ],
)
def test_bytes(decoder: ModuleType, field: str, value: Any, expected: int) -> None:
    for key in SPAN_PARTS[field]:
        row = _row(decoder, {key: value})
        assert (row[field], row["request_bytes"] + row["response_bytes"]) == (expected, expected)


def test_the_bytes_of_a_body_count_before_those_of_a_message(decoder: ModuleType) -> None:
    sizes = {
        "http.request.size": 900,
        "http.request.body.size": 700,
        "http.response.size": 90,
        "response_size": "70",
    }
    row = _row(decoder, sizes)
    assert (row["request_bytes"], row["response_bytes"]) == (700, 70)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("reviews-shadow", True),
        ("reviews.shop.svc.cluster.local-shadow:9080", True),
        ("[::1]-shadow:80", True),
        ("reviews", False),
        ("reviews-shadow.shop", False),
        ("reviews-shadowed:80", False),
        ("reviews-shadow:", False),
        ("reviews-shadow:http", False),
        ("reviews:80-shadow", True),
        ("", False),
    ],
)
def test_mirrored_requests_are_told_by_their_host(decoder: ModuleType, host: str, expected: bool) -> None:
    assert [_row(decoder, {key: host, "k": "v"})["mirrored"] for key in SPAN_PARTS["host"]] == [expected] * 4
    for url in (f"http://{host}/a-shadow", f"https://user@{host}?b=c-shadow", f"http://{host}"):
        assert [_row(decoder, {key: url})["mirrored"] for key in SPAN_PARTS["url"]] == [expected] * 2
    assert _row(decoder, {"http.host": "a", "server.address": host})["mirrored"] is expected
    assert _row(decoder, {"peer.service": host, "k": [host]})["mirrored"] is False


@pytest.mark.parametrize(
    ("component", "kind", "name", "expected"),
    [
        ("proxy", 3, "mirror", True),
        ("proxy", 3, "mirrors", False),
        ("proxy", 2, "mirror", False),
        ("app", 3, "mirror", False),
    ],
)
def test_the_span_that_a_mirroring_proxy_makes_is_told_by_its_name(
    decoder: ModuleType, component: str, kind: Any, name: str, expected: bool
) -> None:
    assert _row(decoder, {"component": component}, kind=kind, name=name)["mirrored"] is expected


def test_response_flags(decoder: ModuleType) -> None:
    assert _row(decoder, {"response_flags": "-"})["response_flags"] == ""
    assert _row(decoder, {"response_flags": "URX,UT"})["response_flags"] == "URX,UT"


def test_proxies_are_named_by_their_route(decoder: ModuleType) -> None:
    routed = {"http.route": "/a", "envoy.route": "a"}
    assert _row(decoder, routed, name="n")["operation"] == "n"
    row = _row(decoder, {**routed, "component": "proxy"}, name="n")
    assert (row["proxy"], row["operation"], row["name"]) == (True, "a", "n")
    assert _row(decoder, {"component": "proxy"}, name="n")["operation"] == "n"
    (row,) = _rows(
        decoder,
        make_traces(make_span({"route_name": "r"}, name="n"), resource={"telemetry.sdk.name": "envoy"}),
    )
    assert (row["proxy"], row["operation"]) == (True, "r")


@pytest.mark.parametrize("field", [field for field in RESOURCE_KEYS if field != "sdk"])
def test_each_key_of_a_resource_field_and_their_order(decoder: ModuleType, field: str) -> None:
    keys = RESOURCE_KEYS[field]
    for index, key in enumerate(keys):
        (row,) = _rows(
            decoder, make_traces(make_span(), resource={name: name for name in reversed(keys[index:])})
        )
        assert row["resource"][field] == key


def test_equal_resources_are_one_row(decoder: ModuleType) -> None:
    payloads = [make_traces(make_span(), resource={"service.name": name, "n": 1}) for name in "aba"]
    spans, resources, scopes, strings, _ = decoder.decode_spans(payloads, [])
    assert spans["resource"].to_pylist() == [0, 1, 0]
    assert [strings[code].as_py() for code in resources["service"].to_pylist()] == ["a", "b"]
    assert resources["attributes"].to_pylist() == [
        [("service.name", "a"), ("n", "1")],
        [("service.name", "b"), ("n", "1")],
    ]
    assert scopes.to_pylist() == [{"name": "scope", "version": "1"}]


def test_strings_are_interned_in_the_order_of_first_use(decoder: ModuleType) -> None:
    payload = make_traces(
        *(make_span({"peer.service": "p"}, name=name) for name in ("b", "a", "b")),
        resource={"service.name": "a"},
    )
    spans, _, _, strings, _ = decoder.decode_spans([payload], [])
    assert strings.to_pylist() == ["", "a", "b", "p"]
    assert spans["name"].to_pylist() == [2, 1, 2]


def test_the_last_of_equal_keys_counts(decoder: ModuleType) -> None:
    row = _row(
        decoder, [("error", "true"), ("upstream_cluster", "x"), ("error", "false"), ("upstream_cluster", "y")]
    )
    assert (row["error"], row["upstream_cluster"]) == (False, "y")


def test_extra_keys_come_from_the_span_else_from_its_resource(decoder: ModuleType) -> None:
    keys = ("k", "error", "größe")
    spans = (make_span({"k": "span"}), make_span({"k": ""}), make_span({"error": True, "größe": [1, "a"]}))
    rows = _rows(
        decoder, make_traces(*spans, resource={"k": "resource"}), make_traces(make_span()), extra_keys=keys
    )
    assert [row["attr:k"] for row in rows] == ["span", "", "resource", None]
    assert [row["attr:error"] for row in rows] == [None, None, "true", None]
    assert [row["attr:größe"] for row in rows] == [None, None, '[1,"a"]', None]


def test_malformed_records_are_named(decoder: ModuleType) -> None:
    with pytest.raises(MalformedOtlp) as error:
        decoder.decode_spans([make_traces(make_span()), b"\x0a\x05"], [])
    assert error.value.record == 1


_ISTIO = {
    "node_id": "sidecar~10.0.0.7~reviews-v1-545db77b95-2ps7q.shop~shop.svc.cluster.local",
    "istio.canonical_service": "reviews",
    "istio.canonical_revision": "v1",
    "istio.namespace": "shop",
    "istio.cluster_id": "one",
    "istio.mesh_id": "mesh",
}


@pytest.mark.parametrize(
    ("resource", "tags", "expected"),
    [
        ({"service.name": "reviews.shop"}, _ISTIO, ("reviews", "shop", "one", "v1", "10.0.0.7", 0)),
        ({"service.name": "own", "k8s.cluster.name": "c"}, _ISTIO, ("own", "shop", "c", "v1", "10.0.0.7", 0)),
        ({"service.name": "a.other"}, _ISTIO, ("a.other", "shop", "one", "v1", "10.0.0.7", 0)),
        ({"service.name": "a.shop"}, {}, ("a.shop", "", "", "", "", 0)),
        ({"service.name": "a.shop"}, {"istio.mesh_id": "m"}, ("a", "shop", "m", "", "", 0)),
        ({"service.name": "unknown_service:envoy"}, _ISTIO, ("reviews", "shop", "one", "v1", "10.0.0.7", 0)),
        ({"service.name": "istio-proxy.shop"}, _ISTIO, ("reviews", "shop", "one", "v1", "10.0.0.7", 0)),
        ({}, {"node_id": _ISTIO["node_id"]}, ("reviews-v1", "shop", "", "", "10.0.0.7", 0)),
        ({}, {"node_id": "router~10.0.0.8~gw-0.infra~x"}, ("gw-0", "infra", "", "", "10.0.0.8", 1)),
        ({}, {"node_id": "sidecar~10.0.0.8~gw-0~x"}, ("unknown_service", "", "", "", "", 0)),
        ({"service.name": "s"}, {"node_id": "front-0"}, ("s", "", "", "", "", 0)),
    ],
)
def test_who_made_a_span(
    decoder: ModuleType, resource: dict[str, str], tags: dict[str, str], expected: tuple[object, ...]
) -> None:
    (row,) = _rows(decoder, make_traces(make_span(tags), resource=resource))
    fields = ("service", "namespace", "cluster", "version", "address", "gateway")
    assert tuple(row["resource"][field] for field in fields) == expected


def test_a_resource_has_a_row_for_each_of_its_spans_tags_and_its_attributes_once(decoder: ModuleType) -> None:
    spans = [make_span({"istio.cluster_id": name}) for name in ("a", "b", "a")]
    table, resources, *_ = decoder.decode_spans([make_traces(*spans, resource={"service.name": "s"})], [])
    assert table["resource"].to_pylist() == [0, 1, 0]
    assert resources["base"].to_pylist() == [0, 0]
    assert resources["attributes"].to_pylist() == [[("service.name", "s")], []]


def test_a_clients_peer_is_named_by_its_url_before_an_address(decoder: ModuleType) -> None:
    named = {"http.url": "http://a.example:80/x", "network.peer.address": "10.0.0.7"}
    assert _row(decoder, named, kind=Span.SPAN_KIND_CLIENT)["peer"] == "a.example"
    assert (
        _row(decoder, named | {"url.full": "no url", "http.url": ""}, kind=Span.SPAN_KIND_CLIENT)["peer"]
        == "10.0.0.7"
    )
    assert _row(decoder, named)["peer"] == ""
