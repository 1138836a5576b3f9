"""HTTP/1 peers that mean harm, or are broken, and TLS handshakes that go nowhere: an error or an end, the
others served meanwhile.
"""

import http.client
import socket
import ssl
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from ingest.http.encoding import PROTOBUF
from tests.conformance.conftest import ABUSED, IMPATIENT
from tests.support.others import assert_others_are_served
from tests.support.pki import Pki
from tests.support.receiving import RECEIVERS, traces
from tests.support.served import LONG_S, Served, eventually
from tests.support.wire import Wire

MEMORY_BYTES = 48 << 20
"""What one attack may add to the process; the largest sends some 10 MB."""

HEAD = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\n".encode()


def post(port: int, context: ssl.SSLContext | None = None) -> int:
    """One request's status. A busy machine may need some tries before an impatient receiver (which answers
    408, or closes).
    """
    end_s = time.monotonic() + LONG_S
    while True:
        try:
            status = post_once(port, context)
        except (OSError, http.client.HTTPException):
            if time.monotonic() > end_s:
                raise
        else:
            if status != 408 or time.monotonic() > end_s:
                return status


def post_once(port: int, context: ssl.SSLContext | None) -> int:
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=LONG_S, context=context)
        if context
        else http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_S)
    )
    with closing(connection):
        connection.request("POST", "/v1/traces", traces(0, 1), {"Content-Type": PROTOBUF})
        return connection.getresponse().status


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), LONG_S)


def answer(peer: socket.socket) -> bytes:
    """All that comes until the receiver closes. Fails after LONG_S of silence."""
    peer.settimeout(LONG_S)
    heard = b""
    with suppress(ConnectionError):
        while piece := peer.recv(1 << 16):
            heard += piece
    return heard


def send(peer: socket.socket, data: bytes) -> None:
    """Send what the receiver takes."""
    with suppress(ConnectionError, TimeoutError):
        peer.sendall(data)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (bytes(range(256)) * 8, b"400"),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", b"400"),
        (HEAD + b"X-Large: " + b"y" * 100_000 + b"\r\n\r\n", b"400"),
        (HEAD + b"".join(b"X-%d: y\r\n" % number for number in range(10_000)) + b"\r\n", b"400"),
        (HEAD + b"Content-Length: -1\r\n\r\n", b"400"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", b"400"),
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nnot a size\r\n", b"400"),
        (HEAD + b"Content-Length: 99999999999\r\n\r\n", b"413"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
    ],
    ids=[
        "noise",
        "long path",
        "long field",
        "many fields",
        "length -1",
        "two lengths",
        "length and chunks",
        "chunk size",
        "100 GB",
        "HTTP/2",
    ],
)
def test_a_wrong_request_ends_in_the_right_error(abused: Served, sent: bytes, status: bytes) -> None:
    assert post(abused.http_port) == 200
    before_bytes = abused.rss_bytes()
    with connect(abused.http_port) as peer:
        send(peer, sent)
        heard = answer(peer)
        assert heard.startswith((b"HTTP/1.1 " + status, b"HTTP/1.0 " + status))
        assert post(abused.http_port) == 200
        assert abused.rss_bytes() - before_bytes < MEMORY_BYTES


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"POST /v1/tra", b""),
        (HEAD, b""),
        (HEAD + b"Content-Length: 1000\r\n\r\nabc", b"HTTP/1.1 408"),
    ],
    ids=["nothing", "half a line", "half a head", "half a body"],
)
def test_slow_peers_are_cut_off(impatient: Served, sent: bytes, status: bytes) -> None:
    idle = impatient.open_sockets()
    with ExitStack() as stack:
        peers = [stack.enter_context(connect(impatient.http_port)) for _ in range(100)]
        for peer in peers:
            send(peer, sent)
        assert post(impatient.http_port) == 200
        for peer in peers:
            assert answer(peer).startswith(status)
    eventually(lambda: impatient.open_sockets() < idle + 50, "their sockets are closed")


def test_a_body_that_trickles_is_cut_off_too(impatient: Served) -> None:
    """Each byte comes in time; the body as a whole does not."""
    with connect(impatient.http_port) as peer:
        peer.settimeout(0.2)
        send(peer, HEAD + b"Content-Length: 1000000\r\n\r\n")
        heard = b""
        for _ in range(int(LONG_S / 0.2)):
            try:
                heard = peer.recv(1 << 16)
            except TimeoutError:
                send(peer, b"x")
            else:
                break
        assert heard.startswith(b"HTTP/1.1 408")


def test_pipelined_requests_whose_answers_nobody_reads_are_held_within_limits(abused: Served) -> None:
    assert post(abused.http_port) == 200
    before_bytes = abused.rss_bytes()
    body = traces(0, 1)
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with connect(abused.http_port) as peer:
        peer.settimeout(3)
        send(peer, request * 50_000)
        assert post(abused.http_port) == 200
        assert abused.rss_bytes() - before_bytes < MEMORY_BYTES
    assert post(abused.http_port) == 200


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_tls_handshakes_that_go_nowhere_are_cut_off(receiver: str, tmp_path: Path) -> None:
    """Silence, half a ClientHello, and plain text on both ports; clients that speak TLS are served meanwhile
    and afterwards.
    """
    pki = Pki(tmp_path)
    context = ssl.create_default_context()
    pki.ca.configure_trust(context)
    hello = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
    half_a_hello = hello.read()[:100]
    with (
        Served(tmp_path / "served", receiver, **ABUSED, **IMPATIENT, **pki.settings(tls=True)) as served,
        ExitStack() as stack,
    ):
        ports = (served.grpc_port, served.http_port)
        before_bytes = served.rss_bytes()
        peers = [stack.enter_context(connect(port)) for port in ports for _ in range(60)]
        for number, peer in enumerate(peers):
            send(peer, (b"", half_a_hello, HEAD)[number % 3])
        assert_tls_is_served(served, pki, context)
        for peer in peers:
            answer(peer)
        with Wire(served.grpc_port) as wire:
            wire.begin()
            wire.listen()
        assert_tls_is_served(served, pki, context)
        assert served.rss_bytes() - before_bytes < MEMORY_BYTES
        assert served.stop() == 0


def assert_tls_is_served(served: Served, pki: Pki, context: ssl.SSLContext) -> None:
    assert_others_are_served(served, pki.channel())
    assert post(served.http_port, context) == 200
