"""What a sender may rely on while the log fails at random and the receiver is stopped and started: no
acknowledged span is lost.

After the OpenTelemetry Collector's receivertest (CheckConsumeContract), with grpc-go as the sender and real
processes.
"""

import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.go import build
from tests.support.pki import TOKEN, Pki
from tests.support.receiving import span_ids
from tests.support.served import LONG_S, Served, eventually

pytestmark = [pytest.mark.component("go"), pytest.mark.timeout(900)]  # the first build fetches modules

SPANS_PER_REQUEST = 3
RESTARTS = 4


class Sending:
    """``go_client stream`` while it runs: what was acknowledged, what failed for good."""

    def __init__(self, *flags: str) -> None:
        command = [str(build("go_client")), "stream", *flags]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.acknowledged: list[int] = []
        self.failed: list[int] = []
        self.repeated: list[int] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def has_acknowledged(self, requests: int) -> bool:
        """Whether so many were acknowledged."""
        return len(self.acknowledged) >= requests

    def wait_for(self, happened: Callable[[], bool], what: str) -> None:
        """Wait until something happened; fail should it not, or should the sender have ended."""

        def has() -> bool:
            if self._process.poll() is not None:
                assert self._process.stderr is not None
                raise AssertionError(f"the sender ended: {self._process.stderr.read()}")
            return happened()

        eventually(has, what)

    def finish(self) -> None:
        """Let what is under way come to its end."""
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        self._process.stdin.close()
        self._reading.join(LONG_S * 2)
        said = self._process.stderr.read()
        assert self._process.wait(LONG_S) == 0, said
        self._process.stderr.close()

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait()
        self._reading.join(LONG_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            kind, number = line.split()
            {"acknowledged": self.acknowledged, "failed": self.failed, "repeated": self.repeated}[
                kind
            ].append(int(number))


def ids(firsts: list[int]) -> set[bytes]:
    """The span ids of requests that begin with these numbers."""
    return {identifier for first in firsts for identifier in span_ids(first - 1, SPANS_PER_REQUEST)}


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "mtls and token"])
def test_no_acknowledged_span_is_lost(tmp_path: Path, receiver: str, secured: bool) -> None:
    pki = Pki(tmp_path)
    settings = pki.settings(mtls=True, tokens=True) if secured else {}
    flags = (
        [
            f"-ca={(files := pki.client_files())[0]}",
            f"-cert={files[1]}",
            f"-key={files[2]}",
            f"-token={TOKEN}",
        ]
        if secured
        else []
    )
    served = Served(tmp_path / "served", receiver, faults=7, **settings).start()
    sending = Sending(f"-grpc={served.target}", f"-gzip={str(secured).lower()}", "-senders=8", *flags)
    try:
        for _ in range(RESTARTS):
            wanted = len(sending.acknowledged) + 40
            sending.wait_for(partial(sending.has_acknowledged, wanted), "requests are acknowledged")
            assert served.stop() == 0, served.said[-3000:]
            served.start()
        sending.wait_for(
            lambda: bool(sending.failed and sending.repeated),
            "some requests fail for good, some are sent again",
        )
        sending.finish()
    finally:
        sending.kill()
        code = served.stop()
    assert code == 0
    logged = Counter(served.span_ids())
    assert ids(sending.acknowledged) <= set(logged)
    assert set(logged) <= ids(sending.acknowledged + sending.failed), (
        "of a request that failed, some partitions may have their part"
    )
    twice = {identifier for identifier, times in logged.items() if times > 1}
    assert twice <= ids(sending.repeated), (
        "a span is there twice only where its sender had no answer and repeated it"
    )


def test_an_age_of_connections_loses_nothing(tmp_path: Path, receiver: str) -> None:
    """GOAWAY again and again: grpc-go moves on by itself, so that each request is sent, and in the log,
    once.
    """
    with Served(
        tmp_path / "served", receiver, max_connection_age="200ms", max_connection_age_grace="30s"
    ) as served:
        sending = Sending(f"-grpc={served.target}", "-senders=8")
        try:
            sending.wait_for(partial(sending.has_acknowledged, 300), "requests are acknowledged")
            sending.finish()
        finally:
            sending.kill()
        assert served.stop() == 0
        assert not sending.failed
        logged = Counter(served.span_ids())
        assert set(logged) == ids(sending.acknowledged)
        assert {identifier for identifier, times in logged.items() if times > 1} <= ids(sending.repeated)
