"""Rotel (a collector in Rust), its binary from the PyPI wheel in the cache."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from benchmarks.peers.loader import CACHE

VERSION = "0.0.1a15"


def install() -> Path:
    """The agent's binary. Raises RuntimeError: there is no wheel for this machine (it links libpython
    3.11).
    """
    folder = CACHE / f"rotel-{VERSION}"
    agent = folder / "rotel" / "rotel-agent"
    if not agent.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--target",
            str(partial),
        ]
        done = subprocess.run([*command, f"rotel=={VERSION}"], check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"rotel {VERSION} cannot be installed here: {done.stderr.strip()[-500:]}")
        with suppress(OSError):  # another process was first
            partial.rename(folder)
    done = subprocess.run([str(agent), "--version"], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"rotel {VERSION} does not run here: {done.stderr.strip()[-500:]}")
    return agent
