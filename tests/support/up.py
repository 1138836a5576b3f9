"""``meshflow up`` as a process of its own, as an operator starts it, and what tests ask of it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from schemas.tables import SCHEMAS

ROOT = Path(__file__).parents[2]
LONG_S = 90.0
"""How long anything that must happen may take on a busy machine."""
WORK_S = 5.0
"""CPU that a process without work does not take in LONG_S."""
KEEP_ALL = """
[[sampling.policies]]
name = "errors"
type = "status_code"
status_code = { status_codes = ["ERROR"] }

[[sampling.policies]]
name = "everything"
type = "always_sample"
"""


MERGED = ("_10s", "_1m", "_1h", "certificates", "otel_traces_trace_id_ts")
"""How names of tables end whose engine merges rows."""


class Up:
    """One data folder and the process that works on it."""

    def __init__(self, folder: Path, config: str = "", *arguments: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._config = folder / "meshflow.toml"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.ports: dict[str, int] = {}
        self.own_group = False
        """Whether the process has a group of its own, as a shell's jobs have."""
        folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(config)

    def start(self) -> Self:
        """Start the process and wait until it is ready."""
        self.launch()
        eventually(self._is_ready, f"`meshflow up` is ready, see {self.folder / 'up.log'}")
        return self

    def launch(self) -> None:
        """Start the process without waiting for it."""
        (self.data / "ports.json").unlink(missing_ok=True)
        command = [*MESHFLOW, "--config", str(self._config), "up", "--data", str(self.data)]
        command += ["--grpc-port", "0", "--http-port", "0", "--sql-port", "0", *self._arguments]
        with (self.folder / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=ROOT, process_group=0 if self.own_group else None
            )

    @property
    def pid(self) -> int:
        """Id of the running process."""
        assert self._process is not None
        return self._process.pid

    def poll_ports(self) -> dict[str, int]:
        """The ports if the process has written them, else {}."""
        try:
            self.ports = json.loads((self.data / "ports.json").read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return self.ports

    def has_opened_store(self) -> bool:
        """Whether the second process has the store's lock file open: it is about to process."""
        store = str(self.data / "store")
        with suppress(FileNotFoundError):  # not there yet, or closed meanwhile
            return any(
                store in str(link.readlink())
                for pid in self.back_pids()
                for link in Path(f"/proc/{pid}/fd").iterdir()
            )
        return False

    def back_pids(self) -> list[int]:
        """The second process: processing, engine, SQL; [] while there is none."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def kill(self) -> None:
        """``kill -9`` of the first process; the second ends by itself."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def signal_back(self, how: signal.Signals) -> int:
        """Send a signal to the second process, as soon as there is one; its id."""
        eventually(lambda: bool(self.back_pids()), "the second process is there")
        (pid,) = self.back_pids()
        os.kill(pid, how)
        return pid

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask the process to end; its exit code."""
        self.ask_to_end(how)
        return self.wait()

    def ask_to_end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send the first process a signal, if it has not ended."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)

    def wait(self) -> int:
        """Wait until the first process ends; its exit code."""
        assert self._process is not None
        return self._process.wait(LONG_S)

    @property
    def grpc(self) -> str:
        """``HOST:PORT`` of OTLP/gRPC."""
        return f"127.0.0.1:{self.ports['grpc']}"

    @property
    def http(self) -> str:
        """URL of OTLP/HTTP."""
        return f"http://127.0.0.1:{self.ports['http']}"

    def sql(self, query: str) -> list[list[Any]]:
        """Rows of a query, over the SQL port."""
        url = f"http://127.0.0.1:{self.ports['sql']}/?" + urllib.parse.urlencode(
            {"default_format": "JSONCompactEachRow"}
        )
        try:
            with urllib.request.urlopen(url, query.encode(), timeout=LONG_S) as response:
                lines = response.read().splitlines()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from None
        except urllib.error.URLError as error:
            raise AssertionError(f"{query}: {error}; the process says: {self._last_words()}") from None
        return [json.loads(line) for line in lines]

    def count(self, query: str) -> int:
        """The one number that a query gives."""
        return int(self.sql(query)[0][0])

    def ledger(self, topic: str = "otlp_spans") -> dict[str, int]:
        """The ledger's sums over all panes of a topic."""
        names = (
            "received", "rejected", "duplicate", "kept", "dropped", "aggregated", "left_out", "unknown", "stored", "refused", "lost",
        )  # fmt: skip
        sums = self.sql(
            f"SELECT {', '.join(f'sum({name})' for name in names)} FROM ledger WHERE topic = '{topic}'"
        )[0]
        return {name: int(value) for name, value in zip(names, sums, strict=True)}

    def wait_for(self, received: int, topic: str = "otlp_spans") -> dict[str, int]:
        """Wait until the ledger has at least so many spans (log records, data points); the ledger then.

        Fails when for long neither the ledger changes nor the second process works: on a busy machine reading
        a lookback again may take minutes, and only then comes the first row.
        """
        last, last_s = (-1, -1), 0.0
        while (ledger := self.ledger(topic))["received"] < received:
            worked_s = sum(map(cpu_s, self.back_pids()))
            state = ledger["received"], int(worked_s / WORK_S)
            if state != last:
                last, last_s = state, time.monotonic()
            quiet_s = time.monotonic() - last_s
            assert quiet_s < LONG_S, (
                f"nothing happened for {LONG_S} s: {received} of {topic} in the ledger: {ledger}"
            )
            time.sleep(0.1 if quiet_s < 5 else 1.0)  # asking is work, too
        return ledger

    def tables(self) -> dict[str, list[str]]:
        """Every table's rows, merged as the table's engine merges them, in order."""
        return {table: self.rows(table) for table in SCHEMAS}

    def rows(self, table: str) -> list[str]:
        """A table's rows as lines of JSON, sorted."""
        final = "FINAL" if table.endswith(MERGED) else ""
        return sorted(
            json.dumps(row)
            for row in self.sql(
                f"SELECT {', '.join(f'`{name}`' for name in SCHEMAS[table].names)} FROM {table} {final}"
            )
        )

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"`meshflow up` ended: {self._last_words()}"
        return bool(self.poll_ports())

    def said(self) -> str:
        """All that was logged."""
        return (self.folder / "up.log").read_text()

    def _last_words(self) -> str:
        return self.said()[-3000:]


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far (proc(5)); 0 where it is no more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


MESHFLOW = (sys.executable, "-m", "meshflow")


@contextmanager
def running_up(folder: Path, config: str = "", *arguments: str) -> Iterator[Up]:
    """A ready ``meshflow up``; ended afterwards."""
    up = Up(folder, config, *arguments)
    try:
        yield up.start()
    finally:
        up.stop(signal.SIGKILL)


def run_meshflow(*arguments: str) -> str:
    """Run a command of meshflow to its end; its standard output."""
    done = subprocess.run(
        [*MESHFLOW, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=LONG_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def replay(up: Up, *files: Path, options: Sequence[str] = ()) -> None:
    """Send captured requests to the gRPC port, with meshflow's own command."""
    run_meshflow("replay", *map(str, files), "--target", up.grpc, "--speed", "0", *options)


def eventually(
    happened: Callable[[], bool],
    what: str | Callable[[], str],
    within_s: float = LONG_S,
    every_s: float = 0.1,
) -> None:
    """Wait until something happened; fail with ``what`` should it not."""
    end_s = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < end_s, (
            f"did not happen within {within_s} s: {what if isinstance(what, str) else what()}"
        )
        time.sleep(every_s)
