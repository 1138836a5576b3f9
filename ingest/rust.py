"""The receiver in Rust (``native/src/receive``): OTLP/gRPC down to gathers there, appending and answering of
them here.

Python sees gathers only, some tens a second: a socket becomes readable when one is due, ``take`` hands it
over, ``finish`` answers its requests. Requests over HTTP go into the same gathers.
"""

import asyncio
import contextlib
import ctypes
import logging
import socket
import time
from collections.abc import Callable, Mapping

from google.rpc import code_pb2

from ingest.admission import MaxRecordBytes, RequestTooLarge, is_full, never_fits, refusal_of
from ingest.pending import Batch, Outcome, Reply
from ingest.security import REASONS, Credentials, CredentialsInvalid
from ingest.settings import IngestSettings
from schemas import otlp, self_metrics, topics
from schemas.errors import AddressInUse, LogFull, LogUnavailable, MeshflowError
from schemas.records import Append, TopicPartition
from schemas.units import NS_PER_S, Duration, to_ns

try:
    from schemas._native import Receiver as NativeReceiver
except ImportError:  # not built
    HERE = False
else:
    HERE = True

_LOGGER = logging.getLogger(__name__)

_NOTES = (
    (logging.ERROR, "a bug in the native receiver, which ended one request or connection"),
    (logging.ERROR, "a gRPC connection could not be accepted"),
    (logging.WARNING, "a TLS handshake of OTLP/gRPC failed"),
    (logging.WARNING, "the port of OTLP/gRPC was spoken to in another protocol"),
)
"""How it logs what ``native/src/receive/notes.rs`` numbers."""

_COUNT_EVERY_S = 1.0
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


class NativeMissing(MeshflowError):
    """``receiver = "native"`` is asked for, and was not built."""


def is_chosen(settings: IngestSettings) -> bool:
    """Whether gRPC is received natively. Raises NativeMissing."""
    if settings.receiver == "native" and not HERE:
        raise NativeMissing(
            'ingest.receiver is "native", which was not built: install cargo and meshflow again, or set "auto"'
        )
    return settings.receiver == "native" or (settings.receiver == "auto" and HERE and otlp.native)


def make_receiver(
    settings: IngestSettings, partitions: int, window_ns: int | None = None, retry_ns: int | None = None
) -> "NativeReceiver":
    """The native part; nothing runs yet. ``window_ns`` and ``retry_ns`` take the place of settings
    (tests).
    """
    return NativeReceiver(
        now_ns=time.monotonic_ns(),
        partitions=partitions,
        window_ns=to_ns(settings.gather_window) if window_ns is None else window_ns,
        record_size=settings.record_size,
        buffer_size=settings.buffer_size,
        retry_ns=to_ns(settings.retry_after) if retry_ns is None else retry_ns,
        max_message=settings.max_message,
        max_receiving=settings.max_receiving,
        max_streams=settings.max_concurrent_streams,
        max_age_s=_s(settings.max_connection_age),
        age_grace_s=_s(settings.max_connection_age_grace),
        keepalive_time_s=_s(settings.keepalive_time),
        keepalive_timeout_s=_s(settings.keepalive_timeout),
        body_timeout_s=_s(settings.body_timeout),
    )


