"""Credentials as they are met in telemetry, and texts that look like some and are none."""

import gzip
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from processors.redaction.batches import redact_details, redact_logs, redact_points, redact_spans
from processors.redaction.redaction import MASK_ALL, NOTHING, Redaction
from schemas import otlp
from schemas.logs import LogBatch
from schemas.redaction import RedactionRules
from schemas.spans import SpanBatch

DATA = Path(__file__).parents[2] / "data"
DEFAULTS = Redaction.of(RedactionRules())
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIEow\n-----END RSA PRIVATE KEY-----"

CREDENTIALS = {
    "Bearer abc.def.ghi": "Bearer ****",
    "got bearer s3cr3t, no": "got bearer ****, no",
    "Authorization: Bearer " + JWT: "Authorization: Bearer ****",
    "authorization=Bearer%20abc123": "authorization=****",
    "BEARER abcdefghijklmnopqrstuvwxyz": "BEARER ****",
    "Basic dXNlcjpwYXNz": "Basic ****",
    "basic dXNlcjpwYXNzd29yZA==": "basic ****",
    "https://user:pw@host/x": "https://user:****@host/x",
    "dial amqp://:pw@mq:5672 failed": "dial amqp://:****@mq:5672 failed",
    "postgres://u:p@ss@host:5432/db": "postgres://u:****@host:5432/db",
    "postgres://u:pa/ss@host/db": "postgres://u:****@host/db",
    "mongodb://u:p@h1:1,h2:2/db": "mongodb://u:****@h1:1,h2:2/db",
    "http://h/x?token=abc&y=1": "http://h/x?token=****&y=1",
    "/x?access_token=a-b&api_key=c&password=d#e": "/x?access_token=****&api_key=****&password=****",
    "token=abc&x=1": "token=****&x=1",
    "a=1&sig=x%2By": "a=1&sig=****",
    "https://s3/k?X-Amz-Signature=ab&X-Amz-Expires=1": "https://s3/k?X-Amz-Signature=****&X-Amz-Expires=1",
    "Server=db;Uid=sa;Pwd=x y": "Server=db;Uid=sa;Pwd=**** y",
    'password="two words" user=x': "password=**** user=x",
    "CLIENT_SECRET=Foo": "CLIENT_SECRET=****",
    "AKIAIOSFODNN7EXAMPLE is": "**** is",
    f"cookie was {JWT}.": "cookie was ****",
    f"key {PEM} end": "key **** end",
    "-----BEGIN PRIVATE KEY-----\nMIIEow": "****",
    '{"user":"u","password":"a\\"b"}': '{"user":"u","password":"****"}',
    '{"m":"{\\"client_secret\\": \\"a\\", \\"b\\": \\"c\\"}"}': '{"m":"{\\"client_secret\\": \\"****\\", \\"b\\": \\"c\\"}"}',
    "Cookie: sid=abc; b=c\nHost: x": "Cookie: ****\nHost: x",
    'Authorization: Digest username="u"': "Authorization: Digest ****",
    "x-api-key: abc": "x-api-key: ****",
}
NEAR_MISSES = (
    "token bucket",
    "basic auth failed",
    "bearer token is missing",
    'Bearer realm="example"',
    "Invalid bearer authentication.",
    "Basic requirements are not met",
    "4bf92f3577b34da6a3ce929d0e0e4736",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "123e4567-e89b-12d3-a456-426614174000",
    "http://host:8080/a@b",
    "http://host:8080?mail=a@b",
    "http://[::1]:8080/a@b",
    "ssh://git@github.com/x",
    "user@example.com",
    "12:30:00@eu",
    "/list?page_token=5&next_token=6&max_tokens=7&config=8&design=9",
    "password: incorrect",
    "password reset for user",
    "the secret is out",
    "okhttp/4.12.0 (linux; amd64)",
    "outbound|8080||reviews.shop.svc.cluster.local",
    "-----BEGIN PUBLIC KEY-----\nMII\n-----END PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----",
    "AKIA",
    "BASIC",
    "cookie: missing",
    "Authorization: denied",
    '{"tokens":"5","password_reset":"no","monkey":"k"}',
    "SELECT * FROM t WHERE password = ? AND token = $1",
    "Bearer ****",
    "password=****",
    "https://u:****@h",
    "",
)


