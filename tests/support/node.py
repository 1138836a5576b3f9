"""A sender written for Node: OpenTelemetry's SDK for JavaScript, from npm into a cache."""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.support.cache import place

SOURCES = Path(__file__).parent / "node_client"


def missing() -> str:
    """Why there can be no client on Node here; "" when there can."""
    if not shutil.which("node"):
        return "node is not there (20.6 or newer)"
    return "" if _folder().exists() or shutil.which("npm") else "npm is not there, which fetches the SDK"


def build() -> Path:
    """The folder with ``send.js`` and its modules; fetched when it is not there yet."""
    folder = _folder()
    if folder.exists():
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.copytree(SOURCES, partial)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=partial, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"the SDK for Node could not be fetched:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    with suppress(OSError):  # another process was first
        partial.rename(folder)
    return folder


def command(*arguments: str) -> list[str]:
    """What runs ``send.js``."""
    return ["node", str(build() / "send.js"), *arguments]


def _folder() -> Path:
    return place("node_client", SOURCES)
