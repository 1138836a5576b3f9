"""The Collector of :mod:`tests.support.collector.build` as a process, and the parts of a configuration that
tests and benchmarks share.
"""

import json
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.support.collector.build import build

START_S = 90.0
"""How long a start, or a stop that has to hand on what is in hand, may take on a busy machine."""

OTLP = {"protocols": {"grpc": {"endpoint": "127.0.0.1:0", "max_recv_msg_size_mib": 64}}}
"""An ``otlp`` receiver on a free port: :attr:`Collector.grpc` says which."""

_LISTENING = "0A"  # TCP_LISTEN, as /proc/net/tcp writes it


class Collector:
    """One process; a context manager that ends it by SIGTERM, which hands on what is in its queues."""

    def __init__(self, folder: Path, config: Mapping[str, Any], name: str = "collector") -> None:
        """``config`` as the Collector's YAML has it; its own metrics are off."""
        self._log = folder / f"{name}.log"
        self._config = folder / f"{name}.json"  # JSON is YAML
        self._config.write_text(
            json.dumps(
                {**config, "service": {"telemetry": {"metrics": {"level": "none"}}, **config["service"]}}
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            command = [str(build()), "--config", f"file:{self._config}"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        end_s = time.monotonic() + START_S
        while "Everything is ready" not in self.output():
            if self._process.poll() is not None or time.monotonic() > end_s:
                self.__exit__()
                raise AssertionError(f"the Collector did not start: {self.output()[-3000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Id of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def grpc(self) -> str:
        """``HOST:PORT`` of the one port it listens on."""
        (port,) = listening_ports(self.pid)
        return f"127.0.0.1:{port}"

    def output(self) -> str:
        """What it has said."""
        return self._log.read_text()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(START_S)
            self._process.kill()
        return self._process.wait()

    def end_whole(self) -> None:
        """End it; fails unless it has handed on everything.

        At SIGTERM the Collector sends what waits in its queues, but drops what waits to be sent *again*: its
        retries end first. So wait until everything has arrived before this is called.
        """
        assert self.stop() == 0, self.output()[-3000:]
        assert not self.dropped(), f"the Collector dropped data: {self.dropped()}"

    def dropped(self) -> list[str]:
        """The lines in which it says that it has dropped data."""
        return [line for line in self.output().splitlines() if re.search("dropp", line, re.IGNORECASE)]


def kafka_exporter(bootstrap: str, prefix: str = "", **options: Any) -> dict[str, Any]:
    """A ``kafka`` exporter for topics ``otlp_*`` after ``prefix``: acknowledged by all replicas, zstd,
    nothing dropped when it is slow.
    """
    return {
        "brokers": bootstrap.split(","),
        "producer": {"required_acks": -1, "compression": "zstd", "max_message_bytes": 1_000_000},
        "sending_queue": {"block_on_overflow": True},
        "retry_on_failure": {"initial_interval": "500ms"},
        **_topics("topic", prefix, lambda topic: topic),
        **options,
    }


def kafka_receiver(bootstrap: str, prefix: str = "", **options: Any) -> dict[str, Any]:
    """A ``kafka`` receiver of such topics, from their beginning, as a group of its own for each prefix."""
    return {
        "brokers": bootstrap.split(","),
        "group_id": f"{prefix}collector",
        "initial_offset": "earliest",
        **_topics("topics", prefix, lambda topic: [topic]),
        **options,
    }


def _topics(key: str, prefix: str, spell: Any) -> dict[str, Any]:
    names = {"traces": "otlp_spans", "metrics": "otlp_metrics", "logs": "otlp_logs"}
    return {
        signal_name: {key: spell(prefix + topic), "encoding": "otlp_proto"}
        for signal_name, topic in names.items()
    }


def pipelines(receiver: str, exporter: str, *processors: str) -> dict[str, Any]:
    """``service.pipelines`` of all three signals."""
    return {
        name: {"receivers": [receiver], "processors": list(processors), "exporters": [exporter]}
        for name in ("traces", "metrics", "logs")
    }


def listening_ports(pid: int) -> set[int]:
    """TCP ports that a process listens on (proc(5): its descriptors' sockets, and the states of those)."""
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            sockets.add(str(link.readlink()))
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == _LISTENING and f"socket:[{inode}]" in sockets:
                ports.add(int(local.rpartition(":")[2], 16))
    return ports
