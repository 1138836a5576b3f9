"""The command line: ``meshflow [--config FILE] COMMAND``."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from meshflow import settings as all_settings
from meshflow.cli_dead_letters import dead_letters
from meshflow.settings import Loaded, Name
from schemas.errors import MeshflowError, ProcessingFailed, QueryFailed

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BROKEN = 70
"""As sysexits.h's EX_SOFTWARE: processing stopped on an error that is meshflow's own."""


class _Group(click.Group):
    """Turns errors that were foreseen into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except all_settings.SettingsInvalid as error:
            _fail(str(error), EXIT_USAGE)
        except MeshflowError as error:
            _fail(str(error), EXIT_FAILED)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path),
    help="Settings file. [default: meshflow.toml, where there is one]",
)
@click.option("-v", "--verbose", count=True, help="Say more of what happens; twice for everything.")
@click.version_option(package_name="meshflow")
@click.pass_context
def main(context: click.Context, config: Path | None, verbose: int) -> None:
    """Telemetry of a service mesh: OTLP in; RED metrics, service edges and sampled traces in ClickHouse out.

    Begin with `meshflow up`, point OTLP exporters at its ports, and ask with `meshflow query`.
    """
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    context.obj = config


main.add_command(dead_letters)


def _settings(context: click.Context, given: dict[Name, Any]) -> Loaded:
    return all_settings.load(
        context.find_root().obj, {name: value for name, value in given.items() if value is not None}
    )


def _data_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of the log and the tables. [default: meshflow-data]",
    )(command)


@main.command()
@_data_option
@click.option("--host", help="Address to listen on, for every port. [default: 127.0.0.1]")
@click.option("--grpc-port", type=int, help="OTLP/gRPC; 0: a free one. [default: 4317]")
@click.option("--http-port", type=int, help="OTLP/HTTP; 0: a free one. [default: 4318]")
@click.option("--sql-port", type=int, help="SQL over HTTP, and /metrics; 0: a free one. [default: 8123]")
@click.option("--pane", help="Length of a pane: results come every pane. [default: 5s]")
@click.option(
    "--wait", type=int, help="Panes to wait for the rest of a trace before it is decided. [default: 2]"
)
@click.pass_context
def up(context: click.Context, /, **given: Any) -> None:
    """Run all of meshflow on this machine, until Ctrl-C.

    The addresses are printed when it is ready, and written to ports.json in the data folder.
    """
    options: dict[Name, Any] = {
        ("storage", "data"): given["data"] and str(given["data"]),
        ("ingest", "host"): given["host"],
        ("console", "host"): given["host"],
        ("ingest", "grpc_port"): given["grpc_port"],
        ("ingest", "http_port"): given["http_port"],
        ("console", "sql_port"): given["sql_port"],
        ("processing", "pane"): given["pane"],
        ("processing", "wait"): given["wait"],
    }
    loaded = _settings(context, options)
    from meshflow.run import up as embedded  # noqa: PLC0415 - brings polars and chdb, which other commands need not wait for

    def tell(ports: embedded.Ports) -> None:
        click.echo(
            f"meshflow is ready\n  OTLP/gRPC  {ports.host}:{ports.grpc}\n  OTLP/HTTP  http://{ports.host}:{ports.http}\n"
            f"  SQL        http://{ports.host}:{ports.sql}   (metrics: /metrics)\n  data       {loaded.settings.storage.data}\n"
            "Ctrl-C ends it."
        )

    try:
        embedded.run(loaded.settings, tell)
    except ProcessingFailed as error:
        _fail(str(error), EXIT_BROKEN)


@main.command()
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--grpc-port", type=int, help="OTLP/gRPC; 0: a free one. [default: 4317]")
@click.option("--http-port", type=int, help="OTLP/HTTP; 0: a free one. [default: 4318]")
@click.option("--metrics-port", type=int, help="/metrics; 0: a free one. [default: 9464]")
@click.option(
    "--workers", type=int, help="Processes that share the ports; metrics ports count up. [default: 1]"
)
@click.option(
    "--spool",
    type=click.Path(file_okay=False),
    help="Folder for what Kafka does not take. [default: meshflow-data/spool]",
)
@click.option(
    "--pane", help="Length of a pane, as for `process`: silent partitions get a tick as often. [default: 5s]"
)
@click.pass_context
def ingest(context: click.Context, /, **given: Any) -> None:
    """Receive OTLP into a log on Kafka (MESHFLOW_LOG=kafka://HOST:PORT), until Ctrl-C. Any number may run."""
    options: dict[Name, Any] = {
        ("ingest", "host"): given["host"],
        ("console", "host"): given["host"],
        ("ingest", "grpc_port"): given["grpc_port"],
        ("ingest", "http_port"): given["http_port"],
        ("console", "metrics_port"): given["metrics_port"],
        ("processing", "pane"): given["pane"],
        ("ingest", "spool", "folder"): given["spool"],
        ("ingest", "workers"): given["workers"],
    }
    settings = _settings(context, options).settings
    from meshflow.run import ingest as ingesting  # noqa: PLC0415 - brings grpcio
    from meshflow.run import ingest_workers  # noqa: PLC0415 - brings grpcio

    def tell(ports: ingesting.IngestPorts) -> None:
        metrics = "".join(
            f"  metrics    http://{settings.console.host}:{port}/metrics\n" for port in ports.metrics
        )
        click.echo(
            f"meshflow ingest is ready\n  OTLP/gRPC  {ports.host}:{ports.grpc}\n  OTLP/HTTP  http://{ports.host}:{ports.http}\n"
            f"{metrics}Ctrl-C ends it."
        )

    run = ingesting.run_ingest if settings.ingest.workers == 1 else ingest_workers.run_workers
    run(settings, tell)


