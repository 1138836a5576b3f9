"""``meshflow ingest --workers N``: a parent that starts N processes on the same ports (SO_REUSEPORT), and
again when one dies.

A worker gets its settings through its standard input, which stays open: when it closes, the parent is gone,
and the worker stops too. It says where it listens, or why it cannot, in one line on its standard output.
"""

import asyncio
import json
import logging
import pickle
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, TypeVar

from meshflow.lifecycle import stop_on_signals
from meshflow.run.ingest import IngestPorts, serve
from meshflow.settings import Settings
from schemas.errors import AddressInUse, MeshflowError

logger = logging.getLogger(__name__)

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 30.0
GOOD_LIFE_S = 60.0
"""A worker that lived so long is started again after the first delay."""

_STOP_S = 30.0
"""What a worker may need beyond ``drain_time`` to stop; then it is killed."""


_T = TypeVar("_T")


class WorkerFailed(MeshflowError):
    """A worker could not start; the text is its own."""


def run_workers(settings: Settings, on_ready: Callable[[IngestPorts], None]) -> None:
    """Run ``settings.ingest.workers`` processes until SIGINT or SIGTERM. Raises AddressInUse, WorkerFailed:
    one cannot start at all.
    """
    asyncio.run(_supervise(settings, on_ready))


def main() -> None:
    """Be one of the workers: ``python -m meshflow.run.ingest_workers``, by the parent alone."""
    settings, level = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the parent that started this process
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all processes of a terminal; the parent stops this one
    try:
        asyncio.run(_work(settings))
    except MeshflowError as error:
        _print({"failed": str(error)})
        sys.exit(1)


async def _work(settings: Settings) -> None:
    stop = stop_on_signals(signal.SIGTERM)
    asyncio.get_running_loop().add_reader(
        sys.stdin.fileno(), stop.set
    )  # nothing more is ever written there: its end has come
    await serve(settings, stop, lambda ports: _print(asdict(ports)), reuse_port=True)


def _print(line: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):
        print(json.dumps(line), flush=True)


async def _supervise(settings: Settings, on_ready: Callable[[IngestPorts], None]) -> None:
    stop = stop_on_signals(signal.SIGINT, signal.SIGTERM)
    with _reserved(settings) as ports:
        workers = [
            _Worker(number, _settings_of(settings, number, ports))
            for number in range(settings.ingest.workers)
        ]
        stopping = asyncio.ensure_future(stop.wait())
        try:
            lines = await _unless(stopping, asyncio.gather(*(worker.start() for worker in workers)))
            if lines is not None:
                metrics = tuple(port for line in lines for port in line["metrics"])
                on_ready(IngestPorts(settings.ingest.host, *ports, metrics))
                await _unless(stopping, asyncio.gather(*(worker.keep() for worker in workers)))
        finally:
            stopping.cancel()
            await asyncio.gather(*(worker.stop() for worker in workers))


async def _unless(stopping: "asyncio.Future[Any]", work: "asyncio.Future[_T]") -> _T | None:
    """What ``work`` comes to; None when it was cancelled since ``stopping`` was done before."""
    await asyncio.wait({stopping, work}, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        return work.result()
    work.cancel()
    with suppress(asyncio.CancelledError, WorkerFailed):
        await work
    return None


class _Worker:
    """One process after another."""

    def __init__(self, number: int, settings: Settings) -> None:
        self._number = number
        self._settings = settings
        self._process: Process | None = None
        self._began_s = 0.0

    async def start(self) -> dict[str, Any]:
        """Return its line about where it listens. Raises WorkerFailed."""
        self._began_s = time.monotonic()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "meshflow.run.ingest_workers"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(ConnectionError):
            self._process.stdin.write(pickle.dumps((self._settings, logging.getLogger().getEffectiveLevel())))
            await self._process.stdin.drain()
        line: dict[str, Any] = json.loads(await self._process.stdout.readline() or b"{}")
        if "failed" in line:
            raise WorkerFailed(line["failed"])
        if not line:
            raise WorkerFailed(
                f"worker {self._number} ended while it started (exit code {await self._process.wait()})"
            )
        return line

    async def keep(self) -> None:
        """For ever: when the process ends, start another one."""
        delay_s = FIRST_DELAY_S
        while True:
            assert self._process is not None
            code = await self._process.wait()
            if time.monotonic() - self._began_s > GOOD_LIFE_S:
                delay_s = FIRST_DELAY_S
            logger.warning(
                "worker %d ended (exit code %d) and is started again in %.1f s", self._number, code, delay_s
            )
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
            try:
                await self.start()
            except WorkerFailed as error:
                logger.error("worker %d: %s", self._number, error)
            else:
                logger.warning("worker %d is there again", self._number)

    async def stop(self) -> None:
        """Pass SIGTERM on and wait; kill it when it takes too long."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(
                    process.wait(), self._settings.ingest.drain_time.total_seconds() + _STOP_S
                )
            except TimeoutError:
                logger.error("worker %d did not stop and is killed", self._number)
                process.kill()
                await process.wait()
        assert process.stdin is not None
        process.stdin.close()
        with suppress(ConnectionError):
            await process.stdin.wait_closed()


def _settings_of(settings: Settings, number: int, ports: tuple[int, int]) -> Settings:
    grpc, http = ports
    metrics = settings.console.metrics_port and settings.console.metrics_port + number
    console = settings.console.model_copy(update={"metrics_port": metrics})
    if "metrics_port" not in settings.console.model_fields_set:
        console.model_fields_set.discard("metrics_port")  # where it is taken, a free one does
    return settings.model_copy(
        update={
            "ingest": settings.ingest.model_copy(update={"grpc_port": grpc, "http_port": http}),
            "console": console,
        }
    )


@contextmanager
def _reserved(settings: Settings) -> Iterator[tuple[int, int]]:
    """The gRPC and HTTP ports, free ones where they are 0, held for workers to share. Raises AddressInUse."""
    ingest = settings.ingest
    held: list[socket.socket] = []
    try:
        for name, port in (("gRPC", ingest.grpc_port), ("HTTP", ingest.http_port)):
            try:
                held.append(_bound(ingest.host, port))
            except OSError as error:
                raise AddressInUse(f"OTLP/{name} cannot listen on {ingest.host}:{port}: {error}") from error
        yield held[0].getsockname()[1], held[1].getsockname()[1]
    finally:
        for each in held:
            each.close()


def _bound(host: str, port: int) -> socket.socket:
    """A socket that holds a port and takes no connections. A first one without SO_REUSEPORT finds out whether
    anybody else has the port.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    if port:
        with socket.socket(family, kind, protocol) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
    shared = socket.socket(family, kind, protocol)
    try:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(address)
    except OSError:
        shared.close()
        raise
    return shared


if __name__ == "__main__":
    main()
