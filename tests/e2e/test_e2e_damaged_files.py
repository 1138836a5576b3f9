"""Damaged files under `up`, `meshflow query` and `meshflow repair`: work goes on and says what was lost, or
one line says why not and what to do. ``python -m tests.e2e.soak_damage`` tries many more.
"""

import os
from pathlib import Path
from random import Random

import pytest

from schemas.tables import SCHEMAS
from tests.e2e.damaged_up import CAPTURE, SPANS, Damaged, assert_plain, make
from tests.e2e.soak_requests import probe
from tests.support.damage import flip, garble, truncate
from tests.support.load import Load
from tests.support.up import eventually, replay


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made"))


def stored(damaged: Damaged) -> int:
    return damaged.up.count("SELECT count() FROM otel_traces")


def test_damage_to_rows_log_letters_and_what_was_seen_is_counted_and_work_goes_on(
    made: Path, tmp_path: Path
) -> None:
    damaged = Damaged(made, tmp_path)
    data, chance = damaged.up.data, Random(5)
    tables = list(data.glob("store/store/*/*/*.sql"))
    uuid = next(file for file in tables if file.name == "otel_traces.sql").read_text().split("'")[1]
    part = min((data / "store/store" / uuid[:3] / uuid).glob("*_*_*_*"))
    rows = int((part / "count.txt").read_text())
    (part / "checksums.txt").unlink()
    truncate(part / "columns.txt", chance)
    flip(data / "log.seen", chance)
    garble(data / "log/dead_letters.sqlite", Random(1))
    (data / "log/log.sqlite-shm").write_bytes(chance.randbytes(32768))
    with (data / "log/log.sqlite").open("r+b") as log:
        log.write(bytes(16384))
    first = damaged.start()
    try:
        assert_plain(first, "all at once")
        assert first.code is None
        assert (
            f"table otel_traces: {rows} rows are lost: damaged parts (broken-on-start_{part.name})"
            in first.said
        )
        assert "records were saved into a new file, 0 are lost" in first.said
        assert "dead letters were saved into a new file" in first.said
        assert "log.seen cannot be read" in first.said
        assert stored(damaged) == damaged.up.ledger()["stored"] - rows
        replay(damaged.up, CAPTURE, options=("--now",))
        damaged.up.wait_for(3 * SPANS)
        assert damaged.end() == 0
    finally:
        damaged.end()


def test_a_damaged_definition_is_one_line_everywhere_and_repaired(made: Path, tmp_path: Path) -> None:
    damaged = Damaged(made, tmp_path)
    (file,) = damaged.up.data.glob("store/store/*/*/red_10s.sql")
    garble(file, Random(0))
    for outcome in (damaged.start(), damaged.query("SELECT count() FROM red")):
        assert_plain(outcome, "a garbled definition")
        assert outcome.code == 1
        assert f"{file.resolve()} is damaged or missing" in outcome.last_line
        assert "say `meshflow repair`" in outcome.last_line
    repaired = damaged.repair()
    assert_plain(repaired, "repair")
    assert repaired.code == 0
    assert "table red_10s is made anew, its rows are lost" in repaired.said
    again = damaged.start()
    try:
        assert again.code is None
        assert stored(damaged) == damaged.up.ledger()["stored"]
        replay(damaged.up, CAPTURE, options=("--now",))
        damaged.up.wait_for(3 * SPANS)
        assert damaged.up.count("SELECT count() FROM red_10s") > 0
    finally:
        damaged.end()


def test_damage_under_a_running_up_costs_the_damaged_rows_and_nothing_else(
    made: Path, tmp_path: Path
) -> None:
    damaged = Damaged(made, tmp_path)
    up, read = damaged.up, "SELECT sum(cityHash64(*)) FROM otel_traces"
    assert damaged.start().code is None
    try:
        (definition,) = up.data.glob("store/store/*/*/otel_traces.sql")
        uuid = definition.read_text().split("'")[1]
        table = up.data / "store/store" / uuid[:3] / uuid
        emptied: set[str] = set()

        def is_read() -> bool:
            """After every part was emptied, those too that the engine made of others meanwhile."""
            for rows in table.glob("[0-9]*_*_*_*/*.bin"):
                os.truncate(rows, 0)
                emptied.add(rows.parent.name)
            return damaged.ask(read).code == 0

        eventually(lambda: not is_read(), "the engine meets the damage")
        answer = damaged.ask(read)
        assert_plain(answer, "a query of damaged rows")
        assert "a part of the store is damaged: end meshflow and say `meshflow repair`" in answer.last_line
        asked = {table: damaged.ask(f"SELECT sum(cityHash64(*)) FROM {table}").code for table in SCHEMAS}
        assert [table for table, code in asked.items() if code] == ["otel_traces"]

        with Load(up, [probe(1)], senders=1) as load:
            load.finish()
        whole = "SELECT count() FROM otel_traces WHERE _part NOT IN ({})".format(
            ", ".join(f"'{name}'" for name in emptied)
        )
        eventually(
            lambda: up.count(f"{whole} AND ServiceName = 'probe'") == 1,
            "what comes after the damage is stored",
        )
        assert up.wait_for(2 * SPANS + 1)["stored"] == 2 * SPANS + 1
        assert damaged.end() == 0
        again = damaged.start()
        assert again.code is None
        assert f"table otel_traces: {2 * SPANS} rows are lost: damaged parts (broken-on-start_" in again.said
        assert stored(damaged) == 1
        assert up.ledger()["stored"] == 2 * SPANS + 1, "nothing is counted twice"
    finally:
        damaged.end()