class NativePending:
    """As :class:`ingest.pending.Pending`, of which ``native/src/receive/pending.rs`` is the twin; gRPC
    requests come in by themselves.
    """

    def __init__(self, receiver: "NativeReceiver", limit_bytes: int, retry_ns: int) -> None:
        self._receiver = receiver
        self._limit_bytes = limit_bytes
        self._retry_after_s = retry_ns / NS_PER_S
        self._replies: dict[int, Reply] = {}
        self._reply_count = 0
        self._numbers: dict[Batch, int] = {}

    @property
    def held_bytes(self) -> int:
        """See Pending."""
        return self._receiver.held_bytes

    @property
    def idle(self) -> bool:
        """See Pending."""
        return self._receiver.idle

    @property
    def has_full(self) -> bool:
        """See Pending."""
        return self._receiver.has_full

    @property
    def refused(self) -> Mapping[str, int]:
        """See Pending."""
        return _by_topic(self._receiver.refused)

    def reserve(self, size: int) -> bool:
        """See Pending."""
        return self._receiver.reserve(size)

    def release(self, size: int) -> None:
        """See Pending."""
        self._receiver.release(size)

    def add(
        self,
        topic: str,
        parts: Mapping[int, bytes],
        *,
        items: int,
        rejected: int,
        repaired: int = 0,
        request_bytes: int,
        now_ns: int,
        reply: Reply,
    ) -> None:
        """See Pending."""
        self._reply_count += 1
        index = topics.TOPICS.index(topic)
        refused = self._receiver.add(
            index, list(parts.items()), items, rejected, repaired, request_bytes, now_ns, self._reply_count
        )
        match refused:
            case None:
                self._replies[self._reply_count] = reply
            case ("too_large", needed):
                raise RequestTooLarge(never_fits(needed, self._limit_bytes))
            case ("full", held):
                raise LogFull(is_full(held, self._limit_bytes), self._retry_after_s)
            case _:
                raise LogUnavailable("the receiver stopped before the log took the request")

    def refuse(self, topic: str, items: int, now_ns: int) -> None:
        """See Pending."""
        self._receiver.refuse(topics.TOPICS.index(topic), items, now_ns)

    def hurry(self, now_ns: int) -> None:
        """See Pending."""
        self._receiver.hurry(now_ns)

    def close(self) -> None:
        """See Pending."""
        self._receiver.close()

    def due_ns(self) -> int | None:
        """See Pending."""
        return self._receiver.due_ns()

    def take(self, now_ns: int) -> Batch | None:
        """See Pending."""
        taken = self._receiver.take(now_ns)
        if taken is None:
            return None
        number, appends = taken
        batch = Batch([_append(*append) for append in appends], [], {})
        self._numbers[batch] = number
        return batch

    def finish(self, batch: Batch, error: Exception | None, now_ns: int) -> Outcome:
        """See Pending."""
        failure = None
        if error is not None:
            refusal = refusal_of(error, self._retry_after_s)
            retry_ns = None if refusal.retry_after_s is None else round(refusal.retry_after_s * NS_PER_S)
            failure = (refusal.code, refusal.message, retry_ns)
        accepted, rejected, refused, answers = self._receiver.finish(
            self._numbers.pop(batch), failure, now_ns
        )
        for number, is_accepted in answers:
            self._replies.pop(number)(None if is_accepted else error)
        return Outcome(_by_topic(accepted), _by_topic(rejected), _by_topic(refused))


