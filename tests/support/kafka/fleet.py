"""``meshflow ingest`` and ``meshflow process`` as processes of their own, around one Kafka."""

import re
import signal
import subprocess
import time
import uuid
from pathlib import Path

from tests.support.kafka.broker import with_us
from tests.support.up import MESHFLOW, ROOT

PANE = ("--pane", "1s")
LONG_S = 240.0
"""How long a start, an end or a replay may take on a busy machine."""


class Command:
    """One process, its output in a file."""

    def __init__(
        self, folder: Path, name: str, log_url: str, *arguments: str, config: str = "", store_url: str = ""
    ) -> None:
        """``store_url``: the tables; "": where the arguments say."""
        self.name = name
        self._file = folder / f"{name}.log"
        config_file = folder / "meshflow.toml"
        _put(config_file, config)
        places = [f"MESHFLOW_LOG={log_url}", f"MESHFLOW_STORE={store_url}"]
        self._command = [*with_us(), "env", *places, *MESHFLOW, "--config", str(config_file), *arguments]
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start without waiting."""
        self._before = len(self.output()) if self._file.exists() else 0
        with self._file.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )

    def wait_for(self, pattern: str) -> str:
        """Wait until the newest process has said this; its group."""
        end_s = time.monotonic() + LONG_S
        while not (match := self.has_said(pattern)):
            assert self.process is not None
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < end_s, self.output()
            time.sleep(0.1)
        return match[1]

    def has_said(self, pattern: str) -> re.Match[str] | None:
        """Where the newest process said this, if it did."""
        return re.search(pattern, self.output_of_newest())

    def ended(self) -> bool:
        """Whether the newest process has ended."""
        assert self.process is not None
        return self.process.poll() is not None

    def wait(self) -> int:
        """Wait until it ends by itself; its exit code."""
        assert self.process is not None
        return self.process.wait(LONG_S)

    def output_of_newest(self) -> str:
        """What the newest process has said."""
        return self.output()[self._before :]

    def output(self) -> str:
        """All that was said, by every process so far."""
        return self._file.read_text(errors="replace")

    def kill(self) -> None:
        """``kill -9``."""
        self.stop(signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(LONG_S)


def _put(file: Path, text: str) -> None:
    """Write it whole: other processes of the folder may be reading it."""
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    unfinished.write_text(text)
    unfinished.rename(file)


def ingest(folder: Path, log_url: str, config: str = "", workers: int = 1) -> Command:
    ports = ("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")
    return Command(
        folder,
        "ingest",
        log_url,
        "ingest",
        *ports,
        "--spool",
        str(folder / "spool"),
        "--workers",
        str(workers),
        *PANE,
        config=config,
    )


def worker(folder: Path, log_url: str, config: str = "") -> Command:
    """It stores in chdb in ``folder/data``."""
    return Command(
        folder,
        "process",
        log_url,
        "process",
        "--data",
        str(folder / "data"),
        "--metrics-port",
        "0",
        *PANE,
        config=config,
    )
