"""The command line: ``meshflow [--config FILE] COMMAND``."""

import logging
from pathlib import Path
from typing import Any

import click

from meshflow.cli.dead_letters import dead_letters
from meshflow.cli.services import console, ingest, process, repartition, scrape, store, up
from meshflow.cli.shared import EXIT_FAILED, EXIT_USAGE, fail
from meshflow.cli.tools import config, migrate, query, repair, replay
from meshflow.settings import SettingsInvalid
from schemas.errors import MeshflowError


class _Group(click.Group):
    """Turns errors that were foreseen into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsInvalid as error:
            fail(str(error), EXIT_USAGE)
        except MeshflowError as error:
            fail(str(error), EXIT_FAILED)


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


for _command in (
    *(up, ingest, process, repartition, scrape, store, console),
    *(query, migrate, repair, dead_letters, replay, config),
):
    main.add_command(_command)