@main.command()
@_data_option
@click.option("--pane", help="Length of a pane: results come every pane. [default: 5s]")
@click.option(
    "--wait", type=int, help="Panes to wait for the rest of a trace before it is decided. [default: 2]"
)
@click.option("--metrics-port", type=int, help="/metrics; 0: a free one. [default: 9464]")
@click.pass_context
def process(
    context: click.Context, data: Path | None, pane: str | None, wait: int | None, metrics_port: int | None
) -> None:
    """Process a log on Kafka into the store (MESHFLOW_STORE), as one worker of the group, until Ctrl-C. Any
    number may run.
    """
    options: dict[Name, Any] = {
        ("storage", "data"): data and str(data),
        ("processing", "pane"): pane,
        ("processing", "wait"): wait,
        ("console", "metrics_port"): metrics_port,
    }
    settings = _settings(context, options).settings
    from meshflow.run import process as distributed  # noqa: PLC0415 - brings faust, polars and chdb

    def tell(port: int) -> None:
        click.echo(
            f"meshflow process is running\n  metrics    http://{settings.console.host}:{port}/metrics\nCtrl-C ends it."
        )

    try:
        distributed.run_process(settings, tell)
    except MeshflowError as error:
        _break(error)


@main.command()
@_data_option
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--sql-port", type=int, help="SQL over HTTP, and /metrics; 0: a free one. [default: 8123]")
@click.option("--writable", is_flag=True, help="Take INSERT and DDL too.")
@click.pass_context
def store(
    context: click.Context, data: Path | None, host: str | None, sql_port: int | None, writable: bool
) -> None:
    """Serve the tables of a data folder alone, as a ClickHouse server does over HTTP, until Ctrl-C.

    With --writable it is a store for `up` and `process` of a small installation:
    MESHFLOW_STORE=clickhouse://HOST:PORT/default.
    """
    options: dict[Name, Any] = {
        ("storage", "data"): data and str(data),
        ("console", "host"): host,
        ("console", "sql_port"): sql_port,
    }
    loaded = _settings(context, options)
    from meshflow.run import store as serving  # noqa: PLC0415 - brings chdb

    def tell(ports: serving.StorePorts) -> None:
        kind = "read and write" if writable else "read only"
        click.echo(
            f"meshflow store is ready\n  SQL        http://{ports.host}:{ports.sql}   ({kind}; metrics: /metrics)\n"
            f"  data       {loaded.settings.storage.data}\nCtrl-C ends it."
        )

    serving.run(loaded.settings, writable, tell)


@main.command()
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--sql-port", type=int, help="SQL over HTTP, and /metrics; 0: a free one. [default: 8123]")
@click.pass_context
def console(context: click.Context, host: str | None, sql_port: int | None) -> None:
    """Answer read-only SQL on a ClickHouse server (MESHFLOW_STORE), within the limits of [console], until
    Ctrl-C.

    For people and dashboards which should not have an account on the server itself.
    """
    options: dict[Name, Any] = {("console", "host"): host, ("console", "sql_port"): sql_port}
    settings = _settings(context, options).settings
    from meshflow.run import store as serving  # noqa: PLC0415 - brings chdb

    def tell(port: int) -> None:
        where = f"http://{settings.console.host}:{port}"
        click.echo(
            f"meshflow console is ready\n  SQL        {where}   (read only; metrics: /metrics)\nCtrl-C ends it."
        )

    serving.run_console(settings, tell)


@main.command()
@click.option("--source-prefix", help="What names of topics to read begin with. [default: unsplit.]")
@click.option("--metrics-port", type=int, help="/metrics; 0: a free one. [default: 9464]")
@click.option(
    "--pane", help="Length of a pane, as for `process`: silent partitions get a tick as often. [default: 5s]"
)
@click.pass_context
def repartition(
    context: click.Context, source_prefix: str | None, metrics_port: int | None, pane: str | None
) -> None:
    """Split OTLP topics of other writers by trace id into the log (MESHFLOW_LOG), until Ctrl-C. Any number
    may run.

    For topics whose records are not keyed by trace id, as an OpenTelemetry Collector without
    partition_traces_by_id writes them.
    """
    options: dict[Name, Any] = {
        ("processing", "repartition", "source_prefix"): source_prefix,
        ("processing", "pane"): pane,
        ("console", "metrics_port"): metrics_port,
    }
    settings = _settings(context, options).settings
    from meshflow.run import repartition as repartitioning  # noqa: PLC0415 - brings faust

    def tell(port: int) -> None:
        click.echo(
            f"meshflow repartition is running\n  metrics    http://{settings.console.host}:{port}/metrics\nCtrl-C ends it."
        )

    try:
        repartitioning.run_repartition(settings, tell)
    except MeshflowError as error:
        _break(error)


