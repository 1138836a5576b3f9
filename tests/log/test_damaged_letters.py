"""A damaged file of dead letters: what can be read is saved, the damaged file is kept, losses are counted."""

import asyncio
import logging
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from log.sqlite import letters_salvage, rescue
from log.sqlite.dead_letters import FILE, SqliteDeadLetters
from log.sqlite.letters_salvage import save_letters
from schemas.dead_letters import Selection, StoredLetter
from schemas.errors import LogDamaged, LogUnavailable
from schemas.records import DeadLetter, Record, TopicPartition
from tests.support.damage import DAMAGES, Damage, flip

A = TopicPartition("otlp_spans", 0)
EACH = 300
EVERYTHING = Selection(limit=10_000)


@pytest.fixture(scope="module", params=["closed", "killed"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with EACH letters, as an end in order or a kill leaves it."""

    async def fill(folder: Path) -> Path:
        chance = random.Random(3)
        letters = SqliteDeadLetters(folder)
        for number in range(EACH):
            payload = chance.randbytes(chance.choice((10, 500, 20_000)))
            record = Record(number, number + 1, payload, len(payload), labels={"source": f"n{number}"})
            await letters.write(A, [DeadLetter(record, f"reason {number}")])
        copied = shutil.copytree(folder, folder.with_name("copied"))
        await letters.close()
        return folder if request.param == "closed" else copied

    folder = tmp_path_factory.mktemp("made") / "log"
    folder.mkdir()
    return asyncio.run(fill(folder))


async def all_letters(folder: Path) -> list[StoredLetter]:
    letters = SqliteDeadLetters(folder)
    found = await letters.find(EVERYTHING, payloads=True)
    await letters.close()
    return found.letters


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("seed", range(5))
async def test_what_can_be_read_is_saved_and_new_letters_are_taken(
    made: Path, tmp_path: Path, damage: Damage, seed: int
) -> None:
    chance = random.Random(f"{damage.__name__} {seed}")
    folder = shutil.copytree(made, tmp_path / "log")
    before = {
        letter.id.offset: letter for letter in await all_letters(shutil.copytree(made, tmp_path / "kept"))
    }
    damage(folder / FILE, chance)
    if (folder / f"{FILE}-wal").exists() and chance.random() < 0.5:
        damage(folder / f"{FILE}-wal", chance)
    saved = save_letters(folder)
    letters = SqliteDeadLetters(folder)
    await letters.write(A, [DeadLetter(Record(EACH, EACH + 1, b"new", 3), "new")])
    found = (await letters.find(EVERYTHING, payloads=True)).letters
    await letters.close()
    assert found[-1].payload == b"new"
    changed = sum(letter != before.get(letter.id.offset) for letter in found[:-1])
    assert changed <= (20 if damage is flip else 10)
    if saved is not None:
        assert saved.letters == len(found) - 1
        assert saved.aside.exists()
        assert saved.letters + saved.lost <= EACH
        assert save_letters(folder) is None, "the new file is sound"
    assert not list(folder.glob("salvage-*"))


async def test_the_first_page_is_replaced_and_nothing_is_lost(
    made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(made, tmp_path / "log")
    with closing(sqlite3.connect(folder / FILE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = await all_letters(folder)
    with (folder / FILE).open("r+b") as file:
        file.write(bytes(4096))
    caplog.set_level(logging.ERROR)
    assert save_letters(folder) is not None
    assert f"{EACH} dead letters were saved into a new file, 0 or more are lost" in caplog.text
    assert await all_letters(folder) == before


async def test_a_sound_file_is_left_alone(made: Path, tmp_path: Path) -> None:
    assert save_letters(tmp_path) is None
    assert not (tmp_path / FILE).exists()
    folder = shutil.copytree(made, tmp_path / "log")
    assert save_letters(folder) is None
    assert len(await all_letters(folder)) == EACH


async def test_numbers_of_letters_that_were_only_counted_are_saved_too(tmp_path: Path) -> None:
    letters = SqliteDeadLetters(tmp_path, max_letters=5)
    await letters.write(A, [DeadLetter(Record(number, 1, b"x" * 9_000, 9_000), "x") for number in range(12)])
    await letters.close()
    letters_salvage.salvage(tmp_path)
    letters = SqliteDeadLetters(tmp_path, max_letters=5)
    found = await letters.find(EVERYTHING)
    assert (found.total, found.forgotten) == (5, 7)
    await letters.close()


async def test_damage_that_is_found_while_letters_are_written_is_reported_at_once(tmp_path: Path) -> None:
    letters = SqliteDeadLetters(tmp_path)
    many = [DeadLetter(Record(number, 1, b"x" * 5_000, 5_000), "x") for number in range(50)]
    await letters.write(A, many)
    await letters.close()
    letters = SqliteDeadLetters(tmp_path)
    size = (tmp_path / FILE).stat().st_size
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(4096)
        file.write(random.Random(1).randbytes(size - 4096))
    with pytest.raises(LogDamaged, match=r"dead_letters\.sqlite is damaged .* start meshflow again"):
        await letters.write(A, [DeadLetter(Record(99, 1, b"y", 1), "y")])
    await letters.close()
    assert save_letters(tmp_path) is not None
    assert await all_letters(tmp_path) == []


async def test_without_room_nothing_is_changed(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(made, tmp_path / "log")
    with (folder / FILE).open("r+b") as file:
        file.write(bytes(100))
    before = (folder / FILE).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rescue, "copy_damaged", full)
    with pytest.raises(LogUnavailable, match="there must be room for the file twice more"):
        letters_salvage.salvage(folder)
    assert (folder / FILE).read_bytes() == before
    assert not list(folder.glob("salvage-*"))
