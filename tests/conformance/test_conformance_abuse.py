"""gRPC peers that mean harm, or are broken: each gets an error or is cut off, the others are served
meanwhile, memory stays bounded.

After h2spec and the CVEs of HTTP/2 servers (rapid reset 2023-44487, CONTINUATION floods 2024-24549 and its
kin, ping, settings, empty-frame and reset floods 2019-9511 to 9518). One process takes all of it, one attack
after the other. Where a receiver does something else than HTTP/2 or gRPC would have it, ``GRPCIO`` and
``NATIVE`` say what.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.support.others import assert_others_are_served
from tests.support.receiving import span_ids, traces
from tests.support.served import Served, eventually
from tests.support.wire import EXPORT, PREFACE, Header, Heard, Wire, message

MEMORY_BYTES = {"grpcio": 48 << 20, "native": 16 << 20}
"""What one attack may add to a process that has served before: noise, and what it may hold of one peer."""

HPACK_MEMORY_BYTES = {"grpcio": 384 << 20, "native": 16 << 20}
"""The same for header bombs: grpcio's refusal of a bomb names what was in it, so 100 at once take some memory
(of 4.5 GB asked for).
"""

FLOOD_MEMORY_BYTES = {"continuations": {"grpcio": 256 << 20, "native": 16 << 20}}
"""The same for floods: grpcio reads some 100 MB of one block of headers until it has enough."""

NEWEST = 0x80 | 62
"""An indexed header field: the newest entry of the dynamic table (RFC 7541, 6.1)."""

BOMB = gzip.compress(bytes(64 << 20))
DEFLATE_BOMB = zlib.compress(bytes(60 << 20), 9)
MEMBERS = gzip.compress(b"") * 3_000
"""All within a connection's first window, 64 KiB."""

FRAMES = 300_000


def replaced(name: str, value: str) -> list[Header]:
    """Export's headers with another value of one."""
    return [(key, value if key == name else old) for key, old in EXPORT]


def added(name: str, value: str) -> list[Header]:
    return [*EXPORT, (name, value)]


@contextmanager
def meanwhile(served: Served, memory_bytes: Mapping[str, int] = MEMORY_BYTES) -> Iterator[Wire]:
    """A peer to do harm with; with it still connected, another client must be served, and little memory be
    taken.
    """
    assert_others_are_served(served)
    before_bytes = served.rss_bytes()
    with Wire(served.grpc_port) as wire:
        yield wire
        assert_others_are_served(served)
        assert served.rss_bytes() - before_bytes < memory_bytes[served.receiver]
    assert_others_are_served(served)


def ended(heard: Heard, stream: int = 1) -> str:
    """How a stream ended, in a word: ``grpc 8``, ``http 415``, ``reset``, ``closed``."""
    headers = heard.headers.get(stream, {})
    if "grpc-status" in headers:
        return f"grpc {headers['grpc-status']}"
    if headers.get(":status", "200") != "200":
        return f"http {headers[':status']}"
    return "reset" if stream in heard.resets else "closed"


