"""The first process's view of the second one: it is started, watched, started again when it dies, and
stopped.
"""

import asyncio
import json
import logging
import os
import pickle
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import meshflow
from meshflow.run import channel
from meshflow.run.folders import temporary_folder
from meshflow.settings import Settings
from schemas import self_metrics
from schemas.errors import LogDamaged, LogVanished, MeshflowError, ProcessingFailed

logger = logging.getLogger(__name__)

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 30.0
GOOD_LIFE_S = 60.0
"""A process that was ready for so long is started again after the first delay."""
SILENT_S = 20.0
"""A process whose event loop says nothing for so long is killed: sooner than an append to the log gives up
waiting for the lock on SQLite's file (30 s), which a stopped process may hold.
"""
START_S = 180.0
"""The same before its first line: it loads Polars and the engine."""
READY_S = 600.0
"""How long a start may take until it is ready, while it says that it is alive: the engine may hang while it
opens its files (a broken disk). Each start that takes longer doubles this for the next one, as a large store
on a slow disk takes its time.
"""
FIRST_STARTS = 3
"""Starts after which one that was never ready, and does not say why, is given up."""
STOP_S = 10.0
"""How long it may take to finish the pane in hand; then it is killed, and the next one reads the log again.
"""
_END_S = 10.0
_ALLOCATORS = {"_RJEM_MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0"}
"""Polars frees most of what it takes after each pane; its allocator gives it back at once (docs/adr/0015)."""
COMMAND = (sys.executable, "-P", "-m", "meshflow.run.back")


_FINAL: dict[str, type[MeshflowError]] = {
    error.__name__: error for error in (ProcessingFailed, LogDamaged, LogVanished)
}
"""Errors of the second process that another start of it would not mend, by their names."""


class StartFailed(MeshflowError):
    """The second process could not start; the text is its own."""


@dataclass(slots=True)
class _Life:
    """What is known of one process."""

    began_s: float
    ready_s: float = 0.0
    failed: str = ""
    """Name of the error's class."""
    reason: str = ""


