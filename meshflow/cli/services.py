"""Commands that run until they are stopped."""

import os
from pathlib import Path
from typing import Any, NoReturn

import click

from meshflow.cli.shared import EXIT_BROKEN, data_option, fail, load_settings
from meshflow.settings import Name
from schemas.errors import MeshflowError, ProcessingFailed


@click.command()
@data_option
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
    loaded = load_settings(context, options)
    from meshflow.run import up as embedded  # noqa: PLC0415 - brings polars and chdb, which other commands need not wait for

    def announce(ports: embedded.Ports) -> None:
        click.echo(
            f"meshflow is ready\n  OTLP/gRPC  {ports.host}:{ports.grpc}\n  OTLP/HTTP  http://{ports.host}:{ports.http}\n"
            f"  SQL        http://{ports.host}:{ports.sql}   (metrics: /metrics)\n  data       {loaded.settings.storage.data}\n"
            "Ctrl-C ends it."
        )

    try:
        embedded.run(loaded.settings, announce)
    except ProcessingFailed as error:
        fail(str(error), EXIT_BROKEN)


@click.command()
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
    settings = load_settings(context, options).settings
    from meshflow.run import ingest as ingesting  # noqa: PLC0415 - brings grpcio
    from meshflow.run import ingest_workers  # noqa: PLC0415 - brings grpcio

    def announce(ports: ingesting.IngestPorts) -> None:
        metrics = "".join(
            f"  metrics    http://{settings.console.host}:{port}/metrics\n" for port in ports.metrics
        )
        click.echo(
            f"meshflow ingest is ready\n  OTLP/gRPC  {ports.host}:{ports.grpc}\n  OTLP/HTTP  http://{ports.host}:{ports.http}\n"
            f"{metrics}Ctrl-C ends it."
        )

    run = ingesting.run_ingest if settings.ingest.workers == 1 else ingest_workers.run_workers
    run(settings, announce)


@click.command()
@data_option
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
    settings = load_settings(context, options).settings
    from meshflow.run import process as distributed  # noqa: PLC0415 - brings faust, polars and chdb

    def announce(port: int) -> None:
        click.echo(
            f"meshflow process is running\n  metrics    http://{settings.console.host}:{port}/metrics\nCtrl-C ends it."
        )

    try:
        distributed.run_process(settings, announce)
    except MeshflowError as error:
        _end(error)


@click.command()
@data_option
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
    loaded = load_settings(context, options)
    from meshflow.run import store as serving  # noqa: PLC0415 - brings chdb

    def announce(ports: serving.StorePorts) -> None:
        kind = "read and write" if writable else "read only"
        click.echo(
            f"meshflow store is ready\n  SQL        http://{ports.host}:{ports.sql}   ({kind}; metrics: /metrics)\n"
            f"  data       {loaded.settings.storage.data}\nCtrl-C ends it."
        )

    serving.run(loaded.settings, writable, announce)


@click.command()
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--sql-port", type=int, help="SQL over HTTP, and /metrics; 0: a free one. [default: 8123]")
@click.pass_context
def console(context: click.Context, host: str | None, sql_port: int | None) -> None:
    """Answer read-only SQL on a ClickHouse server (MESHFLOW_STORE), within the limits of [console], until
    Ctrl-C.

    For people and dashboards which should not have an account on the server itself.
    """
    options: dict[Name, Any] = {("console", "host"): host, ("console", "sql_port"): sql_port}
    settings = load_settings(context, options).settings
    from meshflow.run import store as serving  # noqa: PLC0415 - brings chdb

    def announce(port: int) -> None:
        where = f"http://{settings.console.host}:{port}"
        click.echo(
            f"meshflow console is ready\n  SQL        {where}   (read only; metrics: /metrics)\nCtrl-C ends it."
        )

    serving.run_console(settings, announce)


@click.command()
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
    settings = load_settings(context, options).settings
    from meshflow.run import repartition as repartitioning  # noqa: PLC0415 - brings faust

    def announce(port: int) -> None:
        click.echo(
            f"meshflow repartition is running\n  metrics    http://{settings.console.host}:{port}/metrics\nCtrl-C ends it."
        )

    try:
        repartitioning.run_repartition(settings, announce)
    except MeshflowError as error:
        _end(error)


@click.command()
@click.option(
    "--endpoint", help="OTLP/HTTP receiver that takes the metrics. [default: http://127.0.0.1:4318]"
)
@click.option("--interval", help="Time between two pages of a target. [default: 10s]")
@click.option("--metrics-port", type=int, help="/metrics; 0: a free one. [default: 9464]")
@click.pass_context
def scrape(
    context: click.Context, endpoint: str | None, interval: str | None, metrics_port: int | None
) -> None:
    """Ask Prometheus targets for their pages and send them to a receiver as OTLP, until Ctrl-C.

    Targets stand in meshflow.toml ([[scrape.groups]]: job, targets, file_sd, path, labels). Each has its own
    moment within the interval.
    """
    options: dict[Name, Any] = {
        ("scrape", "endpoint"): endpoint,
        ("scrape", "interval"): interval,
        ("console", "metrics_port"): metrics_port,
    }
    settings = load_settings(context, options).settings
    from meshflow.run import scrape as scraping  # noqa: PLC0415 - brings aiohttp

    def announce(targets: int, port: int) -> None:
        click.echo(
            f"meshflow scrape is running\n  targets    {targets}, every {settings.scrape.interval.total_seconds():g} s\n"
            f"  receiver   {settings.scrape.endpoint}\n  metrics    http://{settings.console.host}:{port}/metrics\nCtrl-C ends it."
        )

    scraping.run_scrape(settings, announce)


def _end(error: MeshflowError) -> NoReturn:
    """End at once, with the reason: a thread of Faust's may wait for brokers for ever."""
    click.echo("\n".join(f"meshflow: {line}" for line in str(error).splitlines()), err=True)
    os._exit(EXIT_BROKEN)
