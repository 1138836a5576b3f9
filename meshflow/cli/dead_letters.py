"""The command line of ``meshflow dead-letters``."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from meshflow.cli.shared import data_option, load_settings
from schemas.dead_letters import LetterId, Selection
from schemas.errors import MeshflowError


class ReplayIncomplete(MeshflowError):
    """Not every letter was sent again."""


class _Name(click.ParamType):
    name = "TOPIC/PARTITION/OFFSET"

    def convert(self, value: Any, param: Any, ctx: Any) -> LetterId:
        if isinstance(value, LetterId):
            return value
        try:
            return LetterId.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--limit",
            type=click.IntRange(1, 1_000_000),
            default=100,
            show_default=True,
            help="Newest letters, at most so many.",
        ),
        click.option("--reason", default="", help="Only letters whose reason has this text."),
        click.option("--partition", type=click.IntRange(0), help="Only letters of this partition."),
        click.option("--topic", default="", help="Only letters of this topic."),
    ):
        command = option(command)
    return command


@click.group(name="dead-letters")
def dead_letters() -> None:
    """Look at records that processing set aside, and send them again.

    On the embedded log (--data), or on Kafka (MESHFLOW_LOG), also while `up` or `process` runs.
    """


@dead_letters.command(name="list")
@data_option
@_filters
@click.option("--replayed/--not-replayed", default=None, help="Only letters that were sent again, or not.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each letter.")
@click.pass_context
def list_(context: click.Context, /, data: Path | None, as_json: bool, **chosen: Any) -> None:
    """List dead letters, the newest last, and how many there are for each reason."""
    from meshflow.tools import dead_letters as tool  # noqa: PLC0415 - brings aiokafka and opentelemetry-proto

    found = tool.find(
        load_settings(context, {("storage", "data"): data and str(data)}).settings, Selection(**chosen)
    )
    for letter in found.letters:
        if as_json:
            fields = {
                **asdict(letter),
                "id": str(letter.id),
                "key": letter.key.hex(),
                "labels": dict(letter.labels),
            }
            click.echo(json.dumps({name: value for name, value in fields.items() if name != "payload"}))
        else:
            mark = f"  [{tool.plain(letter.replayed)}]" if letter.replayed else ""
            click.echo(
                f"{tool.plain(str(letter.id)):<24} {tool.log_time(letter.append_time_ns)} {letter.size:>9} B"
                f"  {tool.plain(letter.reason)[:200]}{mark}"
            )
    shown = f", the newest {len(found.letters)} are listed" if found.total > len(found.letters) else ""
    older = f"; {found.forgotten} older ones are only counted" if found.forgotten else ""
    click.echo(f"{found.total} dead letters{shown}{older}", err=True)
    for reason, count in found.reasons:
        click.echo(f"{count:>9}  {tool.plain(reason)[:200]}", err=True)


@dead_letters.command()
@click.argument("letters", nargs=-1, required=True, type=_Name())
@data_option
@click.option("--raw", is_flag=True, help="Write the payload's bytes alone.")
@click.pass_context
def show(context: click.Context, letters: tuple[LetterId, ...], data: Path | None, raw: bool) -> None:
    """Show dead letters: where from, why, and the payload as OTLP/JSON or hex."""
    from meshflow.tools import dead_letters as tool  # noqa: PLC0415 - brings aiokafka and opentelemetry-proto

    for letter in tool.load(
        load_settings(context, {("storage", "data"): data and str(data)}).settings, letters
    ):
        if raw:
            sys.stdout.buffer.write(letter.payload)
            sys.stdout.buffer.flush()
        else:
            click.echo(tool.describe(letter))


@dead_letters.command()
@click.argument("letters", nargs=-1, type=_Name())
@data_option
@_filters
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="All letters, or all that the filters choose, which were not replayed yet.",
)
@click.pass_context
def replay(
    context: click.Context,
    /,
    letters: tuple[LetterId, ...],
    data: Path | None,
    everything: bool,
    **chosen: Any,
) -> None:
    """Send dead letters into the log again, by their names or, with --all, those that the filters choose.

    A running `up` does so itself within a second. A record that is replayed has the text header replay_of,
    its letter is marked. A letter that is no OTLP stays: it would be refused again.
    """
    if bool(letters) == everything:
        raise click.UsageError("name the letters to replay, or say --all (with --topic, --reason, ...)")
    from meshflow.tools import dead_letters as tool  # noqa: PLC0415 - brings aiokafka and opentelemetry-proto

    limit = max(chosen.pop("limit"), 10 * len(letters))
    selection = Selection(**chosen, limit=limit, ids=frozenset(letters) if letters else None)
    result = tool.replay(
        load_settings(context, {("storage", "data"): data and str(data)}).settings, selection
    )
    for id_ in result.replayed:
        click.echo(f"{tool.plain(str(id_))}  replayed")
    for id_ in result.waiting:
        click.echo(f"{tool.plain(str(id_))}  asked for: the running `up` replays it when its log takes it")
    for id_, reason in result.refused:
        click.echo(f"{tool.plain(str(id_))}  not replayed: {tool.plain(reason)}")
    if result.refused:
        raise ReplayIncomplete(
            f"{len(result.refused)} of {len(result.refused) + len(result.replayed) + len(result.waiting)} letters were not replayed"
        )
    if not (result.replayed or result.waiting):
        click.echo("there is nothing to replay")