@main.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--target", default="127.0.0.1:4317", show_default=True, help="HOST:PORT of an OTLP/gRPC receiver."
)
@click.option("--now", is_flag=True, help="Move all times, so that the first request was sent now.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Times the own rhythm; 0: as fast as it goes.",
)
def replay(files: tuple[Path, ...], target: str, now: bool, speed: float) -> None:
    """Send captured Export requests to a receiver, in the order and rhythm in which they were sent.

    FILES hold requests of traces, metrics or logs, each after its length (32 bits, big-endian); gzipped or
    not.
    """
    from meshflow.tools.capture import read_captures  # noqa: PLC0415 - brings opentelemetry-proto
    from meshflow.tools.replay import replay as send  # noqa: PLC0415 - brings grpcio

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("replay", total=sum(path.stat().st_size for path in files if path.is_file()))
        requests = read_captures(files, lambda size: progress.advance(bar, size))
        result = asyncio.run(send(requests, target, now=now, speed=speed))
    for topic, sent in sorted(result.sent.items()):
        click.echo(
            f"{topic}: {sent} sent, {result.accepted[topic]} accepted, {result.rejected[topic]} rejected"
        )
    for reason, times in result.reasons.most_common():
        click.echo(f"{times} requests: {reason}", err=True)
    if result.failed:
        _fail(f"{result.failed} of {result.requests} requests failed", EXIT_FAILED)


@main.command()
@click.argument("sql")
@click.option(
    "--format",
    "output_format",
    default=None,
    help="ClickHouse format. [default: PrettyCompact on a terminal, else TSV]",
)
@click.option(
    "--url",
    help="A running `meshflow up`, or any ClickHouse HTTP port. [default: the one that uses the data folder]",
)
@_data_option
@click.pass_context
def query(
    context: click.Context, sql: str, output_format: str | None, url: str | None, data: Path | None
) -> None:
    """Answer read-only SQL, from a running `meshflow up` or from a data folder at rest."""
    from meshflow.tools.query import ask  # noqa: PLC0415 - may bring chdb

    settings = _settings(context, {("storage", "data"): data and str(data)}).settings
    chosen = output_format or ("PrettyCompact" if sys.stdout.isatty() else "TabSeparatedWithNames")
    try:
        body = ask(sql, chosen, settings, url)
    except QueryFailed as error:
        _fail(str(error), EXIT_FAILED)
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()


@main.command()
@_data_option
@click.pass_context
def migrate(context: click.Context, data: Path | None) -> None:
    """Bring the store's tables up to date; `up` does so by itself."""
    settings = _settings(context, {("storage", "data"): data and str(data)}).settings
    from meshflow.wiring import migrate as bring_up_to_date  # noqa: PLC0415 - brings chdb

    done = bring_up_to_date(settings)
    click.echo("\n".join(f"applied {name}" for name in done) or "the tables are up to date")


@main.command()
@_data_option
@click.pass_context
def repair(context: click.Context, data: Path | None) -> None:
    """Save what can be read of a damaged embedded log; a start that finds damage does so by itself."""
    from meshflow.tools.repair import repair as save  # noqa: PLC0415 - brings pyarrow

    saved = save(_settings(context, {("storage", "data"): data and str(data)}).settings)
    click.echo(f"{saved.records} records are saved, {saved.lost} are lost; the old file is {saved.aside}")


@main.command()
@click.pass_context
def config(context: click.Context) -> None:
    """Show every setting, its value, and where the value came from, as lines that a settings file may
    hold.
    """
    loaded = _settings(context, {})
    lines = [
        (
            f"{'.'.join(name)} = {all_settings.toml_of(all_settings.value_of(loaded.settings, name))}",
            loaded.origin(name),
        )
        for name in all_settings.names()
    ]
    width = min(60, max(len(line) for line, _ in lines))
    for line, origin in lines:
        click.echo(f"{line:<{width}}  # {origin}")


def _fail(reason: str, code: int) -> NoReturn:
    """One line (or one a fault) on standard error, and the exit code."""
    for line in reason.splitlines():
        click.echo(f"meshflow: {line}", err=True)
    sys.exit(code)


def _break(error: MeshflowError) -> NoReturn:
    """End at once, telling why: a thread of Faust's may wait for brokers for ever."""
    click.echo("\n".join(f"meshflow: {line}" for line in str(error).splitlines()), err=True)
    os._exit(EXIT_BROKEN)
