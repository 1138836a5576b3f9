"""Runs what ``compose.yaml`` describes, as processes of this machine: Kafka, a store, two receivers, two
workers. See ``local.sh``.
"""

import argparse
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.support.kafka.broker import Cluster, missing
from tests.support.kafka.fleet import Command

ROOT = Path(__file__).parents[1]
CAPTURES = [ROOT / "tests/data/envoy" / name for name in ("traces.bin.gz", "logs.bin.gz")]
CAPTURED_ITEMS = 2195
"""Spans of the captured mesh; it has as many access logs."""
ENVOYS_CALLS = {
    ("front-proxy", "order-service"): 319,
    ("front-proxy", "product-service"): 298 + 59,
    ("order-service", "product-service"): 311 + 53,
}
"""What the captured Envoys themselves counted (``upstream_rq_total``)."""
ANSWER_S = 400.0
SHOW_EVERY_S = 10.0
PANE = ("--pane", "1s")
EDGES = (
    "SELECT client_service, server_service, sum(t.calls) AS calls, sum(t.unsent) AS unsent,"
    " sum(t.unanswered) AS unanswered, sum(t.errors) AS errors"
    " FROM edge_traffic AS t GROUP BY client_service, server_service ORDER BY calls DESC, unsent DESC"
)
TRY = "SELECT service, sum(requests) FROM service_traffic GROUP BY service"
RECEIVED = (
    "SELECT topic, sum(t.received) AS received, sum(t.kept) + sum(t.dropped) AS decided"
    " FROM ledger AS t GROUP BY topic ORDER BY topic"
)


