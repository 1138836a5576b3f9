"""Senders written in Go, built from the Go module proxy into a cache: our own ``go_client`` and
OpenTelemetry's ``telemetrygen``.
"""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.support.cache import place

SOURCES = Path(__file__).parent / "go_client"
PACKAGES = {
    "go_client": ".",
    "telemetrygen": "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen",
}


def missing() -> str:
    """Why there can be no client in Go here; "" when there can."""
    if shutil.which("go") or all(_path(name).exists() for name in PACKAGES):
        return ""
    return "go is not there, which builds the clients in Go"


def build(name: str) -> Path:
    """The binary; built when it is not there yet. Takes minutes where Go's own cache is empty."""
    path = _path(name)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    command = [
        "go",
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-mod=readonly",
        "-ldflags",
        "-s -w",
        "-o",
        str(partial),
        PACKAGES[name],
    ]
    done = subprocess.run(command, cwd=SOURCES, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} could not be built:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    with suppress(OSError):  # another process was first
        partial.rename(path)
    return path


def _path(name: str) -> Path:
    return place(name, SOURCES)
