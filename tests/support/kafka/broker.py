"""Apache Kafka (KRaft) of one or more nodes, its jars from Maven Central in a cache: for tests, and by hand.

``python -m tests.support.kafka.broker --nodes 3 --folder /tmp/kafka`` runs one until Ctrl-C. Needs java >=
17, and mvn for the first start.
"""

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.kafka.ports import reserve_port

POM = Path(__file__).with_name("pom.xml")
START_S = 240.0
"""How long a start may take on a busy machine."""

_STAND_STILL_S = 60.0

_CLUSTER_ID = "bWVzaGZsb3ctdGVzdC0wMQ"
_LOGGING = """
status=error
appender.o.type=Console
appender.o.name=o
appender.o.layout.type=PatternLayout
appender.o.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=warn
rootLogger.appenderRef.o.ref=o
logger.s.name=kafka.server.KafkaRaftServer
logger.s.level=info
"""


def missing() -> str:
    """Why no broker can be started here; "" when one can."""
    if not shutil.which("java"):
        return "java is not there (Kafka needs 17 or newer)"
    if not (_jars() / ".complete").exists() and not shutil.which("mvn"):
        return "mvn is not there, which fetches Kafka from Maven Central"
    return ""


def install() -> Path:
    """Put the broker's jars into the cache, once; the folder."""
    jars = _jars()
    if (jars / ".complete").exists():
        return jars
    partial = jars.with_name(f"{jars.name}.{os.getpid()}")
    command = [
        "mvn",
        "-B",
        "-q",
        "-f",
        str(POM),
        "dependency:copy-dependencies",
        f"-DoutputDirectory={partial}",
        "-DincludeScope=runtime",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"Kafka could not be fetched from Maven Central:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    (partial / ".complete").touch()
    with suppress(OSError):  # another process was first
        partial.rename(jars)
    return jars


def _jars() -> Path:
    version = ET.parse(POM).findtext(".//{*}kafka.version")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "meshflow" / f"kafka-{version}"


def archive_classes() -> Path:
    """Keep the classes that a broker's start loads in the form the JVM uses (class data sharing), once; the
    file. A start then takes half the CPU (format and broker 7.0 -> 3.9 s).
    """
    path = _archive()
    if not path.exists():
        install()
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        with tempfile.TemporaryDirectory(prefix="meshflow-kafka-") as folder:
            node = Node(1, Path(folder) / "node")
            node.configure([node], {})
            node.launch(f"-XX:ArchiveClassesAtExit={partial}")
            node.wait_ready()
            node.stop()
        partial.rename(path)
    return path


def _archive() -> Path:
    return _jars() / "classes.jsa"


def with_us() -> list[str]:
    """What to put before a command that must not outlive a killed test run. It ends with the thread that
    started it.
    """
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


class Node:
    """One process that is broker and controller. Its ports and its data outlive it, so it can be started
    again.
    """

    def __init__(self, number: int, folder: Path, heap: str = "384m") -> None:
        self.number = number
        self.heap = heap
        self.port = reserve_port()
        self.controller_port = reserve_port()
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return f"127.0.0.1:{self.port}"

    def configure(self, nodes: Sequence["Node"], settings: Mapping[str, str]) -> None:
        """Write the configuration and format the data folder."""
        self.folder.mkdir(parents=True)
        lines = {**_properties(self, nodes), **settings}
        (self.folder / "server.properties").write_text(
            "".join(f"{name}={value}\n" for name, value in lines.items())
        )
        (self.folder / "log4j2.properties").write_text(_LOGGING)
        command = self._java(
            "128m",
            "kafka.tools.StorageTool",
            "format",
            "-t",
            _CLUSTER_ID,
            "-c",
            str(self.folder / "server.properties"),
        )
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def launch(self, *options: str) -> None:
        """Start the process, with more options of the JVM. It ends with the calling thread, so call this from
        the main one.
        """
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._java(self.heap, *options, "kafka.Kafka", str(self.folder / "server.properties")),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for whoever started it
            )

    def wait_ready(self) -> None:
        """Return when the broker answers."""
        end_s = time.monotonic() + START_S
        while not self.is_ready():
            assert time.monotonic() < end_s, (
                f"Kafka did not start within {START_S} s: {self._log.read_text()[-2000:]}"
            )
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """Whether the broker answers. Fails when it has ended instead."""
        assert self._process is not None
        ready = b"Kafka Server started" in self._log.read_bytes()
        assert ready or self._process.poll() is None, (
            f"Kafka ended while starting: {self._log.read_text()[-2000:]}"
        )
        return ready

    def start(self) -> None:
        """Start, and wait until the broker answers."""
        self.launch()
        self.wait_ready()

    async def start_beside(self) -> None:
        """The same beside other tasks of the calling loop, which must be the main thread's."""
        self.launch()
        await asyncio.to_thread(self.wait_ready)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the process, gracefully unless asked otherwise."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """The process stands still, its connections stay. Returns when each of its threads does: the signal
        alone only asks for it.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        end_s = time.monotonic() + _STAND_STILL_S
        while not _stands_still(self._process.pid):
            assert time.monotonic() < end_s, f"Kafka did not stand still within {_STAND_STILL_S} s of SIGSTOP"
            time.sleep(0.001)

    def resume(self) -> None:
        """End of :meth:`pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def run_tool(self, main: str, *arguments: str) -> str:
        """Run one of Kafka's own commands by its class (``kafka.admin.ConfigCommand`` is kafka-configs.sh);
        what it printed.
        """
        done = subprocess.run(
            self._java("128m", main, *arguments), check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def _log(self) -> Path:
        return self.folder / "broker.log"

    def _java(self, heap: str, *arguments: str) -> list[str]:
        options = [
            f"-Xmx{heap}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties",
            "-Xlog:disable",  # what it says of an archive that another JVM made, and then leaves out
            *([f"-XX:SharedArchiveFile={_archive()}"] if _archive().exists() else []),
        ]
        return [*with_us(), "java", *options, "-cp", f"{_jars()}/*", *arguments]


def _properties(node: Node, nodes: Sequence[Node]) -> dict[str, str]:
    copies, enough = str(min(3, len(nodes))), str(min(2, len(nodes)))
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "controller.quorum.voters": ",".join(
            f"{other.number}@127.0.0.1:{other.controller_port}" for other in nodes
        ),
        "listeners": f"PLAINTEXT://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(node.folder / "data"),
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": enough,
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": enough,
        "transaction.state.log.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": "16777216",
        "log.retention.check.interval.ms": "1000",
        "log.initial.task.delay.ms": "1000",
    }


class Cluster:
    """Nodes that know each other; a context manager."""

    def __init__(
        self, folder: Path, nodes: int = 1, settings: Mapping[str, str] | None = None, heap: str = "384m"
    ) -> None:
        """``settings``: see the attribute; ``heap``: of each node's JVM."""
        self.nodes = [Node(number, folder / f"node{number}", heap) for number in range(1, nodes + 1)]
        self.settings = dict(settings or {})
        """More lines of server.properties, as they are when it starts."""

    @property
    def bootstrap(self) -> str:
        """``HOST:PORT,...``."""
        return ",".join(node.address for node in self.nodes)

    def __enter__(self) -> "Cluster":
        install()
        try:
            for node in self.nodes:
                node.configure(self.nodes, self.settings)
                node.launch()
            for node in self.nodes:
                node.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.stop(signal.SIGKILL)


def _stands_still(pid: int) -> bool:
    """Whether every thread of the process is stopped, where /proc shows it."""
    threads = Path(f"/proc/{pid}/task")
    if not threads.exists():
        return True
    states = []
    for thread in threads.iterdir():
        with suppress(OSError):  # it has just ended
            states.append((thread / "stat").read_text().rpartition(")")[2].split()[0])
    return all(state in "TtZX" for state in states)


def main() -> None:
    """Run a cluster until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Kafka for tests, until Ctrl-C")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument(
        "--folder", type=Path, required=True, help="where data and logs go; must not be there yet"
    )
    options = parser.parse_args()
    if reason := missing():
        sys.exit(reason)
    with Cluster(options.folder, options.nodes) as cluster:
        print(f"kafka://{cluster.bootstrap}", flush=True)
        with suppress(KeyboardInterrupt):
            signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
