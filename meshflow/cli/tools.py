"""Commands that do one thing and end."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from meshflow import settings as all_settings
from meshflow.cli.shared import EXIT_FAILED, EXIT_USAGE, data_option, fail, load_settings
from schemas.errors import QueryFailed


@click.command()
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
        fail(f"{result.failed} of {result.requests} requests failed", EXIT_FAILED)


@click.command()
@click.argument("sql", required=False)
@click.option(
    "--named",
    help="A question that is there already, by its name, in place of SQL; `--named list` shows them.",
)
@click.option(
    "--last-minutes", type=click.IntRange(1), default=5, help="Of --named: the time before now. [default: 5]"
)
@click.option(
    "--source",
    type=click.Choice(["istio", "envoy"]),
    default="istio",
    help="Of --named: whose counters. [default: istio]",
)
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
@data_option
@click.pass_context
def query(context: click.Context, /, sql: str | None, **given: Any) -> None:
    """Answer read-only SQL, from a running `meshflow up` or from a data folder at rest."""
    from meshflow.tools.query import ask  # noqa: PLC0415 - may bring chdb
    from storage.questions import named, question  # noqa: PLC0415 - as others need not wait for it

    name, output_format, url, data = (given[each] for each in ("named", "output_format", "url", "data"))
    if (sql is None) == (name is None):
        fail("say SQL, or --named NAME", EXIT_USAGE)
    if name == "list":
        click.echo("\n".join(named()))
        return
    if sql is None:
        if name not in named():
            fail(f"there is no question {name!r}; there are {', '.join(named())}", EXIT_USAGE)
        sql = question(name, timedelta(minutes=given["last_minutes"]), source=given["source"])
    settings = load_settings(context, {("storage", "data"): data and str(data)}).settings
    chosen = output_format or ("PrettyCompact" if sys.stdout.isatty() else "TabSeparatedWithNames")
    try:
        body = ask(sql, chosen, settings, url)
    except QueryFailed as error:
        fail(str(error), EXIT_FAILED)
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()


@click.command()
@data_option
@click.pass_context
def migrate(context: click.Context, data: Path | None) -> None:
    """Bring the store's tables up to date; `up` does so by itself."""
    settings = load_settings(context, {("storage", "data"): data and str(data)}).settings
    from meshflow.wiring import migrate as bring_up_to_date  # noqa: PLC0415 - brings chdb

    done = bring_up_to_date(settings)
    click.echo("\n".join(f"applied {name}" for name in done) or "the tables are up to date")


@click.command()
@data_option
@click.pass_context
def repair(context: click.Context, data: Path | None) -> None:
    """Save what can be read of a damaged embedded log and store; a start does so by itself where nothing more
    is lost by it.
    """
    from meshflow.tools.repair import repair as save  # noqa: PLC0415 - brings pyarrow

    click.echo("\n".join(save(load_settings(context, {("storage", "data"): data and str(data)}).settings)))


@click.command()
@click.pass_context
def config(context: click.Context) -> None:
    """Show every setting, its value, and where the value came from, as lines that a settings file may
    hold.
    """
    loaded = load_settings(context, {})
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
