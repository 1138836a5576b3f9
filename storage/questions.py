"""Named questions of ``questions.sql``: ``meshflow query --named NAME``."""

import re
from datetime import timedelta
from functools import cache
from importlib import resources
from string import Template
from typing import Literal

_NAMED = re.compile(r"^-- (\w+): .*\n", re.MULTILINE)


@cache
def named() -> dict[str, str]:
    """Name -> the query as it is written, with its placeholders."""
    text = resources.files("storage").joinpath("questions.sql").read_text(encoding="utf-8")
    _, *parts = _NAMED.split(text)
    return {name: sql.strip().rstrip(";") for name, sql in zip(parts[::2], parts[1::2], strict=True)}


def question(
    name: str,
    last: timedelta = timedelta(minutes=5),
    until_s: int | None = None,
    days: int = 30,
    source: Literal["istio", "envoy"] = "istio",
) -> str:
    """A query over the time ``last`` before ``until_s`` (now, when None), of one source's counters.

    Raises KeyError: there is no question of that name.
    """
    seconds = max(1, int(last.total_seconds()))
    until = "now('UTC')" if until_s is None else f"toDateTime({int(until_s)}, 'UTC')"
    return Template(named()[name]).substitute(
        since=f"({until} - {seconds})", until=until, seconds=seconds, days=int(days), source=source
    )