class BackProcess:
    """Processing, engine and SQL, in one process after another. One event loop's."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        lock: int,
        exposition: Callable[[], bytes],
        *,
        command: Sequence[str] = COMMAND,
        silent_s: float = SILENT_S,
        ready_s: float = READY_S,
        stop_s: float = STOP_S,
    ) -> None:
        """``listener`` and ``lock`` are inherited: connections wait in the one's backlog while no process is
        there, the other is held as long as one is. ``exposition`` gives this process's metrics.
        """
        self._settings = settings
        self._listener = listener
        self._lock = lock
        self._exposition = exposition
        self._command = command
        self._silent_s = silent_s
        self._ready_s = ready_s
        self._stop_s = stop_s
        self._stopping = asyncio.Event()
        self._restarts = 0
        self.ready = asyncio.Event()
        """Set once the first one was ready."""
        self.task = asyncio.create_task(self._run(), name="processing and SQL")
        """Goes on until :meth:`stop`. Raises StartFailed, ProcessingFailed, LogDamaged, LogVanished: starting
        it again would not mend it.
        """

    async def stop(self) -> None:
        """Let the process finish the pane in hand; kill it when it takes too long."""
        self._stopping.set()
        _, late = await asyncio.wait({self.task}, timeout=self._stop_s)
        if late:
            logger.error(
                "processing and SQL did not end within %.0f s and are killed; the next start goes on by the log",
                self._stop_s,
            )
            self.task.cancel()
            await asyncio.wait({self.task})

    async def _run(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._stopping.is_set():
            life = _Life(time.monotonic())
            how = await self._live(life)
            if self._stopping.is_set():
                break
            if error := _FINAL.get(life.failed):
                raise error(life.reason)
            if not self.ready.is_set() and (life.failed or self._restarts + 1 >= FIRST_STARTS):
                raise StartFailed(life.reason or self._never_ready(how))
            if life.ready_s and time.monotonic() - life.ready_s > GOOD_LIFE_S:
                delay_s = FIRST_DELAY_S
            self._restarts += 1
            self_metrics.RESTARTS.inc()
            logger.error(
                "processing and SQL ended (%s) and are started again in %.1f s; receivers and log go on",
                how,
                delay_s,
            )
            await _first_of(self._stopping.wait(), asyncio.sleep(delay_s))
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _never_ready(self, how: str) -> str:
        return (
            f"processing and SQL ended {FIRST_STARTS} times before they were ready, at last: {how}. If there is memory,"
            f" files of the store in {self._settings.storage.data} are damaged: restore them from a copy, say"
            " `meshflow repair`, or move the folder of the store away"
        )

    async def _live(self, life: _Life) -> str:
        """One process from its start to its end; why it ended."""
        process = await self._spawn()
        reading = asyncio.create_task(self._read(process, life))
        try:
            await _first_of(self._stopping.wait(), asyncio.shield(reading))
            if self._stopping.is_set() and process.returncode is None:
                process.terminate()
            reason = await reading
            if not reason:
                await asyncio.wait_for(process.wait(), _END_S)
        except TimeoutError:
            reason = "it said no more"
        finally:
            reading.cancel()
            if process.returncode is None:
                process.kill()
            await process.wait()
        return reason or life.reason or _how(process.returncode)

    async def _spawn(self) -> Process:
        home = str(Path(meshflow.__file__).parents[1])
        temporary = await asyncio.to_thread(temporary_folder, self._settings.storage.data)
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={
                **_ALLOCATORS,
                **_environment(),
                "TMPDIR": str(temporary),
                "PYTHONPATH": os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH", "")))),
            },
            limit=channel.LONGEST_LINE,
            pass_fds=(self._listener.fileno(), self._lock),
            process_group=0,  # Ctrl-C of a terminal reaches the first process alone
        )
        level = logging.getLogger().getEffectiveLevel()
        self._send(process, channel.Start(self._settings, level, self._listener.fileno(), self._restarts))
        return process

    async def _read(self, process: Process, life: _Life) -> str:
        """Take its lines until there are no more; why it has to be killed, or "".

        Silence, and the time until it is ready, are counted in rounds of this loop: when this process itself
        was stopped (SIGSTOP, a suspended machine), nothing is known of the other.
        """
        assert process.stdout is not None
        silent_s, limit_s, starting_s = 0.0, START_S, 0.0
        line = asyncio.create_task(process.stdout.readline())
        try:
            while silent_s < limit_s:
                began_s = time.monotonic()
                done, _ = await asyncio.wait({line}, timeout=channel.BEAT_S)
                starting_s += 0.0 if life.ready_s else min(time.monotonic() - began_s, channel.BEAT_S)
                if starting_s > self._ready_s:
                    self._ready_s *= 2
                    return (
                        f"it was not ready within {starting_s:.0f} s: the engine hangs while it opens"
                        f" {self._settings.storage.data}, or takes long; the next start may take twice the time"
                    )
                if not done:
                    silent_s += channel.BEAT_S
                    continue
                silent_s, limit_s = 0.0, self._silent_s
                if not (text := line.result()):
                    return ""
                self._take(process, life, json.loads(text))
                line = asyncio.create_task(process.stdout.readline())
        except (ValueError, KeyError, TypeError) as error:  # nothing that meshflow writes
            return f"it said what is not understood: {error!r}"
        finally:
            line.cancel()
        return f"it did not answer for {silent_s:.0f} s"

    def _take(self, process: Process, life: _Life, line: dict[str, Any]) -> None:
        match line["say"]:
            case channel.READY:
                life.ready_s = time.monotonic()
                self.ready.set()
                if self._restarts:
                    logger.warning("processing and SQL are there again")
            case channel.EXPOSITION:
                self._send(process, (int(line["number"]), self._exposition()))
            case channel.FAILED:
                life.failed, life.reason = str(line["kind"]), str(line["reason"])

    def _send(self, process: Process, message: object) -> None:
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(message))


def _environment() -> dict[str, str]:
    """The variables of the first process without settings, which may hold passwords: SQL might read them
    (/proc/self/environ) if its guard had a hole. Settings go another way.
    """
    kept = {"MESHFLOW_DECODER"}
    return {
        name: value for name, value in os.environ.items() if name in kept or not name.startswith("MESHFLOW_")
    }


async def _first_of(*awaited: Any) -> None:
    """Wait until one of them is there; end the others."""
    tasks = [asyncio.ensure_future(each) for each in awaited]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
