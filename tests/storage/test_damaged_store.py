"""Damaged files of the embedded store: what was lost is counted, named and set aside; the rest is there."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from schemas.errors import QueryFailed, SinkUnavailable
from schemas.sql import Limits, Query
from storage.client import open_client
from storage.damage import explain
from storage.migrate import MigrationError, migrate
from storage.repair import repair_store
from storage.settings import ChdbStore, StorageSettings
from storage.sql.chdb_engine import ChdbEngine
from tests.support.damage import garble, truncate
from tests.support.stores import block, opened, scalar, settings_for, write

NOW = 1_700_000_000
EACH = 300
PARTS = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose table otel_logs has PARTS parts of EACH rows, never merged."""
    folder = tmp_path_factory.mktemp("made") / "data"
    settings = settings_for(folder)
    with opened(settings) as client:
        client.command("ALTER TABLE otel_logs MODIFY SETTING min_parts_to_merge_at_once = 100")
        for pane in range(PARTS):
            rows = [{"LogTime": 4_000_000_000, "Body": f"log {number}"} for number in range(EACH)]
            write(settings, block("otel_logs", rows, pane))
        assert (
            scalar(client, "SELECT count() FROM system.parts WHERE table = 'otel_logs' AND active") == PARTS
        )
    return folder


@pytest.fixture
def settings(made: Path, tmp_path: Path) -> StorageSettings:
    shutil.copytree(made, tmp_path / "data", symlinks=True)
    return settings_for(tmp_path / "data")


def parts_of(settings: StorageSettings, table: str) -> list[Path]:
    """Folders of a table's parts, in order."""
    with closing(open_client(settings.store_place)) as client:
        rows = client.query(f"SELECT path FROM system.parts WHERE table = '{table}' AND active ORDER BY name")
        return [Path(path) for (path,) in rows.result_rows]


def definition_of(settings: StorageSettings, table: str) -> Path:
    place = settings.store_place
    assert isinstance(place, ChdbStore)
    (file,) = (place.directory.resolve() / "store").glob(f"*/*/{table}.sql")
    return file


def count(settings: StorageSettings, table: str = "otel_logs") -> int:
    with closing(open_client(settings.store_place)) as client:
        return int(scalar(client, f"SELECT count() FROM {table}"))


@pytest.mark.parametrize("file", ["columns.txt", "count.txt", "data.bin"])
def test_a_part_that_the_engine_finds_damaged_is_set_aside_and_its_rows_are_counted(
    settings: StorageSettings, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    part = parts_of(settings, "otel_logs")[1]
    (part / file).unlink()
    caplog.set_level(logging.ERROR)
    assert count(settings) == EACH * (PARTS - 1)
    (line,) = (record.getMessage() for record in caplog.records)
    lost = (
        "0 rows are lost, and those of 1 parts whose rows nobody knows"
        if file == "count.txt"
        else f"{EACH} rows"
    )
    assert line.startswith(f"table otel_logs: {lost}")
    assert f"{part.name}" in line
    (aside,) = settings.data.resolve().glob(f"store/store/*/*/detached/*{part.name}")
    assert str(aside.parent) in line
    shutil.rmtree(aside.parent)
    caplog.clear()
    assert count(settings) == EACH * (PARTS - 1)
    assert not caplog.records


def test_damage_that_only_reading_finds_is_an_error_of_the_query_and_repaired(
    settings: StorageSettings,
) -> None:
    part = parts_of(settings, "otel_logs")[1]
    with (part / "data.bin").open("r+b") as data:
        data.seek(100)
        data.write(Random(1).randbytes(200))
    place = settings.store_place
    assert isinstance(place, ChdbStore)
    engine = ChdbEngine(str(place.directory.resolve()))
    with pytest.raises(QueryFailed, match=r"Code: \d+.*meshflow repair"):
        engine.execute(
            Query("SELECT sum(cityHash64(*)) FROM otel_logs", "TSV"), Limits(30, 1 << 29, 1, 1 << 20)
        )
    engine.close()
    (line,) = repair_store(settings)
    assert line.startswith(
        f"table otel_logs: {EACH} rows are lost: damaged parts ({part.name}) were set aside in"
    )
    assert count(settings) == EACH * (PARTS - 1)
    assert repair_store(settings) == []


@pytest.mark.parametrize("damage", [garble, truncate])
def test_a_damaged_definition_is_named_and_repair_makes_the_table_anew(
    settings: StorageSettings, damage: Callable[[Path, Random], None]
) -> None:
    file = definition_of(settings, "otel_logs")
    damage(file, Random(4))
    with pytest.raises(SinkUnavailable) as raised:
        open_client(settings.store_place)
    text = str(raised.value)
    assert f"{file} is damaged or missing" in text
    assert "say `meshflow repair`" in text
    assert "\n" not in text
    assert len(text) < 1_000
    said = repair_store(settings)
    assert [line.split(" is ")[0] for line in said[1:]] == ["table otel_logs"]
    assert str(file) in said[0]
    assert count(settings) == 0
    assert repair_store(settings) == []


def test_a_definition_that_is_gone_is_named_and_repaired(settings: StorageSettings) -> None:
    definition_of(settings, "otel_logs").unlink()
    with (
        closing(open_client(settings.store_place)) as client,
        pytest.raises(MigrationError, match="no table otel_logs"),
    ):
        migrate(client, settings)
    assert repair_store(settings) == ["table otel_logs is made anew, its rows are lost"]


def test_errors_that_are_not_utf_8_are_errors(settings: StorageSettings) -> None:
    place = settings.store_place
    assert isinstance(place, ChdbStore)
    engine = ChdbEngine(str(place.directory.resolve()))
    with pytest.raises(QueryFailed, match=r"Code: 395.*\\xff"):
        engine.execute(Query("SELECT throwIf(1, unhex('FF'))", "TSV"), Limits(30, 1 << 29, 1, 1 << 20))
    engine.close()


def test_a_store_that_is_damaged_and_was_killed_is_not_taken_for_one_in_use(
    settings: StorageSettings,
) -> None:
    place = settings.store_place
    assert isinstance(place, ChdbStore)
    open_and_die = (
        "import os, sys; from pathlib import Path; from storage.client import open_client\n"
        "from storage.settings import ChdbStore; kept = open_client(ChdbStore(Path(sys.argv[1]))); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", open_and_die, str(place.directory)], check=True, timeout=60)
    assert (place.directory / "status").exists()
    definition_of(settings, "otel_logs").write_text("ATTACH nothing")
    with pytest.raises(SinkUnavailable, match="is damaged or missing"):
        open_client(place)


def test_an_explanation_is_one_line() -> None:
    text = (
        "Code: 62. DB::Exception: Syntax error (in file /a/store/x/t.sql): failed at 1: \n\n: while loading"
    )
    assert (
        explain(text, Path("/a"))
        == "/a/store/x/t.sql is damaged or missing (Syntax error (in file store/x/t.sql): failed at 1:)"
    )
    assert explain("no file", Path("/a")) == "no file"