WRONG: dict[str, tuple[Callable[[Wire], bytes], set[str]]] = {
    "no message": (lambda wire: wire.request(1, b""), {"grpc 3", "grpc 13"}),
    "two messages": (
        lambda wire: wire.request(1, message(traces(0, 1)) * 2),
        {"grpc 3", "grpc 12", "grpc 13"},
    ),
    "prefix cut short": (lambda wire: wire.request(1, b"\0\0"), {"grpc 3", "grpc 13"}),
    "message cut short": (
        lambda wire: wire.request(1, message(traces(0, 1), length=100_000)),
        {"grpc 3", "grpc 13"},
    ),
    "length too small": (
        lambda wire: wire.request(1, message(traces(0, 1), length=3)),
        {"grpc 3", "grpc 12", "grpc 13"},
    ),
    "length above the limit": (lambda wire: wire.request(1, message(b"abc", length=0xFFFFFFFF)), {"grpc 8"}),
    "not OTLP": (lambda wire: wire.request(1, message(b"not OTLP")), {"grpc 3"}),
    "gzip bomb": (
        lambda wire: wire.request(1, message(BOMB, compressed=True), added("grpc-encoding", "gzip")),
        {"grpc 8"},
    ),
    "deflate bomb": (
        lambda wire: wire.request(
            1, message(DEFLATE_BOMB, compressed=True), added("grpc-encoding", "deflate")
        ),
        {"grpc 8"},
    ),
    "empty gzip members": (
        lambda wire: wire.request(1, message(MEMBERS, compressed=True), added("grpc-encoding", "gzip")),
        {"grpc 3", "grpc 13"},
    ),
    "not gzip": (
        lambda wire: wire.request(1, message(b"no", compressed=True), added("grpc-encoding", "gzip")),
        {"grpc 3", "grpc 13"},
    ),
    "gzip without its encoding": (lambda wire: wire.request(1, message(b"no", compressed=True)), {"grpc 13"}),
    "unknown encoding": (
        lambda wire: wire.request(1, message(b"no", compressed=True), added("grpc-encoding", "lz4")),
        {"grpc 12"},
    ),
    "content type": (
        lambda wire: wire.request(1, message(traces(0, 1)), replaced("content-type", "text/html")),
        {"http 415"},
    ),
    "path": (
        lambda wire: wire.request(1, message(traces(0, 1)), replaced(":path", "/nobody/Export")),
        {"grpc 12"},
    ),
    "method": (
        lambda wire: wire.request(1, b"", replaced(":method", "GET")),
        {"http 405", "grpc 12", "grpc 13", "reset"},
    ),
    "timeout that is none": (
        lambda wire: wire.request(1, message(traces(0, 1)), added("grpc-timeout", "soon")),
        {"grpc 3", "grpc 13", "reset"},
    ),
    "stream of the server's": (lambda wire: wire.request(2, message(traces(0, 1))), {"closed"}),
    "data of no stream": (
        lambda wire: DataFrame(1, message(traces(0, 1)), flags=["END_STREAM"]).serialize(),
        {"closed", "reset"},
    ),
    "frame above the limit": (
        lambda wire: wire.headers(1).serialize() + DataFrame(1, bytes(1 << 20)).serialize(),
        {"closed", "grpc 14"},
    ),
    "half a header": (
        lambda wire: HeadersFrame(1, b"\x40\x7f", flags=["END_HEADERS"]).serialize(),
        {"closed", "reset"},
    ),
    "index of nothing": (
        lambda wire: HeadersFrame(1, b"\xff\xff\x7f", flags=["END_HEADERS"]).serialize(),
        {"closed", "reset"},
    ),
}
"""What a peer sends, and how it may end."""

GRPCIO: dict[str, set[str]] = {
    # It drops such a call and never ends it: the peer's deadline has to, or max_connection_age.
    "no message": {"unanswered"},
    "prefix cut short": {"unanswered"},
    "message cut short": {"unanswered"},
    # It reads the first message only, and any content type.
    "two messages": {"grpc 0"},
    "content type": {"grpc 0"},
    "unknown encoding": {"grpc 13"},
    # It answers the stream where the connection's state is lost.
    "half a header": {"grpc 13", "closed"},
    "index of nothing": {"grpc 13", "closed"},
    # It reads past these and leaves the connection alone.
    "stream of the server's": {"unanswered"},
    "data of no stream": {"unanswered"},
}
"""What grpcio does otherwise."""

NATIVE: dict[str, set[str]] = {
    # One that is not well-formed is as none.
    "timeout that is none": {"grpc 0"},
}
"""What the native receiver does otherwise."""

GOAWAY = {
    "stream of the server's": {1},
    "data of no stream": {1},
    "half a header": {1, 9},
    "index of nothing": {1, 9},
}
"""Error codes (RFC 9113, 7) with which the native receiver ends a connection that has sent no more than what
is wrong.
"""

