"""An OpenTelemetry Collector (contrib v0.155.0, only the parts we need), built from the Go module proxy into
a cache.

``python -m tests.support.collector.build`` builds it, once, and prints where it is. Needs go. Interop tests
and ``benchmarks/peers`` use it.
"""

import hashlib
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

RECIPE = Path(__file__).parent
SOURCES = ("go.mod", "go.sum", "main.go", "components.go")


def missing() -> str:
    """Why there can be no Collector here; "" when there can."""
    if binary().exists() or shutil.which("go"):
        return ""
    return "go is not there, which builds the OpenTelemetry Collector"


def binary() -> Path:
    """Where the Collector of this recipe is, once it is built."""
    digest = hashlib.sha256(b"".join((RECIPE / name).read_bytes() for name in SOURCES)).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "meshflow" / f"collector-{digest[:12]}"


def build() -> Path:
    """The Collector's binary; built when it is not there yet. Takes minutes where Go's own cache is empty."""
    path = binary()
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
        ".",
    ]
    done = subprocess.run(command, cwd=RECIPE, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the Collector could not be built:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    with suppress(OSError):  # another process was first
        partial.rename(path)
    return path


if __name__ == "__main__":
    print(build())
