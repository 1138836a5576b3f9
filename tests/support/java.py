"""A sender written in Java: OpenTelemetry's SDK, its jars from Maven Central in a cache."""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.support.cache import place

SOURCES = Path(__file__).parent / "java_client"


def missing() -> str:
    """Why there can be no client in Java here; "" when there can."""
    if not shutil.which("javac"):
        return "a JDK is not there (17 or newer), which compiles the client in Java"
    return "" if _folder().exists() or shutil.which("mvn") else "mvn is not there, which fetches the SDK"


def build() -> Path:
    """The folder with the compiled ``Send`` and its jars; made when it is not there yet."""
    folder = _folder()
    if folder.exists():
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    pom = str(SOURCES / "pom.xml")
    _run(
        "mvn", "-B", "-q", "-f", pom, "dependency:copy-dependencies",
        f"-DoutputDirectory={partial}", "-DincludeScope=runtime",
    )  # fmt: skip
    _run("javac", "-cp", f"{partial}/*", "-d", str(partial), str(SOURCES / "Send.java"))
    with suppress(OSError):  # another process was first
        partial.rename(folder)
    return folder


def command(*arguments: str) -> list[str]:
    """What runs ``Send``."""
    folder = build()
    return [
        "java",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        "-cp",
        f"{folder}:{folder}/*",
        "Send",
        *arguments,
    ]


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"the client in Java could not be made:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )


def _folder() -> Path:
    return place("java_client", SOURCES)
