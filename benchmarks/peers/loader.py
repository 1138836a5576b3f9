"""The load program (``loader/``, Rust), built into the cache, and the files of requests that it sends."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.load import generate_counted_requests

RECIPE = Path(__file__).with_name("loader")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "meshflow"
_SEED = 1
_GRPC = struct.Struct(">BI")
_SPANS = struct.Struct("<I")


def missing() -> str:
    """Why there can be no load program here; "" when there can."""
    return (
        ""
        if binary().exists() or shutil.which("cargo")
        else "cargo is not there, which builds the load program"
    )


def binary() -> Path:
    """Where the load program of this recipe is, once it is built."""
    files = [RECIPE / "Cargo.toml", RECIPE / "Cargo.lock", *sorted((RECIPE / "src").glob("*.rs"))]
    return CACHE / f"loader-{hashlib.sha256(b''.join(file.read_bytes() for file in files)).hexdigest()[:12]}"


def build() -> Path:
    """The load program; built when it is not there yet."""
    path = binary()
    if path.exists():
        return path
    target = CACHE / "loader-target"
    command = [
        "cargo",
        "build",
        "--quiet",
        "--release",
        "--locked",
        "--manifest-path",
        str(RECIPE / "Cargo.toml"),
        "--target-dir",
        str(target),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the load program could not be built:\n{done.stderr[-3000:]}")
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    shutil.copy2(target / "release" / "meshflow-loader", partial)
    with suppress(OSError):  # another process was first
        partial.rename(path)
    return path


def write_load(path: Path, spans: int, spans_per_request: int, services: int, operations: int = 10) -> None:
    """A file of requests as the load program reads it: spans (u32, little-endian), then the gRPC message;
    again.
    """
    with path.open("wb") as file:
        for count, request in generate_counted_requests(
            spans, services, operations, spans_per_request, _SEED
        ):
            file.write(_SPANS.pack(count) + _GRPC.pack(0, len(request)) + request)


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent and taken. ``refused``: answers after which a request was sent again; ``broken``:
    connections that ended.
    """

    spans: int
    requests: int
    rejected: int
    refused: int
    broken: int
    bytes: int
    wall_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    fewest_on_a_connection: int
    most_on_a_connection: int
    cpu_s: float
    """The load program's own, from the first request on."""


class Loader:
    """A load program that has all its connections and waits; a context manager."""

    def __init__(self, target: str, load: Path, *options: str) -> None:
        """``options`` as loader/src/options.rs has them."""
        self._command = [str(build()), "--target", target, "--file", str(load), *options]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._line() != "ready":
            self.__exit__()
            raise RuntimeError("the load program did not get its connections")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def send(self) -> Sent:
        """Send all of it, or for the given seconds; return when all is answered."""
        before_s = cpu_s([self._process.pid])
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        report: dict[str, Any] = json.loads(self._line())
        after_s = cpu_s([self._process.pid])  # it waits until its input is closed
        return Sent(**report, cpu_s=after_s - before_s)

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"the load program ended with {self._process.wait(10)}; its error is above")
        return line


def cpu_s(pids: Sequence[int]) -> float:
    """User + system seconds of processes and of the children that they have waited for (proc(5), fields 14 to
    17 of stat).
    """
    total = 0
    for pid in pids:
        with suppress(FileNotFoundError):  # it has ended
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")
