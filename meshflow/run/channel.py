"""How the two processes of ``up`` speak: the first writes to the second's standard input, the second to its
standard output, which is closed to all else.

The second one answers strangers' SQL, so the first believes little of it: lines of JSON, short ones, with
few forms. Down go pickles: the settings first, then answers. The end of that stream is the end of the first
process.
"""

import asyncio
import ctypes
import json
import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from meshflow.settings import Settings

READY, ALIVE, EXPOSITION, FAILED = "ready", "alive", "exposition", "failed"
"""What a line of the second process may say."""
BEAT_S = 1.0
LONGEST_LINE = 4096
"""Bytes: a pipe takes so many whole, or none."""
_PR_SET_PDEATHSIG = 1
_EXPOSITION_S = 2.0


@dataclass(frozen=True, slots=True)
class Start:
    """What the second process is given to begin with."""

    settings: Settings
    log_level: int
    listener: int
    """File descriptor of the SQL port's socket, which listens already."""
    restarts: int


class Channel:
    """The second process's end. Made once, on its main thread, before anything writes to standard output."""

    def __init__(self) -> None:
        """From now on the kernel ends this process (SIGKILL) with the one that started it."""
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        self._lines = os.dup(1)
        os.dup2(2, 1)  # whatever else is printed goes to the log
        os.set_blocking(self._lines, False)
        self._numbers = count()
        self._asked: dict[int, asyncio.Future[bytes]] = {}

    def receive(self) -> Start:
        """The first message; then listen for the others, in a thread, and for their end."""
        start = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
        assert isinstance(start, Start)
        return start

    def listen(self) -> None:
        """Take answers from now on, and end with the first process. Call it on the running event loop."""
        arguments = (asyncio.get_running_loop(),)
        threading.Thread(target=self._listen, args=arguments, name="channel", daemon=True).start()

    def say(self, what: str, **more: Any) -> None:
        """Write one line; when nobody has read the last 64 KiB of them, this one is left out."""
        line = json.dumps({"say": what, **more}).encode() + b"\n"
        assert len(line) <= LONGEST_LINE, line
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._lines, line)

    def fail(self, kind: str, reason: str) -> None:
        """Say why this process ends: ``kind`` is the name of an error class."""
        self.say(FAILED, kind=kind, reason=reason[:1000])

    async def beat(self) -> None:
        """Say for ever that this event loop runs."""
        while True:
            self.say(ALIVE)
            await asyncio.sleep(BEAT_S)

    async def exposition(self) -> bytes:
        """The first process's metrics in Prometheus' text format; empty where it does not answer in time."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self.say(EXPOSITION, number=number)
        try:
            return await asyncio.wait_for(answer, _EXPOSITION_S)
        except TimeoutError:
            return b""
        finally:
            del self._asked[number]

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(EOFError, OSError):
            while True:
                number, text = pickle.load(sys.stdin.buffer)  # noqa: S301 - as above
                loop.call_soon_threadsafe(self._answered, number, text)
        os.kill(os.getpid(), signal.SIGKILL)

    def _answered(self, number: int, text: bytes) -> None:
        if (answer := self._asked.get(number)) and not answer.done():
            answer.set_result(text)