OTHERWISE = {"grpcio": GRPCIO, "native": NATIVE}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_ends_in_the_right_error(abused: Served, name: str) -> None:
    send, right = WRONG[name]
    right = OTHERWISE[abused.receiver].get(name, right)
    with meanwhile(abused) as wire:
        wire.begin()
        wire.send(send(wire))
        if right == {"unanswered"}:
            assert wire.is_alive()
            assert not wire.heard.answered(1)
        else:
            assert ended(wire.listen(2 if name == "stream of the server's" else 1)) in right, wire.heard
        if abused.receiver == "native":
            assert wire.heard.goaway in GOAWAY.get(name, {None, 6}), (
                "6: a frame that is too large, where that is still heard"
            )


def test_nothing_of_a_wrong_request_reaches_the_log(
    tmp_path_factory: pytest.TempPathFactory, receiver: str
) -> None:
    with Served(tmp_path_factory.mktemp("wrong"), receiver) as served:
        for name, (send, _) in WRONG.items():
            if "grpc 0" in OTHERWISE[receiver].get(name, ()):
                continue
            with Wire(served.grpc_port) as wire:
                wire.begin()
                wire.send(send(wire))
                wire.is_alive()
        with Wire(served.grpc_port) as wire:
            wire.begin()
            wire.send(wire.request(1, message(traces(7, 1))))
            assert wire.listen(1).status(1) == "0"
        assert served.stop() == 0
        assert served.span_ids() == span_ids(7, 1)


@pytest.mark.parametrize("timeout", ["1n", "1u"])
def test_a_deadline_that_has_passed_is_answered(abused: Served, timeout: str) -> None:
    with meanwhile(abused) as wire:
        wire.begin()
        wire.send(wire.request(1, message(traces(0, 1)), added("grpc-timeout", timeout)))
        taken = (
            {"grpc 0"} if abused.receiver == "native" else set()
        )  # it reads no clock for what has come whole
        assert ended(wire.listen(1)) in {"grpc 4", "grpc 1", "reset"} | taken


@pytest.mark.parametrize(
    "preface",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(range(256)) * 16, PREFACE + b"\0\0\0\x06\0\0\0\0\0"],
)
def test_a_bad_preface_ends_the_connection(abused: Served, preface: bytes) -> None:
    with meanwhile(abused) as wire:
        wire.send(preface)
        wire.listen()


@pytest.mark.parametrize(
    "sent", [b"", PREFACE[:7], PREFACE], ids=["nothing", "half a preface", "no settings"]
)
def test_half_open_connections_are_cut_off(impatient: Served, sent: bytes) -> None:
    idle = impatient.open_sockets()
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(impatient.grpc_port, acknowledges=False)) for _ in range(100)]
        for wire in wires:
            wire.send(sent)
        assert_others_are_served(impatient)
        for wire in wires:
            wire.listen()
    assert_others_are_served(impatient)
    eventually(lambda: impatient.open_sockets() < idle + 50, "their sockets are closed")


def test_connections_beyond_the_limit_are_closed(tmp_path: Path, receiver: str) -> None:
    with Served(tmp_path, receiver, max_connections=10) as served, ExitStack() as stack:
        wires = [stack.enter_context(Wire(served.grpc_port)).begin() for _ in range(10)]
        assert all(wire.is_alive() for wire in wires)
        for _ in range(10):
            with Wire(served.grpc_port) as late:
                late.begin()
                late.listen()
        assert all(wire.is_alive() for wire in wires)
        wires[0].__exit__()
        assert_others_are_served(served)


def slow_headers(wire: Wire) -> None:
    wire.send_frames(HeadersFrame(1, wire.encode(EXPORT), flags=[]))


def slow_body(wire: Wire) -> None:
    wire.send_frames(wire.headers(1), DataFrame(1, message(b"abc", length=1000)))


