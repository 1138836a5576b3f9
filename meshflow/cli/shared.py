"""What commands have in common: their settings, the folder of data, and how they end."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from meshflow.settings import Loaded, Name, load

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BROKEN = 70
"""As sysexits.h's EX_SOFTWARE: processing stopped on an error that is meshflow's own."""


def load_settings(context: click.Context, given: dict[Name, Any]) -> Loaded:
    """Settings of every source, those of the command line above all (None: not given). Raises
    SettingsInvalid.
    """
    return load(context.find_root().obj, {name: value for name, value in given.items() if value is not None})


def data_option(command: Callable[..., None]) -> Callable[..., None]:
    """The option ``--data``."""
    return click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of the log and the tables. [default: meshflow-data]",
    )(command)


def fail(reason: str, code: int) -> NoReturn:
    """One line (or one a fault) on standard error, and the exit code."""
    for line in reason.splitlines():
        click.echo(f"meshflow: {line}", err=True)
    sys.exit(code)
