"""ports.json: where a running meshflow answers, in its data folder, for other commands and tests to read."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