@pytest.mark.parametrize(
    "stuck", [slow_headers, slow_body, lambda wire: None], ids=["in headers", "in a body", "between requests"]
)
def test_a_peer_that_is_stuck_is_cut_off(impatient: Served, stuck: Callable[[Wire], None]) -> None:
    """It answers no pings and acknowledges no settings, as a host does that was unplugged."""
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(impatient.grpc_port, acknowledges=False)) for _ in range(20)]
        for wire in wires:
            wire.begin()
            stuck(wire)
        assert_others_are_served(impatient)
        for wire in wires:
            wire.listen()


def header_of_200_kilobytes(wire: Wire) -> None:
    block = wire.encode(added("x-large", "y" * 200_000))
    pieces = [block[start : start + 16_000] for start in range(0, len(block), 16_000)]
    frames: list[HeadersFrame | ContinuationFrame] = [HeadersFrame(1, pieces[0], flags=[])]
    frames += [
        ContinuationFrame(1, piece, flags=["END_HEADERS"] if piece is pieces[-1] else [])
        for piece in pieces[1:]
    ]
    wire.send_frames(*frames, DataFrame(1, message(traces(0, 1)), flags=["END_STREAM"]))


def test_headers_above_the_limit_are_refused_or_dropped(abused: Served) -> None:
    """Grpcio drops a field that is too long by itself, and serves the rest."""
    with meanwhile(abused) as wire:
        wire.begin()
        header_of_200_kilobytes(wire)
        right = {"grpc 8", "http 431", "reset", "closed"} | (
            {"grpc 0"} if abused.receiver == "grpcio" else set()
        )
        assert ended(wire.listen(1)) in right


def test_a_header_bomb_does_not_unpack(abused: Served) -> None:
    """15 KB of indices that stand for 45 MB of headers, a hundred times."""
    with meanwhile(abused, HPACK_MEMORY_BYTES) as wire:
        wire.begin()
        wire.send(wire.request(1, message(traces(0, 1)), added("x-bomb", "b" * 3000)))
        wire.listen(1)
        block = wire.encode(EXPORT) + bytes([NEWEST]) * 15_000
        for stream in range(3, 203, 2):
            if wire.send_frames(HeadersFrame(stream, block, flags=["END_HEADERS"])) != "sent":
                break
            assert ended(wire.listen(stream), stream) in {"grpc 8", "http 431", "reset", "closed"}


def continuations(wire: Wire) -> str:
    wire.send_frames(HeadersFrame(1, wire.encode(EXPORT), flags=[]))
    frame = ContinuationFrame(1, wire.encode([(f"x-{number}", "y" * 100) for number in range(120)]))
    return wire.flood(frame.serialize(), 16_000)


