"""Odd requests to the HTTP port have a clear answer; none leaves a traceback or its content in the log."""

import socket
from contextlib import closing, suppress
from pathlib import Path

import pytest

from ingest.http.encoding import JSON, PROTOBUF
from tests.support.others import assert_others_are_served
from tests.support.served import LONG_S, Served
from tests.support.wire import EXPORT, Wire, message

TOKEN = b"tok-SECRET"
HEAD = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\n".encode()
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def request(
    path: bytes = b"/v1/traces",
    method: bytes = b"POST",
    version: bytes = b"HTTP/1.1",
    kind: bytes = PROTOBUF.encode(),
    headers: bytes = b"",
    body: bytes = b"",
    host: bytes = b"Host: x\r\n",
) -> bytes:
    line = b" ".join([method, path, version]) + b"\r\n" + host
    return line + b"Content-Type: %b\r\nContent-Length: %d\r\n%b\r\n%b" % (kind, len(body), headers, body)


def json_request(body: bytes) -> bytes:
    return request(kind=JSON.encode(), body=body)


def span(field: bytes) -> bytes:
    return json_request(b'{"resourceSpans":[{"scopeSpans":[{"spans":[{%b}]}]}]}' % field)


ODD: dict[str, tuple[int, bytes]] = {
    "percent": (404, request(b"/v1/%zz")),
    "percent at the end": (404, request(b"/v1/traces%")),
    "percent of no text": (404, request(b"/v1/%ff%fe")),
    "percent NUL": (404, request(b"/v1/%00")),
    "NUL in a path": (400, request(b"/v1/\0traces")),
    "UTF-8 in a path": (400, request("/v1/é".encode())),
    "no UTF-8 in a path": (400, request(b"/v1/\xff\xfe")),
    "no UTF-8 in a query": (400, request(b"/v1/traces?\xff=%zz&%")),
    "a star": (400, request(b"*")),
    "half an address": (400, request(b"http://[/v1/traces")),
    "a port that is none": (400, request(b"http://a:99999/v1/traces")),
    "connect": (404, request(b"x:80", method=b"CONNECT")),
    "no path": (400, b"POST  HTTP/1.1\r\n\r\n"),
    "two slashes": (404, request(b"//v1/traces")),
    "a method in small letters": (400, request(method=b"post")),
    "a method that is none": (400, request(method=b"BREW")),
    "a method of noise": (400, request(method=b"\xff\xfe")),
    "trace": (405, request(method=b"TRACE")),
    "head": (405, request(method=b"HEAD")),
    "HTTP/0.9": (405, b"GET /v1/traces\r\n\r\n"),
    "HTTP/2.0": (400, request(version=b"HTTP/2.0")),
    "HTTP/9.9": (400, request(version=b"HTTP/9.9")),
    "HTTQ/1.1": (400, request(version=b"HTTQ/1.1")),
    "length -5": (400, HEAD + b"Content-Length: -5\r\n\r\n"),
    "length +5": (400, HEAD + b"Content-Length: +5\r\n\r\nabcde"),
    "length 0x5": (400, HEAD + b"Content-Length: 0x5\r\n\r\nabcde"),
    "length of many digits": (400, HEAD + b"Content-Length: " + b"9" * 32 + b"\r\n\r\n"),
    "length in other digits": (400, HEAD + "Content-Length: ٣\r\n\r\nabc".encode()),
    "length with an underscore": (400, HEAD + b"Content-Length: 1_0\r\n\r\nabcdefghij"),
    "no length": (400, HEAD + b"Content-Length: \r\n\r\n"),
    "transfer of another kind": (400, HEAD + b"Transfer-Encoding: xchunked\r\n\r\n"),
    "chunked twice": (400, HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "a chunk of no size": (400, CHUNKED + b"zz\r\n"),
    "a chunk of -1": (400, CHUNKED + b"-1\r\n\r\n"),
    "a chunk of many digits": (400, CHUNKED + b"f" * 21 + b"\r\n"),
    "a chunk that is longer": (400, CHUNKED + b"2\r\nabcdef\r\n0\r\n\r\n"),
    "a trailer of no name": (400, CHUNKED + b"0\r\nauthorization " + TOKEN + b"\r\n\r\n"),
    "a header of no name": (400, HEAD + b": " + TOKEN + b"\r\n\r\n"),
    "a header without a colon": (400, HEAD + b"Authorization Bearer " + TOKEN + b"\r\n\r\n"),
    "a header with a space": (400, HEAD + b"Authorization : Bearer " + TOKEN + b"\r\n\r\n"),
    "NUL in a header": (400, HEAD + b"Authorization: Bearer " + TOKEN + b"\0\r\n\r\n"),
    "a lone CR": (400, HEAD + b"Authorization: Bearer " + TOKEN + b"\rX: y\r\n\r\n"),
    "a control character": (400, HEAD + b"X\x01: " + TOKEN + b"\r\n\r\n"),
    "a folded header": (400, HEAD + b"X: a\r\n " + TOKEN + b"\r\n\r\n"),
    "a header that is too long": (400, HEAD + b"Authorization: Bearer " + TOKEN * 2000 + b"\r\n\r\n"),
    "LF alone": (400, HEAD.replace(b"\r\n", b"\n") + b"Authorization: " + TOKEN + b"\n\n"),
    "no host": (400, request(host=b"")),
    "two hosts": (400, request(headers=b"Host: y\r\n")),
    "a type of noise": (415, request(kind=b"\xff\xfe")),
    "a type of half a parameter": (200, request(kind=PROTOBUF.encode() + b'; a="')),
    "an unknown charset": (200, request(kind=b"application/json; charset=\xff", body=b"{}")),
    "a type that is a slash": (415, request(kind=b"/")),
    "a type that is long": (415, request(kind=b"a" * 7000 + b"/b")),
    "an encoding of noise": (415, request(headers=b"Content-Encoding: \xff\r\n")),
    "two encodings": (415, request(headers=b"Content-Encoding: gzip, gzip\r\n")),
    "no deflate": (400, request(headers=b"Content-Encoding: deflate\r\n", body=b"x")),
    "brotli": (415, request(headers=b"Content-Encoding: br\r\n", body=b"x")),
    "no gzip": (400, request(headers=b"Content-Encoding: gzip\r\n", body=b"noise")),
    "upgrade, then noise": (
        200,
        request(headers=b"Connection: Upgrade\r\nUpgrade: h2c\r\n") + b"\xff\xff " + TOKEN + b"\r\n\r\n",
    ),
    "noise after a request": (400, request() + b"GARBAGE " + TOKEN + b"\r\n\r\n"),
    "cookies of noise": (200, request(headers=b"Cookie: \xff=;;;" + TOKEN + b"\r\n")),
    "a token of noise": (200, request(headers=b"Authorization: \xff\xfe\r\n")),
    "an expectation of noise": (200, request(headers=b"Expect: \xff\r\n")),
    "TLS": (400, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"a" * 100),
    "NULs": (400, bytes(100)),
    "JSON that nests": (400, json_request(b"[" * 100_000 + b"]" * 100_000)),
    "JSON lists in lists": (
        400,
        json_request(b'{"resourceSpans":' + b"[" * 1000 + b"]" * 1000 + b"}"),
    ),
    "JSON objects in objects": (
        200,
        span(
            b'"attributes":[{"key":"k","value":'
            + b'{"arrayValue":{"values":[' * 120
            + b"{}"
            + b"]}}" * 120
            + b"}]"
        ),
    ),
    "JSON without an end": (400, json_request(b'{"resourceSpans": [')),
    "JSON of a number": (400, json_request(b"1")),
    "a number beyond doubles": (400, span(b'"startTimeUnixNano":1e999')),
    "a number beyond 64 bits": (400, span(b'"startTimeUnixNano":36893488147419103232')),
    "a number below 0": (400, span(b'"startTimeUnixNano":-1')),
    "half a surrogate": (200, span(b'"name":"\\ud800"')),
    "an id that is no text": (400, span(b'"traceId":"\xc3\xa9"')),
    "an id that is no string": (400, span(b'"traceId":{"a":[]}')),
}
"""What is sent, and the status of the answer."""

LATE = {
    "a chunk of no size": b"2\r\nab\r\nzz\r\n",
    "a chunk that is longer": b"2\r\nabcdef\r\n",
    "a chunk of many digits": b"f" * 21 + b"\r\n",
    "a trailer of no name": b"0\r\nauthorization " + TOKEN + b"\r\n\r\n",
}
"""What comes after the headers were read."""


def connect(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.http_port), LONG_S)


