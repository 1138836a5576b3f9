"""Load for the fault test: OTLP/gRPC clients that send each request until it was acknowledged, and know what
was.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt

from benchmarks.load import generate_requests
from meshflow.tools.capture import read_captures
from meshflow.tools.replay import METHODS
from schemas.otlp import decode_spans
from schemas.topics import SPANS

SPANS_PER_REQUEST = 40
DEADLINE_S = 10.0
"""How long a client waits for an answer before it goes to the next receiver, as exporters do."""

_CHANNEL = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_PAUSE_S = 0.05
_NO_END = 1 << 40

SpanIds = npt.NDArray[np.uint64]
"""n x 3: high and low half of the trace id, span id."""


def span_ids(payloads: Sequence[bytes]) -> SpanIds:
    """Ids of all spans in requests or records."""
    if not payloads:
        return np.empty((0, 3), np.uint64)
    spans = decode_spans(payloads).spans
    return np.stack(
        [np.asarray(spans[name]).astype(np.uint64) for name in ("trace_hi", "trace_lo", "span_id")], axis=1
    )


class Senders:
    """Threads that send spans at ``spans_per_s``, and one that sends captured metrics and logs; a context
    manager.
    """

    def __init__(
        self,
        targets: Sequence[str],
        spans_per_s: int,
        seed: int,
        captures: Sequence[Path] = (),
        threads: int = 12,
    ) -> None:
        self._targets = targets
        self._stopped = threading.Event()
        self._given_up = threading.Event()
        self._acknowledged: list[SpanIds] = []
        self.resent = 0
        """Requests that had to be sent again."""
        self._gap_s = threads * SPANS_PER_REQUEST / spans_per_s
        sources = [
            generate_requests(
                _NO_END,
                20,
                5,
                SPANS_PER_REQUEST,
                seed * threads + number,
                spans_per_s=max(1, spans_per_s // threads),
            )
            for number in range(threads)
        ]
        self._threads = [
            threading.Thread(target=self._send_spans, args=(number, source))
            for number, source in enumerate(sources)
        ]
        if captures:
            self._threads.append(threading.Thread(target=self._send_captures, args=(captures,)))

    def __enter__(self) -> "Senders":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._given_up.set()
        for thread in self._threads:
            thread.join()

    def finish(self) -> None:
        """Begin nothing new; see :attr:`finished`."""
        self._stopped.set()

    @property
    def finished(self) -> bool:
        """Whether all that was begun is acknowledged."""
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def spans(self) -> int:
        """Spans acknowledged so far."""
        return sum(map(len, self._acknowledged.copy()))

    def acknowledged(self) -> SpanIds:
        """Every span whose request was answered with OK."""
        return np.concatenate([*self._acknowledged, np.empty((0, 3), np.uint64)])

    def _send_spans(self, number: int, source: Iterator[bytes]) -> None:
        with _Client(self._targets, number) as client:
            due_s = time.monotonic()
            for request in source:
                if not self._send(client, METHODS[SPANS], request):
                    return
                self._acknowledged.append(span_ids([request]))
                due_s = max(
                    due_s + self._gap_s, time.monotonic()
                )  # what an outage held up is not made good for
                if self._stopped.wait(due_s - time.monotonic()):
                    return

    def _send_captures(self, captures: Sequence[Path]) -> None:
        with _Client(self._targets, 0) as client:
            for captured in read_captures(captures):
                if not self._send(client, METHODS[captured.topic], captured.message.SerializeToString()):
                    return
                if self._stopped.wait(0.15):
                    return

    def _send(self, client: "_Client", method: str, request: bytes) -> bool:
        """Until acknowledged; False when given up."""
        while not client.send(method, request):
            self.resent += 1
            if self._given_up.wait(_PAUSE_S):
                return False
        return True


class _Client:
    """Connections to each receiver; one is used until it fails."""

    def __init__(self, targets: Sequence[str], first: int) -> None:
        self._channels = [grpc.insecure_channel(target, options=_CHANNEL) for target in targets]
        self._used = first % len(targets)

    def __enter__(self) -> "_Client":
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self._channels:
            channel.close()

    def send(self, method: str, request: bytes) -> bool:
        """Whether it was acknowledged; if not, the next one goes to another receiver."""
        try:
            self._channels[self._used].unary_unary(method)(request, timeout=DEADLINE_S)
        except grpc.RpcError:
            self._used = (self._used + 1) % len(self._channels)
            return False
        return True
