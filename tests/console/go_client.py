"""ClickHouse's own Go client over HTTP, built from the Go module proxy into a cache: what Grafana's data
source speaks with.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.cache import place

SOURCES = Path(__file__).parent / "clickhouse_go"


@dataclass(frozen=True, slots=True)
class GoAnswer:
    """What the client made of one answer; values as Go prints them."""

    columns: list[str]
    types: list[str]
    rows: list[list[str]]
    error: str


def ask(
    port: int,
    queries: Sequence[str],
    *,
    database: str = "default",
    user: str = "default",
    password: str = "",
    compression: str = "gzip",
) -> list[GoAnswer]:
    """Ask queries one by one; ``INSERT INTO t (number, name)`` sends two rows."""
    command = [str(build()), f"127.0.0.1:{port}", database, user, password, compression]
    done = subprocess.run(
        command, input=json.dumps(list(queries)), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return [GoAnswer(**json.loads(line)) for line in done.stdout.splitlines()]


def build() -> Path:
    """The binary; built when it is not there yet. Takes minutes where Go's own cache is empty."""
    path = place("clickhouse_go", SOURCES)
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
    done = subprocess.run(command, cwd=SOURCES, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the Go client could not be built:\n{done.stderr[-2000:]}")
    with suppress(OSError):  # another process was first
        partial.rename(path)
    return path
