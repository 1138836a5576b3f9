"""``make demo``: a captured Envoy mesh, replayed in a loop through the real gRPC port of a real ``meshflow
up``, and what becomes of it.

Ctrl-C ends it; so does DEMO_SECONDS. On a terminal the tables stay in place; elsewhere (CI) they are printed
every few seconds.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from meshflow.ports import PORTS_FILE
from meshflow.settings import Settings, load
from meshflow.tools.capture import read_captures
from meshflow.tools.query import ask
from meshflow.tools.replay import replay
from schemas.errors import MeshflowError
from storage import queries

CAPTURES = sorted((Path(__file__).parents[2] / "tests" / "data" / "envoy").glob("*.bin.gz"))
DATA = Path("meshflow-data") / "demo"
_START_S = 60
_PLAIN_EVERY_S = 5.0
_LIVE_EVERY_S = 1.0
_USUAL_PORTS = {"--grpc-port": 4317, "--http-port": 4318, "--sql-port": 8123}

_SHOWN = timedelta(minutes=1)

TRY = {
    "which service fails, and with which of Envoy's flags": "SELECT service, response_flags, sum(requests), sum(errors)"
    " FROM red WHERE entry = 1 AND apart = '' GROUP BY ALL ORDER BY 4 DESC LIMIT 20",
    "calls that never left their caller, or that nobody answered": "SELECT client_service, server_service,"
    " sum(attempts), sum(unsent), sum(unanswered) FROM edge_traffic GROUP BY ALL HAVING sum(unsent + unanswered) > 0",
    "the slowest traces that were kept, and why": "SELECT TraceId, ServiceName, Duration / 1e6 AS ms, KeepReason, SampleRate"
    " FROM otel_traces ORDER BY Duration DESC LIMIT 5",
    "where every span went": "SELECT sum(received), sum(duplicate), sum(rejected), sum(kept), sum(dropped)"
    " FROM ledger WHERE topic = 'otlp_spans'",
}
"""What a query answers -> the query, as printed when the demo ends."""


def main() -> int:
    """Run the demo; the exit code."""
    if not CAPTURES:
        print(
            "the captured mesh (tests/data/envoy) is not there: run the demo from a checkout of meshflow",
            file=sys.stderr,
        )
        return 1
    seconds = float(os.environ.get("DEMO_SECONDS", "0"))
    console = Console()
    try:
        with _up() as ports:
            url = f"http://{ports['host']}:{ports['sql']}/"
            console.print(
                f"meshflow runs: OTLP/gRPC on {ports['grpc']}, OTLP/HTTP on {ports['http']}, SQL and /metrics on {url}"
            )
            console.print(
                f"replaying {', '.join(path.name for path in CAPTURES)} in a loop, at the speed at which the mesh sent it"
            )
            with suppress(KeyboardInterrupt):
                asyncio.run(_run(console, f"{ports['host']}:{ports['grpc']}", url, seconds))
    except MeshflowError as error:
        print(f"meshflow: {error}", file=sys.stderr)
        return 1
    console.print("\nThe data stays. SQL to try:\n", style="bold")
    for what, sql in TRY.items():
        console.print(
            f'# {what}\n{_command()} query --data {DATA} "{sql}"\n',
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    return 0


class DemoFailed(MeshflowError):
    """``meshflow up`` did not start."""


@contextmanager
def _up() -> Iterator[dict[str, Any]]:
    """A running ``meshflow up`` on an empty folder; its ports."""
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    options = [
        part for option, port in _USUAL_PORTS.items() for part in (option, str(port if _is_free(port) else 0))
    ]
    command = [sys.executable, "-m", "meshflow", "up", "--data", str(DATA), "--pane", "1s", *options]
    with (DATA / "up.log").open(
        "wb"
    ) as log:  # in a session of its own, so that Ctrl-C is the demo's to handle
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)  # noqa: S603 - meshflow itself
    try:
        yield _wait_for_ports(process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for_ports(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            ports: dict[str, Any] = json.loads((DATA / PORTS_FILE).read_bytes())
            return ports
        if process.poll() is not None:
            break
        time.sleep(0.1)
    last_line = (DATA / "up.log").read_text(errors="replace").strip().rpartition("\n")[2]
    raise DemoFailed(f"`meshflow up` did not start, see {DATA / 'up.log'}: {last_line}")


async def _run(console: Console, target: str, url: str, seconds: float) -> None:
    sending = asyncio.create_task(_send(target))
    showing = asyncio.create_task(_show(console, url))
    try:
        await asyncio.wait({sending, showing}, timeout=seconds or None, return_when=asyncio.FIRST_COMPLETED)
        for task in (sending, showing):
            if task.done():
                task.result()
    finally:
        sending.cancel()
        showing.cancel()
        await asyncio.gather(sending, showing, return_exceptions=True)


async def _send(target: str) -> None:
    while True:
        await replay(read_captures(CAPTURES), target, now=True, speed=1.0)


async def _show(console: Console, url: str) -> None:
    settings = load().settings
    began = time.monotonic()
    if console.is_terminal:
        with Live(console=console, screen=False, auto_refresh=False) as live:
            while True:
                live.update(await _picture(settings, url, began), refresh=True)
                await asyncio.sleep(_LIVE_EVERY_S)
    while True:
        await asyncio.sleep(_PLAIN_EVERY_S)
        console.print(await _picture(settings, url, began))


async def _picture(settings: Settings, url: str, began: float) -> Group:
    services = await _table("Services", 1, queries.services(_SHOWN), settings, url)
    edges = await _table("Edges: who calls whom", 2, queries.edges(_SHOWN), settings, url)
    state = f"{time.monotonic() - began:.0f} s; the tables show the last minute; SQL at {url}; Ctrl-C ends it"
    return Group(
        services,
        edges,
        Text(state if services.row_count else f"{state}; results come after a few panes", style="dim"),
    )


async def _table(title: str, names: int, sql: str, settings: Settings, url: str) -> Table:
    """The rows of a query; its first ``names`` columns are texts, the others numbers."""
    body = await asyncio.to_thread(ask, sql, "JSONCompactEachRowWithNames", settings, url)
    columns, *rows = (json.loads(line) for line in body.splitlines())
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(
            column.replace("_", " ").replace("percent", "%"), justify="left" if number < names else "right"
        )
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    return table


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _command() -> str:
    """How to call meshflow from here."""
    script = Path(sys.executable).with_name("meshflow")
    shown = script if script.exists() else Path(sys.executable)
    shown = shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else shown
    return str(shown) if script.exists() else f"{shown} -m meshflow"


if __name__ == "__main__":
    sys.exit(main())
