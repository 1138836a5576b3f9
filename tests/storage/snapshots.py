"""The statements that migrations run, in a file for each table, view or function.

``python -m tests.storage.snapshots`` writes the files anew. A released migration must not change.
"""

import re
from collections import defaultdict
from pathlib import Path

from storage.migrate import statements_of_all
from storage.settings import StorageSettings

FOLDER = Path(__file__).parent / "snapshots"
SETTINGS = {
    "server": StorageSettings(),
    "cluster": StorageSettings(store="clickhouse://db/meshflow", cluster="mesh"),
}
"""Folder of the snapshots -> the settings that they are made with."""

_NAMED = re.compile(
    r"(?:ALTER TABLE|CREATE (?:OR REPLACE )?(?:TABLE|VIEW|FUNCTION)) (?:IF NOT EXISTS )?(\w+)"
)


def made(settings: StorageSettings) -> dict[str, str]:
    """Name of a table, view or function -> the statements that make it (a local table's with its own)."""
    texts: defaultdict[str, str] = defaultdict(str)
    for statement in statements_of_all(settings):
        name = _NAMED.match(statement)
        assert name, statement
        texts[name[1].removesuffix("_local")] += f"{statement};\n"
    return dict(texts)


def kept(kind: str) -> dict[str, str]:
    """The snapshots in a folder, by name."""
    return {file.stem: file.read_text(encoding="utf-8") for file in (FOLDER / kind).glob("*.sql")}


if __name__ == "__main__":
    for kind, settings in SETTINGS.items():
        (FOLDER / kind).mkdir(parents=True, exist_ok=True)
        for file in (FOLDER / kind).glob("*.sql"):
            file.unlink()
        for name, text in made(settings).items():
            (FOLDER / kind / f"{name}.sql").write_text(text, encoding="utf-8")
