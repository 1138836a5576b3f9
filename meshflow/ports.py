"""ports.json: where a running meshflow answers, in its data folder, for other commands and tests to read."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from schemas.errors import AddressInUse

PORTS_FILE = "ports.json"
"""In the data folder while ``up`` or ``store`` runs: its ports, by name."""


@contextmanager
def published(data: Path, ports: Any) -> Iterator[None]:
    """Write a dataclass of ports; the file is whole or not there."""
    path = data / PORTS_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(ports)))
    partial.rename(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def listen_for_sql(host: str, port: int) -> socket.socket:
    """A socket that listens, for a process that answers SQL to inherit. Raises AddressInUse."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise AddressInUse(
            f"SQL cannot listen on {host}:{port}: {error.strerror}; choose another with --sql-port"
        ) from error
