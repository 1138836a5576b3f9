"""A real Prometheus (Debian's package), fetched with apt into a cache: loaded from OpenMetrics text, or
receiving remote write, and asked in PromQL.
"""

import json
import os
import shutil
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.kafka.ports import reserve_port
from tests.support.up import eventually

_PACKAGE = "prometheus"


def missing() -> str:
    """Why there can be no Prometheus here; "" when there can."""
    tools = all(map(shutil.which, ("apt-get", "dpkg-deb")))
    return "" if tools or _folder().exists() else "apt-get is not there, which fetches Prometheus"


def build() -> Path:
    """The folder with ``prometheus`` and ``promtool``; fetched when it is not there yet."""
    folder = _folder()
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        partial = Path(made)
        partial.chmod(0o755)
        done = _run("apt-get", "download", "-q", _PACKAGE, cwd=partial)
        if done.returncode:
            _run("apt-get", "update", "-q")
            done = _run("apt-get", "download", "-q", _PACKAGE, cwd=partial)
        packages = list(partial.glob("*.deb"))
        if done.returncode or not packages:
            raise RuntimeError(
                f"Prometheus could not be fetched:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        done = _run("dpkg-deb", "-x", str(packages[0]), str(partial / "package"))
        if done.returncode:
            raise RuntimeError(f"Prometheus could not be unpacked:\n{done.stderr[-2000:]}")
        with suppress(OSError):  # another process was first
            (partial / "package/usr/bin").rename(folder)
    return folder


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server."""

    url: str

    def query(self, promql: str, at_s: float) -> list[dict[str, Any]]:
        """The result of an instant query: a list of ``{"metric": labels, "value": [time, text]}``."""
        asked = urllib.parse.urlencode({"query": promql, "time": at_s})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{asked}", timeout=30) as response:
            answer = json.load(response)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def values(self, promql: str, at_s: float, *labels: str) -> dict[tuple[str, ...], float]:
        """The value of each series, by some of its labels ("" where it has none)."""
        return {
            tuple(series["metric"].get(label, "") for label in labels): float(series["value"][1])
            for series in self.query(promql, at_s)
        }


@contextmanager
def started(folder: Path, openmetrics: str = "", config: str = "", *arguments: str) -> Iterator[Prometheus]:
    """A server whose samples are in ``folder``, with those of an OpenMetrics text loaded before it starts."""
    binaries = build()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(config)
    (folder / "data").mkdir(exist_ok=True)
    if openmetrics:
        (folder / "samples.txt").write_text(openmetrics)
        make = ("tsdb", "create-blocks-from", "openmetrics", "samples.txt", "data")
        done = _run(str(binaries / "promtool"), *make, cwd=folder)
        if done.returncode:
            raise RuntimeError(
                f"promtool did not take the samples:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
    url = f"127.0.0.1:{reserve_port()}"
    places = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data")
    command = (str(binaries / "prometheus"), *places, f"--web.listen-address={url}", *arguments)
    with (folder / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--storage.tsdb.retention.time=100y"], stdout=log, stderr=log, cwd=folder
        )
    try:
        eventually(lambda: _is_ready(url, process), f"Prometheus is ready, see {folder}/prometheus.log")
        yield Prometheus(f"http://{url}")
    finally:
        process.terminate()
        process.wait()


def _is_ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"Prometheus ended with {process.returncode}")
    with suppress(OSError), urllib.request.urlopen(f"http://{url}/-/ready", timeout=5):
        return True
    return False


def _run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd)


def _folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "meshflow" / "prometheus-debian"