def empty_continuations(wire: Wire) -> str:
    wire.send_frames(HeadersFrame(1, wire.encode(EXPORT), flags=[]))
    return wire.flood(ContinuationFrame(1, b"").serialize() * 1000, FRAMES // 1000)


def rapid_resets(wire: Wire) -> str:
    for first in range(1, 40_001, 200):
        pairs = [(wire.headers(stream), RstStreamFrame(stream, 8)) for stream in range(first, first + 200, 2)]
        if (outcome := wire.send_frames(*(frame for pair in pairs for frame in pair))) != "sent":
            return outcome
    return "sent"


def rapid_requests_reset(wire: Wire) -> str:
    for first in range(1, 10_001, 20):
        requests = [
            wire.request(stream, message(traces(stream, 1))) + RstStreamFrame(stream, 8).serialize()
            for stream in range(first, first + 20, 2)
        ]
        if (outcome := wire.send(b"".join(requests))) != "sent":
            return outcome
    return "sent"


def streams_without_end(wire: Wire) -> str:
    return wire.send_frames(*(wire.headers(stream) for stream in range(1, 40_001, 2)))


def messages_half_sent(wire: Wire) -> str:
    """As many as there may be, each announced with the largest size."""
    for stream in range(1, 1024, 2):
        piece = message(bytes(8000), length=4 << 20)
        if (
            outcome := wire.send_frames(
                wire.headers(stream), DataFrame(stream, piece), *[DataFrame(stream, bytes(16_000))] * 3
            )
        ) != "sent":
            return outcome
    return "sent"


def empty_data(wire: Wire) -> str:
    wire.send_frames(wire.headers(1))
    return wire.flood(DataFrame(1, b"").serialize() * 1000, FRAMES // 1000)


FLOODS: dict[str, Callable[[Wire], str]] = {
    "continuations": continuations,
    "empty continuations": empty_continuations,
    "rapid resets": rapid_resets,
    "requests that are reset": rapid_requests_reset,
    "streams without end": streams_without_end,
    "messages half sent": messages_half_sent,
    "pings": lambda wire: wire.flood(PingFrame(0, b"12345678").serialize() * 1000, FRAMES // 1000),
    "settings": lambda wire: wire.flood(
        SettingsFrame(0, settings={4: 65_535}).serialize() * 1000, FRAMES // 1000
    ),
    "empty data": lambda wire: (
        wire.flood(wire.headers(1).serialize(), 1)
        and wire.flood(DataFrame(1, b"").serialize() * 1000, FRAMES // 1000)
    ),
    "priorities": lambda wire: wire.flood(
        b"".join(
            PriorityFrame(stream, depends_on=0, stream_weight=3).serialize() for stream in range(1, 2001, 2)
        ),
        FRAMES // 1000,
    ),
    "window updates": lambda wire: wire.flood(
        WindowUpdateFrame(0, window_increment=1).serialize() * 1000, FRAMES // 1000
    ),
    "unknown frames": lambda wire: wire.flood(b"\0\0\x08\xee\0\0\0\0\0" + bytes(8), FRAMES // 10),
}
"""What is sent without ever listening: ``closed`` or ``stalled`` where the receiver has had enough, ``sent``
where it took all of it.
"""

CUT_OFF = {
    "grpcio": {"continuations", "empty continuations", "empty data"},
    # of pings it has one in hand, and reads on when that is answered
    "native": {
        "continuations",
        "empty continuations",
        "empty data",
        "rapid resets",
        "requests that are reset",
        "streams without end",
        "messages half sent",
    },
}
"""Floods that end the connection; of the others all is read, and the connection goes on."""

KEPT_PACE = {"grpcio": set[str](), "native": {"rapid resets"}}
"""Floods that end the connection only where they come faster than they are read; a busy machine
may read all.
"""

CALMED = {"grpcio": {"pings"}, "native": set[str]()}
"""Floods that are answered with GOAWAY (11: ENHANCE_YOUR_CALM), and it is up to the peer to go; or that end
the connection.
"""


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_costs_little(abused: Served, name: str) -> None:
    with meanwhile(abused, FLOOD_MEMORY_BYTES.get(name, MEMORY_BYTES)) as wire:
        wire.begin()
        outcome = FLOODS[name](wire)
        if name in CALMED[abused.receiver]:
            eventually(lambda: not wire.is_alive() or wire.heard.goaway == 11, "GOAWAY, or an end")
        elif name not in CUT_OFF[abused.receiver]:
            assert outcome != "closed"
            assert wire.is_alive()
        elif name in KEPT_PACE[abused.receiver]:
            wire.is_alive()  # it answers or is closed, else this fails
        elif outcome != "closed":
            wire.listen()  # until it closes; it may have answered some of it before


def test_answers_that_nobody_reads_are_held_within_limits(abused: Served) -> None:
    """A window of 0: no answer can be sent; streams beyond the limit are refused meanwhile."""
    with meanwhile(abused) as wire:
        wire.begin({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        for stream in range(1, 4001, 2):
            if wire.send(wire.request(stream, message(traces(stream, 1)))) != "sent":
                break
        wire.is_alive()
