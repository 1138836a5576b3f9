"""``meshflow store --writable`` as a process of its own, which tests may kill and start again on its port."""

import signal
import subprocess
from pathlib import Path
from typing import Self

from tests.support.kafka.ports import reserve_port
from tests.support.up import LONG_S, MESHFLOW, ROOT, eventually


class StoreServer:
    """One data folder, one port, and the process that serves them."""

    def __init__(self, folder: Path, config: str = "", *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data = folder / "data"
        self.port = reserve_port()
        self.config = folder / "meshflow.toml"
        self.config.write_text(config)
        self._arguments = arguments or ("--writable",)
        self._log = folder / "store.log"
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "default") -> str:
        """As MESHFLOW_STORE takes it."""
        return f"clickhouse://127.0.0.1:{self.port}/{database}"

    def start(self) -> Self:
        """Start the process and wait until it is ready."""
        (self.data / "ports.json").unlink(missing_ok=True)
        command = [
            *MESHFLOW,
            "--config",
            str(self.config),
            "store",
            "--data",
            str(self.data),
            "--sql-port",
            str(self.port),
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*command, *self._arguments], stdout=log, stderr=log, cwd=ROOT)
        eventually(self._is_ready, f"`meshflow store` is ready, see {self._log}")
        return self

    @property
    def pid(self) -> int:
        """Id of the running process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Ask the process to end; its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(LONG_S)

    def log(self) -> str:
        """What it said."""
        return self._log.read_text()

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"`meshflow store` ended: {self.log()[-3000:]}"
        return (self.data / "ports.json").exists()