class System(NamedTuple):
    """A running one: where it is reached."""

    grpc: list[str]
    sql: str


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="deploy/local.sh",
        description="Kafka, store, 2 x ingest, 2 x process on this machine, until Ctrl-C",
    )
    parser.add_argument(
        "--check", action="store_true", help="replay the captured mesh once, compare the answer, end"
    )
    parser.add_argument(
        "--folder", type=Path, help="where data and logs go (must not be there yet); default: a temporary one"
    )
    parser.add_argument(
        "--free-ports",
        action="store_true",
        help="free ports instead of 4317, 4318 and 8123 (as --check takes)",
    )
    options = parser.parse_args()
    if reason := missing():
        print(f"deploy/local.sh: {reason}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = options.folder or Path(tempfile.mkdtemp(prefix="meshflow-local-"))
    try:
        with ExitStack() as parts:
            system = start(folder, parts, usual_ports=not (options.check or options.free_ports))
            return check(system, folder, parts) if options.check else show(system, folder, parts)
    except KeyboardInterrupt:
        print("\nended")
        return int(options.check)  # nothing was compared
    finally:
        if not options.folder:
            shutil.rmtree(folder, ignore_errors=True)


def start(folder: Path, parts: ExitStack, *, usual_ports: bool) -> System:
    """Start everything; ``parts`` ends it, receivers first."""
    print(f"starting; data and logs are in {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    log_url = f"kafka://{parts.enter_context(Cluster(folder / 'kafka')).bootstrap}"
    print(f"  Kafka      {log_url}", flush=True)
    sql_port = str(_port(8123) if usual_ports else 0)
    store = _launch(
        parts,
        Command(
            folder,
            "store",
            log_url,
            "store",
            "--data",
            str(folder / "data"),
            "--sql-port",
            sql_port,
            "--writable",
        ),
    )
    sql = store.wait_for(r"SQL +(http://\S+)").rstrip("/")
    print(f"  SQL        {sql}", flush=True)
    store_url = sql.replace("http://", "clickhouse://") + "/default"
    migrate = Command(folder, "migrate", log_url, "migrate", store_url=store_url)
    migrate.launch()
    if migrate.wait():
        raise SystemExit(f"deploy/local.sh: the tables could not be made:\n{migrate.output()}")
    receivers = []
    for number in (1, 2):
        grpc, http = (_port(4317), _port(4318)) if usual_ports and number == 1 else (0, 0)
        ports = (
            "--grpc-port",
            str(grpc),
            "--http-port",
            str(http),
            "--metrics-port",
            "0",
            "--spool",
            str(folder / "spool"),
        )
        receivers.append(_launch(parts, Command(folder, f"ingest{number}", log_url, "ingest", *ports, *PANE)))
    grpc_addresses = [receiver.wait_for(r"OTLP/gRPC +(\S+)") for receiver in receivers]
    for receiver in receivers:
        print(
            f"  OTLP/gRPC  {receiver.wait_for(r'OTLP/gRPC +(.+)')}\n  OTLP/HTTP  {receiver.wait_for(r'OTLP/HTTP +(.+)')}",
            flush=True,
        )
    workers = []
    for number in (1, 2):
        worker = Command(
            folder, f"process{number}", log_url, "process", "--metrics-port", "0", *PANE, store_url=store_url
        )
        workers.append(_launch(parts, worker))
    for worker in workers:
        print(f"  metrics    {worker.wait_for(r'metrics +(.+)')}", flush=True)
    return System(grpc_addresses, sql)


def check(system: System, folder: Path, parts: ExitStack) -> int:
    """Replay once, spans to one receiver and logs to the other; wait for Envoy's own numbers."""
    replays = [_replay(folder, parts, number, system.grpc[number], speed="8") for number in (0, 1)]
    for replay in replays:
        if replay.wait():
            print(replay.output(), file=sys.stderr)
            return 1
    end_s = time.monotonic() + ANSWER_S
    while (wrong := _wrong(system.sql)) and time.monotonic() < end_s:
        time.sleep(0.5)
    print(ask(system.sql, EDGES))
    print(ask(system.sql, RECEIVED))
    print(wrong or "as Envoy counted it")
    return 1 if wrong else 0


def _wrong(sql: str) -> str:
    """What of the answers is not as captured; "" when all is."""
    calls = {(client, server): int(calls) for client, server, calls, *_ in _rows(sql, EDGES) if int(calls)}
    between = {edge: count for edge, count in calls.items() if edge in ENVOYS_CALLS}
    if between != ENVOYS_CALLS:
        return f"edges: {between} instead of {ENVOYS_CALLS}"
    items = {topic: (int(received), int(decided)) for topic, received, decided in _rows(sql, RECEIVED)}
    wanted = dict.fromkeys(("otlp_logs", "otlp_spans"), (CAPTURED_ITEMS, CAPTURED_ITEMS))
    return "" if items == wanted else f"ledger: {items} instead of {wanted}"


def show(system: System, folder: Path, parts: ExitStack) -> int:
    """Replay in a loop and show edges, until Ctrl-C."""
    print(
        f'ask: .venv/bin/meshflow query --url {system.sql} "{TRY}"\nCtrl-C ends it.',
        flush=True,
    )
    replay = _replay(folder, parts, 0, system.grpc[0], speed="1")
    while True:
        time.sleep(SHOW_EVERY_S)
        print(ask(system.sql, EDGES), flush=True)
        if replay.ended():
            replay = _replay(folder, parts, 0, system.grpc[0], speed="1")


def ask(sql: str, query: str, output_format: str = "PrettyCompactMonoBlock") -> str:
    """The store's answer."""
    url = f"{sql}/?default_format={output_format}"
    with urllib.request.urlopen(url, query.encode(), timeout=60) as response:  # noqa: S310 - our own store
        return str(response.read().decode())


def _rows(sql: str, query: str) -> list[list[str]]:
    return [json.loads(line) for line in ask(sql, query, "JSONCompactEachRow").splitlines()]


def _replay(folder: Path, parts: ExitStack, number: int, target: str, speed: str) -> Command:
    arguments = ("replay", str(CAPTURES[number]), "--target", target, "--speed", speed, "--now")
    return _launch(parts, Command(folder, f"replay{number}", "", *arguments))


def _launch(parts: ExitStack, command: Command) -> Command:
    command.launch()
    parts.callback(_end, command)
    return command


def _end(command: Command) -> None:
    try:
        command.stop()
    except subprocess.TimeoutExpired:
        print(f"{command.name} does not end when asked to: kill -9", file=sys.stderr)
        command.kill()


def _port(usual: int) -> int:
    """The usual port where it is free, else 0."""
    with socket.socket() as probe:
        return 0 if probe.connect_ex(("127.0.0.1", usual)) == 0 else usual


if __name__ == "__main__":
    sys.exit(main())