@pytest.mark.parametrize("text", CREDENTIALS)
def test_credentials_are_masked_and_counted_and_what_is_masked_stays_as_it_is(text: str) -> None:
    masked, count = DEFAULTS.texts(pa.array(["plain", text]))
    assert masked.to_pylist() == ["plain", CREDENTIALS[text]]
    assert count == 1
    again, count = DEFAULTS.texts(masked)
    assert (again.to_pylist(), count) == (["plain", CREDENTIALS[text]], 0)
    off, count = Redaction.of(RedactionRules(credentials=False)).texts(pa.array([text]))
    assert (off.to_pylist(), count) == ([text], 0)


@pytest.mark.parametrize("text", NEAR_MISSES)
def test_what_looks_like_a_credential_and_is_none_stays(text: str) -> None:
    same, count = DEFAULTS.texts(pa.array([text]))
    assert (same.to_pylist(), count) == ([text], 0)


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "http.request.header.authorization",
        "http.request.header.Proxy-Authorization",
        "http.request.header.proxy_authorization",
        "http.request.header.cookie",
        "http.response.header.set-cookie",
        "http.request.header.x-api-key",
        "http.request.header.x-vault-token",
        "http.request.header.x-goog-iap-jwt-assertion-token",
        "http.request.header.x-client-secret-id",
        "rpc.grpc.request.metadata.authorization",
        "db.password",
        "password",
        "app.client_secret",
        "Token",
    ],
)
def test_keys_of_credentials_have_their_values_masked(key: str) -> None:
    assert DEFAULTS.action(key) == MASK_ALL
    assert Redaction.of(RedactionRules(credentials=False)).action(key) == NOTHING


@pytest.mark.parametrize(
    "key",
    [
        "http.request.header.user-agent",
        "http.request.header.x-max-tokens",
        "http.request.header.content-type",
        "gen_ai.usage.input_tokens",
        "token.bucket",
        "password_reset",
        "authorization.result",
        "k8s.secret.name",
        "cookies",
        "messaging.kafka.message.key",
        "service.name",
        "meshflow.cut",
    ],
)
def test_keys_that_only_look_like_those_of_credentials_stay(key: str) -> None:
    assert DEFAULTS.action(key) == NOTHING


@pytest.mark.parametrize(
    ("file", "decode"),
    [
        ("envoy/traces", otlp.decode_spans),
        ("istio/traces", otlp.decode_spans),
        ("envoy_spawn/traces", otlp.decode_spans),
        ("envoy/metrics", otlp.decode_points),
        ("envoy/logs", otlp.decode_logs),
    ],
)
def test_nothing_in_what_envoy_sent_is_a_credential(file: str, decode: Any) -> None:
    data, requests = gzip.decompress((DATA / f"{file}.bin.gz").read_bytes()), []
    while data:
        (length,) = struct.unpack_from(">I", data)
        requests.append(data[4 : 4 + length])
        data = data[4 + length :]
    batch = decode(requests)
    assert len(batch) > 100
    if isinstance(batch, SpanBatch):
        places = (batch.spans.column(name).to_numpy() for name in ("record", "offset", "length"))
        details = pa.Table.from_batches([otlp.decode_details(requests, *places)])
        assert redact_details(details, DEFAULTS)[1] == 0
        assert redact_spans(batch, DEFAULTS).redacted == 0
    else:
        redact = redact_logs if isinstance(batch, LogBatch) else redact_points
        assert redact(batch, DEFAULTS).contexts.redacted == 0
