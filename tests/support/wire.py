"""An HTTP/2 peer that sends whatever frames a test names, and reports what came back (RFC 9113, RFC 7541)."""

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.support.receiving import TRACES

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LONG_S = 60.0
STALLED_S = 10.0
"""A peer that takes nothing for so long has stopped reading."""

_HEAD = 9  # bytes of a frame in front of its body

Header = tuple[str, str]

EXPORT: tuple[Header, ...] = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", TRACES),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)


@dataclass
class Heard:
    """What a peer said, until now: by stream its headers and trailers, its messages' bytes, its resets; and
    of the connection.

    ``pings`` are answers to ours, ``pinged`` those that we answered.
    """

    headers: dict[int, dict[str, str]] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)
    resets: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    goaway: int | None = None
    pings: int = 0
    pinged: int = 0
    closed: bool = False

    def status(self, stream: int) -> str | None:
        """``grpc-status`` of a stream."""
        return self.headers.get(stream, {}).get("grpc-status")

    def answered(self, stream: int) -> bool:
        """Whether a stream has come to its end, in whatever way."""
        return stream in self.ended or stream in self.resets or self.closed


class Wire:
    """One connection to ``127.0.0.1:port``; a context manager. Frames are sent by hand, read by
    :meth:`listen`.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, acknowledges: bool = True) -> None:
        plain = socket.create_connection(("127.0.0.1", port), LONG_S)
        self._socket = tls.wrap_socket(plain, server_hostname="localhost") if tls else plain
        self._encoder = Encoder()
        self._decoder = Decoder(max_header_list_size=1 << 20)
        self._unread = b""
        self._unsent = b""
        self._acknowledges = acknowledges
        self.heard = Heard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._socket.close()

    def begin(self, settings: dict[int, int] | None = None) -> Self:
        """Send the preface and the first SETTINGS."""
        self.send(PREFACE + SettingsFrame(0, settings=settings or {}).serialize())
        return self

    def send(self, data: bytes, stalled_s: float = STALLED_S) -> str:
        """Send all of it: ``sent``, or ``stalled`` when the peer does not read, or ``closed`` when it has
        closed.
        """
        view = memoryview(data)
        while view:
            if not select.select([], [self._socket], [], stalled_s)[1]:
                self._unsent = bytes(view)
                return "stalled"
            try:
                self._socket.setblocking(False)
                view = view[self._socket.send(view[: 1 << 16]) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                continue
            except OSError:
                self.heard.closed = True
                return "closed"
            finally:
                if self._socket.fileno() >= 0:
                    self._socket.setblocking(True)
        return "sent"

    def send_frames(self, *frames: Frame) -> str:
        """Send frames."""
        return self.send(b"".join(frame.serialize() for frame in frames))

    def flood(self, chunk: bytes, times: int) -> str:
        """Send ``chunk`` many times without listening, until the peer closes or no longer reads."""
        for _ in range(times):
            if (outcome := self.send(chunk)) != "sent":
                return outcome
        return "sent"

    def headers(self, stream: int, headers: Sequence[Header] = EXPORT, end_stream: bool = False) -> Frame:
        """HEADERS of a request, of Export as a client sends it by default."""
        flags = ["END_HEADERS", *(["END_STREAM"] if end_stream else [])]
        return HeadersFrame(stream, self.encode(headers), flags=flags)

    def request(self, stream: int, body: bytes, headers: Sequence[Header] = EXPORT) -> bytes:
        """A whole request: HEADERS and DATA of ``body`` as it stands (see :func:`message`)."""
        frames = [self.headers(stream, headers)]
        pieces = [body[start : start + 16384] for start in range(0, len(body), 16384)] or [b""]
        for number, piece in enumerate(pieces, 1):
            frames.append(DataFrame(stream, piece, flags=["END_STREAM"] if number == len(pieces) else []))
        return b"".join(frame.serialize() for frame in frames)

    def listen(self, stream: int | None = None, within_s: float = LONG_S) -> Heard:
        """Read until ``stream`` is answered, None: until the peer closes; acknowledge settings and pings.
        Fails after ``within_s``.
        """
        end_s = time.monotonic() + within_s
        while not (self.heard.closed if stream is None else self.heard.answered(stream)):
            assert time.monotonic() < end_s, (
                f"no end of {stream or 'the connection'} within {within_s} s: {self.heard}"
            )
            self._read(1.0)
        return self.heard

    def listen_for(self, happened: Callable[[Heard], bool], what: str, within_s: float = LONG_S) -> Heard:
        """Read until something was heard; fails with ``what`` should it not, or should the peer close
        before.
        """
        end_s = time.monotonic() + within_s
        while not happened(self.heard):
            assert not self.heard.closed, f"closed before {what}: {self.heard}"
            assert time.monotonic() < end_s, f"not within {within_s} s: {what}: {self.heard}"
            self._read(1.0)
        return self.heard

    def is_alive(self) -> bool:
        """Whether the peer answers a ping: everything sent before was read by then."""
        before = self.heard.pings
        end_s = time.monotonic() + LONG_S
        unsent, self._unsent = self._unsent, b""
        outcome = self.send(unsent + PingFrame(0, b"alive?!?").serialize(), stalled_s=0.1)
        while outcome == "stalled":  # each waits for the other to read
            assert time.monotonic() < end_s, f"it does not read: {self.heard}"
            self._read(0.1)
            unsent, self._unsent = self._unsent, b""
            outcome = self.send(unsent, stalled_s=0.1)
        if outcome == "closed":
            return False
        while self.heard.pings == before and not self.heard.closed:
            assert time.monotonic() < end_s, f"neither an answer to a ping nor an end: {self.heard}"
            self._read(1.0)
        return not self.heard.closed

    def encode(self, headers: Sequence[Header]) -> bytes:
        """A block of header fields, with this connection's dynamic table."""
        block: bytes = self._encoder.encode(list(headers), huffman=False)
        return block

    def _read(self, timeout_s: float) -> None:
        self._socket.settimeout(timeout_s)
        try:
            read = self._socket.recv(1 << 18)
        except (TimeoutError, ssl.SSLWantReadError):
            return
        except OSError:
            read = b""
        if not read:
            self.heard.closed = True
            return
        unread = memoryview(self._unread + read)
        while len(unread) >= _HEAD:
            frame, length = Frame.parse_frame_header(unread[:_HEAD])
            if len(unread) < _HEAD + length:
                break
            frame.parse_body(unread[_HEAD : _HEAD + length])
            unread = unread[_HEAD + length :]
            self._hear(frame)
        self._unread = bytes(unread)

    def _hear(self, frame: Frame) -> None:
        heard = self.heard
        match frame:
            case HeadersFrame():
                decoded = {str(name): str(value) for name, value in self._decoder.decode(frame.data)}
                heard.headers.setdefault(frame.stream_id, {}).update(decoded)
            case DataFrame():
                heard.data[frame.stream_id] = heard.data.get(frame.stream_id, b"") + frame.data
            case RstStreamFrame():
                heard.resets[frame.stream_id] = frame.error_code
            case GoAwayFrame():
                heard.goaway = frame.error_code
            case SettingsFrame() if "ACK" not in frame.flags and self._acknowledges:
                self.send_frames(SettingsFrame(0, flags=["ACK"]))
            case PingFrame() if "ACK" in frame.flags:
                heard.pings += 1
            case PingFrame() if self._acknowledges:
                heard.pinged += 1
                self.send_frames(PingFrame(0, frame.opaque_data, flags=["ACK"]))
        if "END_STREAM" in frame.flags:
            heard.ended.add(frame.stream_id)


def message(body: bytes, compressed: bool = False, length: int | None = None) -> bytes:
    """``body`` with gRPC's prefix, which may lie about its length."""
    return struct.pack(">BI", compressed, len(body) if length is None else length) + body
