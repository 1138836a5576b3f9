"""Damage to the files of the embedded store (docs/adr/0036): what the engine set aside when it opened them,
what reading all of them finds, and one plain line where it cannot open them at all.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client

_OF_A_PART = "while reading from part "
_MOST_NAMES = 5
_MOST_REASON = 300
_CODE = re.compile(r"^(?:Code: \d+\. )?(?:DB::Exception: )?(?:Code: \d+\. DB::Exception: )*")
_AFTER_REASON = re.compile(
    r"(?:, Stack trace|: while loading|\. Stack trace|\n|: Cannot attach table).*", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class BrokenPart:
    """A part of a table, which holds rows, that nobody can read any more."""

    table: str
    name: str
    rows: int | None
    """None: nobody knows."""
    folder: Path
    """Where the part is now."""


def set_aside(ask: Callable[[str], str]) -> list[BrokenPart]:
    """Parts of the database in use that the engine found damaged and detached. ``ask`` gives an answer as
    TSVRaw.
    """
    found = ask(
        "SELECT table, name, path FROM system.detached_parts"
        " WHERE database = currentDatabase() AND startsWith(ifNull(reason, ''), 'broken') ORDER BY ALL"
    )
    rows = (line.split("\t") for line in found.splitlines())
    return [BrokenPart(table, name, _rows_of(Path(path)), Path(path)) for table, name, path in rows]


def lines(parts: Iterable[BrokenPart]) -> list[str]:
    """What was lost, one line a table."""
    by_table: dict[str, list[BrokenPart]] = {}
    for part in parts:
        by_table.setdefault(part.table, []).append(part)
    return [_line(table, of_table) for table, of_table in by_table.items()]


def detach_broken(client: Client) -> list[BrokenPart]:
    """Read every part of every table in use, and detach those that cannot be read. Raises ClickHouseError."""
    tables = client.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree' ORDER BY name"
    ).result_rows
    return [part for (table,) in tables for part in _detach_broken(client, str(table))]


def explain(text: str, folder: Path) -> str:
    """Why the engine does not open a store, as one line which names the file where the engine does."""
    reason = " ".join(_AFTER_REASON.sub("", _CODE.sub("", text.strip())).split())[:_MOST_REASON]
    named = re.search(rf"{re.escape(str(folder))}/[^\s'\"`,;:()]+", text)
    if not named:
        return reason
    file = named[0].rstrip(".")
    return f"{file} is damaged or missing ({reason.replace(f'{folder}/', '')})"


def with_advice(text: str, folder: str) -> str:
    """An error of a query; where a part of the store could not be read, with what to do about it."""
    if _OF_A_PART not in text:
        return text
    plain = " ".join(text.replace(f"{folder}/", "").split())
    return f"{plain}; a part of the store is damaged: end meshflow and say `meshflow repair`, which sets it aside"


def _detach_broken(client: Client, table: str) -> list[BrokenPart]:
    sql = f"CHECK TABLE `{table}` SETTINGS check_query_single_value_result = 0"
    checked = client.raw_query(sql, fmt="TSV").decode(errors="replace").splitlines()
    rows_of = (line.split("\t") for line in checked)
    broken = sorted(fields[0] for fields in rows_of if len(fields) > 1 and fields[1] != "1")
    if not broken:
        return []
    known = client.query(
        "SELECT name, rows, path FROM system.parts"
        f" WHERE database = currentDatabase() AND table = '{table}' AND active"
    ).result_rows
    found = {str(name): (int(rows), Path(path)) for name, rows, path in known}
    parts = []
    for name in broken:
        if name not in found:
            continue
        rows, path = found[name]
        client.command(f"ALTER TABLE `{table}` DETACH PART '{name}'")
        parts.append(BrokenPart(table, name, rows, path.parent / "detached" / name))
    return parts


def _line(table: str, parts: list[BrokenPart]) -> str:
    names = ", ".join(part.name for part in parts[:_MOST_NAMES])
    if len(parts) > _MOST_NAMES:
        names += f" and {len(parts) - _MOST_NAMES} more"
    rows = sum(part.rows or 0 for part in parts)
    unknown = sum(part.rows is None for part in parts)
    lost = f"{rows} rows are lost" + (
        f", and those of {unknown} parts whose rows nobody knows" if unknown else ""
    )
    return f"table {table}: {lost}: damaged parts ({names}) were set aside in {parts[0].folder.parent}, which may be emptied"


def _rows_of(part: Path) -> int | None:
    try:
        return int((part / "count.txt").read_bytes())
    except (OSError, ValueError):
        return None