def answered(peer: socket.socket) -> bytes:
    """The beginning of the answer."""
    heard = b""
    with suppress(ConnectionError):
        while len(heard) < 12 and (piece := peer.recv(1 << 16)):
            heard += piece
    return heard


def assert_nothing_is_logged(served: Served) -> None:
    assert "Traceback" not in served.said
    assert TOKEN.decode() not in served.said


@pytest.mark.parametrize("name", ODD)
def test_an_odd_request_has_a_clear_answer(abused: Served, name: str) -> None:
    status, sent = ODD[name]
    with closing(connect(abused)) as peer:
        peer.sendall(sent)
        heard = answered(peer)
    assert heard[:5] == b"HTTP/"
    assert heard[9:12] == str(status).encode(), heard
    assert_nothing_is_logged(abused)


@pytest.mark.parametrize("name", LATE)
def test_a_body_that_goes_wrong_later_has_one_too(abused: Served, name: str) -> None:
    with closing(connect(abused)) as peer:
        peer.sendall(CHUNKED.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert answered(peer).startswith(b"HTTP/1.1 100 "), "the headers are read"
        peer.sendall(LATE[name])
        assert answered(peer)[9:12] == b"400"
    assert_nothing_is_logged(abused)


def test_a_peer_that_goes_in_the_middle_leaves_nothing(abused: Served) -> None:
    for sent in (HEAD, HEAD + b"Content-Length: 1000\r\n\r\nabc", CHUNKED + b"5\r\nab"):
        with closing(connect(abused)) as peer:
            peer.sendall(sent)
    assert_others_are_served(abused)
    assert_nothing_is_logged(abused)


def test_noise_is_logged_now_and_then(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        for _ in range(50):
            with closing(connect(served)) as peer:
                peer.sendall(b"noise " + TOKEN + b"\r\n\r\n")
                assert answered(peer)[9:12] == b"400"
        assert "malformed HTTP requests were answered with 400" in served.said
        assert served.said.count("malformed HTTP") < 20
        assert_nothing_is_logged(served)


@pytest.mark.parametrize(
    "headers",
    [
        [*EXPORT, ("authorization", "Bearer tok-SECRET\0")],
        [*EXPORT, ("Authorization", "Bearer tok-SECRET")],
        [*EXPORT, ("x y", "tok-SECRET")],
        [*EXPORT, ("", "tok-SECRET")],
        [*EXPORT, ("authorization-bin", "tok-SECRET!")],
        [*EXPORT, ("connection", "tok-SECRET")],
        [*EXPORT, ("te", "tok-SECRET")],
        [*EXPORT, (":path", "/tok-SECRET")],
        [("authorization", "Bearer tok-SECRET"), *EXPORT],
        [(name, "/tok-SECRET/%zz" if name == ":path" else value) for name, value in EXPORT],
        [(name, "tok-SECRET" if name == ":method" else value) for name, value in EXPORT],
        [(name, "tok-SECRET" if name == ":scheme" else value) for name, value in EXPORT],
    ],
)
def test_odd_headers_of_a_call_are_not_logged(abused: Served, headers: list[tuple[str, str]]) -> None:
    with Wire(abused.grpc_port) as wire:
        wire.begin()
        wire.send(wire.request(1, message(b""), headers))
        wire.is_alive()
    assert_others_are_served(abused)
    assert_nothing_is_logged(abused)