class NativeServer:
    """The gRPC receiver on ``settings.host``, with the face of :class:`ingest.grpc.GrpcServer`. Raises
    CredentialsInvalid.

    ``look`` is called when requests came in that NativePending should be asked about.
    """

    def __init__(
        self,
        receiver: "NativeReceiver",
        look: Callable[[], None],
        settings: IngestSettings,
        credentials: Credentials,
        *,
        reuse_port: bool,
        max_record_bytes: MaxRecordBytes,
    ) -> None:
        self._receiver = receiver
        self._max_record_bytes = max_record_bytes
        self._look = look
        self._settings = settings
        self._reuse_port = reuse_port
        self._bell: socket.socket | None = None
        self._counting: asyncio.TimerHandle | None = None
        self._counted: dict[tuple[str, int, int], int] = {}
        self._stopped = asyncio.Event()
        self.port = 0
        self.replace(credentials)

    async def start(self) -> None:
        """Listen. Raises AddressInUse."""
        _keep_memory()
        settings = self._settings
        self._bell = socket.socket(fileno=self._receiver.bell())
        asyncio.get_running_loop().add_reader(self._bell, self._on_bell)
        try:
            self.port = self._receiver.start(
                settings.host,
                settings.grpc_port,
                settings.receiver_threads,
                self._reuse_port,
                settings.max_connections,
            )
        except OSError as error:
            self._hang_up()
            raise AddressInUse(
                f"OTLP/gRPC cannot listen on {settings.host}:{settings.grpc_port}: {error}"
            ) from error
        self._count()

    def replace(self, credentials: Credentials) -> None:
        """Tokens hold at once, certificates for new connections. Raises CredentialsInvalid, and then nothing
        has changed.
        """
        if credentials.tls is not None:
            tls = credentials.tls
            try:
                self._receiver.set_tls(tls.certificate, tls.key, tls.client_ca)
            except ValueError as error:
                raise CredentialsInvalid(
                    f"the native receiver cannot use the files of ingest.tls: {error}"
                ) from error
        self._receiver.set_tokens(credentials.tokens)

    async def stop(self, grace_s: float) -> None:
        """Take no new requests, finish those that have begun; cut them off after ``grace_s``."""
        if self._bell is None:
            return
        self._receiver.stop(grace_s)
        await self._stopped.wait()
        self._receiver.join()
        self._hang_up()
        self._report(all_notes=True)

    def _hang_up(self) -> None:
        if self._counting is not None:
            self._counting.cancel()
        if self._bell is not None:
            asyncio.get_running_loop().remove_reader(self._bell)
            self._bell.close()
            self._bell = None

    def _on_bell(self) -> None:
        assert self._bell is not None
        self._bell.recv(64)
        self._receiver.heard()
        self._look()
        if self._receiver.stopped:
            self._stopped.set()

    def _count(self) -> None:
        self._receiver.set_max_record([self._max_record_bytes(topic) for topic in topics.TOPICS])
        self._report()
        self._counting = asyncio.get_running_loop().call_later(_COUNT_EVERY_S, self._count)

    def _report(self, all_notes: bool = False) -> None:
        """Bring the self-metrics up to what the receiver counted, and the log to what it noted (not more
        often than it should).
        """
        for kind, count, first in self._receiver.notes(all_notes):
            level, what = _NOTES[kind]
            _LOGGER.log(level, "%s%s: %s", what, f" (one of {count:,})" if count > 1 else "", first)
        requests, refused, unread, unauthenticated, connections, connections_refused, accept_errors = (
            self._receiver.counters()
        )
        for topic, code, total in requests:
            counter = self_metrics.REQUESTS.labels("grpc", topics.TOPICS[topic], code_pb2.Code.Name(code))
            counter.inc(self._since("requests", topic, code, total))
        for topic, total in enumerate(refused):
            self_metrics.REFUSED.labels(topics.TOPICS[topic]).inc(self._since("refused", topic, 0, total))
        for topic, total in enumerate(unread):
            self_metrics.UNREAD.labels("grpc", topics.TOPICS[topic]).inc(
                self._since("unread", topic, 0, total)
            )
        for reason, total in enumerate(unauthenticated):
            self_metrics.UNAUTHENTICATED.labels("grpc", REASONS[reason]).inc(
                self._since("unauthenticated", reason, 0, total)
            )
        self_metrics.CONNECTIONS.set(connections)
        self_metrics.CONNECTIONS_REFUSED.inc(self._since("connections", 0, 0, connections_refused))
        self_metrics.ACCEPT_ERRORS.inc(self._since("accept_errors", 0, 0, accept_errors))

    def _since(self, name: str, first: int, second: int, total: int) -> int:
        """How much has come to a total since it was last asked for."""
        before = self._counted.get((name, first, second), 0)
        self._counted[name, first, second] = total
        return total - before


def _keep_memory() -> None:
    """Have glibc keep up to 64 MiB that were freed, for each of its arenas.

    By itself it gives a gather's buffers back to the kernel each time and faults them in again: half of the
    receiver's system time.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)
        mallopt(_M_MMAP_THRESHOLD, 4 << 20)


def _append(topic: int, partition: int, value: bytes, *counts: int) -> Append:
    headers = dict(zip(("rejected", "refused", "repaired"), counts, strict=True))
    return Append(
        TopicPartition(topics.TOPICS[topic], partition),
        value,
        {name: count for name, count in headers.items() if count},
    )


def _by_topic(counts: tuple[int, int, int] | list[int]) -> dict[str, int]:
    return {topic: count for topic, count in zip(topics.TOPICS, counts, strict=True) if count}


def _s(duration: Duration) -> float:
    return duration.total_seconds()
