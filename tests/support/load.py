"""Senders that go on while ``meshflow up`` dies and comes back: each request is sent until it was
acknowledged.
"""

import threading
import time
from collections.abc import Sequence

import grpc

from benchmarks.load import EXPORT
from tests.support.up import Up


class Load:
    """Sends ``requests`` from some threads, one request each ``gap_s``; a context manager."""

    def __init__(
        self, up: Up, requests: Sequence[bytes], gap_s: float = 0.0, senders: int = 4, method: str = EXPORT
    ) -> None:
        self.acknowledged: list[bytes] = []
        self.failed: list[grpc.RpcError] = []
        """Answers other than OK, each sent again."""
        self._up = up
        self._queue = iter(requests)
        self._gap_s = gap_s
        self._method = method
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(senders)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End at once; what was not acknowledged is given up."""
        self._stopped.set()
        self.finish()

    def finish(self) -> None:
        """Wait until every request was acknowledged."""
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        channel, target = None, ""
        while not self._stopped.is_set():
            with self._lock:
                request = next(self._queue, None)
            if request is None:
                break
            while not self._stopped.is_set():
                if channel is None or target != self._up.grpc:
                    if channel is not None:
                        channel.close()
                    target = self._up.grpc
                    channel = grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])
                try:
                    channel.unary_unary(self._method)(request, timeout=10)
                except grpc.RpcError as error:
                    self.failed.append(error)
                    time.sleep(0.02)
                else:
                    self.acknowledged.append(request)
                    break
            time.sleep(self._gap_s)
        if channel is not None:
            channel.close()
