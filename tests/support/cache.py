"""Where tests keep what they fetch and build."""

import hashlib
import os
from pathlib import Path


def place(name: str, sources: Path) -> Path:
    """Where the thing ``name`` that is made of a folder's files is, once it is made."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources.iterdir()))).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "meshflow" / f"{name}-{digest[:12]}"
