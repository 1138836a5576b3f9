"""A log whose file is damaged, gone, or of another time: what can be read is saved, the rest is counted."""

import asyncio
import logging
import random
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from log.spool.format import NEVER_SENT
from log.spool.spool import Spool
from log.sqlite.reader import SqliteLogReader
from log.sqlite.retention import Limits
from log.sqlite.writer import SqliteLogWriter
from schemas.errors import LogDamaged, LogVanished, MalformedOtlp, OffsetGone
from schemas.records import Append, Commit, TopicPartition
from tests.log.log_contract import PARTITIONS, A, B
from tests.support.damage import DAMAGES, Damage, flip

LIMITS = Limits(timedelta(days=1), 1 << 30)
EACH = 150
Values = dict[TopicPartition, list[bytes]]


@dataclass(frozen=True)
class Made:
    """A log of EACH records in A and in B, some far larger than a page."""

    folder: Path
    values: Values


@pytest.fixture(scope="module", params=[True, False], ids=["closed", "killed"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Closed in order, or as a kill leaves it."""
    return asyncio.run(make_log(tmp_path_factory.mktemp("made") / "log", clean=request.param))


async def make_log(folder: Path, *, clean: bool = True) -> Made:
    chance = random.Random(7)
    source = folder if clean else folder.with_name("live")
    writer, reader = SqliteLogWriter(source, PARTITIONS, LIMITS), SqliteLogReader(source)
    values: Values = {A: [], B: []}
    for number in range(EACH):
        for of_tp in values.values():
            of_tp.append(chance.randbytes(chance.choice((10, 300, 3_000, 30_000))))
        if number % 10 == 9:
            headers = {"rejected": 1} if chance.random() < 0.2 else {}
            await writer.append([Append(tp, value, headers) for tp in values for value in values[tp][-10:]])
    await reader.commit(A, Commit(EACH // 2, "next=1"))
    await reader.close()
    if not clean:
        shutil.copytree(source, folder)
    await writer.close()
    if not clean:
        shutil.copyfile(source.with_name("live.seen"), folder.with_name("log.seen"))
    return Made(folder, values)


def copy(made: Made, to: Path) -> Path:
    """A copy of the log to damage."""
    shutil.copytree(made.folder, to)
    shutil.copyfile(made.folder.with_name("log.seen"), to.with_name("log.seen"))
    return to


async def read_all(folder: Path, tp: TopicPartition) -> tuple[dict[int, bytes | None], int]:
    """What a reader gets by offset (None: cannot be unpacked), and how many records it counts as lost."""
    reader = SqliteLogReader(folder)
    found: dict[int, bytes | None] = {}
    offset = lost = 0
    while True:
        try:
            records = await reader.read(tp, offset, 100_000)
        except OffsetGone as gone:
            lost += gone.beginning - offset
            offset = gone.beginning
            continue
        if not records:
            await reader.close()
            return found, lost
        for record in records:
            assert record.offset == offset
            try:
                found[offset] = record.unpack()
            except MalformedOtlp:
                found[offset] = None
            offset += 1


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("seed", range(6))
async def test_what_can_be_read_is_saved_and_the_rest_is_counted(
    made: Made, tmp_path: Path, damage: Damage, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(f"{damage.__name__} {seed}")
    folder, values = copy(made, tmp_path / "log"), made.values
    wal = folder / "log.sqlite-wal"
    damage(folder / "log.sqlite", chance)
    if wal.exists() and chance.random() < 0.5:
        damage(wal, chance)
    writer = SqliteLogWriter(folder, PARTITIONS, LIMITS)
    for tp in values:
        try:
            await writer.append([Append(tp, b"new")])
        except LogDamaged:  # found while it runs: the next start saves what there is
            await writer.close()
            writer = SqliteLogWriter(folder, PARTITIONS, LIMITS)
            await writer.append([Append(tp, b"new")])
    changed = 0
    for tp, of_tp in values.items():
        found, lost = await read_all(folder, tp)
        newest = max(found)
        assert found.pop(newest) == b"new"
        assert len(found) + lost == newest, "each record is read or counted as lost"
        new = "is not the one that was here before" in caplog.text
        assert newest == (0 if new else EACH), "offsets go on after the newest one that was known"
        changed += sum(value != of_tp[offset] for offset, value in found.items())
    assert changed <= (20 if damage is flip else 30)
    await writer.close()
    await SqliteLogWriter(folder, PARTITIONS, LIMITS).close()


@pytest.mark.parametrize("page", range(8))
async def test_one_bad_page_costs_its_records_alone(made: Made, tmp_path: Path, page: int) -> None:
    folder, values = copy(made, tmp_path / "log"), made.values
    file = folder / "log.sqlite"
    with file.open("r+b") as stream:
        stream.seek(page * 16384 * (1 if page < 3 else file.stat().st_size // 16384 // 8))
        stream.write(random.Random(page).randbytes(16384))
    writer = SqliteLogWriter(folder, PARTITIONS, LIMITS)
    kept = 0
    for tp in values:
        found, _ = await read_all(folder, tp)
        kept += len(found)
    assert kept > EACH
    await writer.close()


async def test_a_salvage_is_logged_and_keeps_the_damaged_file_and_the_commits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = (await make_log(tmp_path / "log")).folder
    with (folder / "log.sqlite").open("r+b") as stream:
        stream.write(random.Random(1).randbytes(100))
    caplog.set_level(logging.ERROR)
    writer, reader = SqliteLogWriter(folder, PARTITIONS, LIMITS), SqliteLogReader(folder)
    assert f"{2 * EACH} records were saved into a new file, 0 are lost" in caplog.text
    (aside,) = folder.glob("log.sqlite.damaged-*")
    assert str(aside) in caplog.text
    assert await reader.committed(A) == Commit(EACH // 2, "next=1")
    assert not list(folder.glob("salvage-*"))
    await writer.close()
    await reader.close()


async def test_a_log_that_was_removed_while_open_takes_nothing_more(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    for file in ("log.sqlite", "log.sqlite-wal"):
        writer = SqliteLogWriter(folder, PARTITIONS, LIMITS)
        await writer.append([Append(A, b"x")])
        (folder / file).unlink()
        with pytest.raises(LogVanished, match="was removed or replaced while meshflow had it open"):
            await writer.append([Append(A, b"y")])
        with pytest.raises(LogVanished):
            await writer.tick(0)
        await writer.close()
        shutil.rmtree(folder)


async def test_a_log_that_was_replaced_while_open_takes_nothing_more(tmp_path: Path) -> None:
    writer = SqliteLogWriter(tmp_path / "log", PARTITIONS, LIMITS)
    await writer.append([Append(A, b"x")])
    shutil.copyfile(tmp_path / "log" / "log.sqlite", tmp_path / "copy")
    (tmp_path / "copy").rename(tmp_path / "log" / "log.sqlite")
    with pytest.raises(LogVanished):
        await writer.append([Append(A, b"y")])
    await writer.close()


async def test_another_log_is_noticed_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = (await make_log(tmp_path / "log")).folder
    await SqliteLogWriter(folder, PARTITIONS, LIMITS).close()
    assert not caplog.records
    shutil.rmtree(folder)
    writer = SqliteLogWriter(folder, PARTITIONS, LIMITS)
    assert "is not the one that was here before" in caplog.text
    assert f"at most {EACH // 2 + EACH} of its records" in caplog.text
    await writer.append([Append(A, b"x")])
    await writer.close()
    caplog.clear()
    await SqliteLogWriter(folder, PARTITIONS, LIMITS).close()
    assert not caplog.records, "it is reported once"


@pytest.mark.parametrize("how", ["an older copy", "no wal"])
async def test_a_log_of_an_earlier_time_is_noticed_and_its_offsets_are_not_used_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    folder = tmp_path / "log"
    await SqliteLogWriter(folder, PARTITIONS, LIMITS).close()
    writer = SqliteLogWriter(folder, PARTITIONS, LIMITS)
    await writer.append([Append(A, b"%d" % number) for number in range(5)])
    if how == "an older copy":
        await writer.close()
        shutil.copytree(folder, tmp_path / "older")
        writer = SqliteLogWriter(folder, PARTITIONS, LIMITS)
    else:
        shutil.copytree(folder, tmp_path / "older")
        (tmp_path / "older" / "log.sqlite-wal").unlink()
        (tmp_path / "older" / "log.sqlite-shm").unlink()
    await writer.append([Append(A, b"%d" % number) for number in range(5, 8)])
    await writer.close()
    shutil.rmtree(folder)
    (tmp_path / "older").rename(folder)
    writer = SqliteLogWriter(folder, PARTITIONS, LIMITS)
    missing = 3 if how == "an older copy" else 8
    assert "went back in time" in caplog.text
    assert f"{missing} records that were acknowledged are not in it" in caplog.text
    await writer.append([Append(A, b"new")])
    found, lost = await read_all(folder, A)
    assert found[8] == b"new"
    assert len(found) + lost == max(found) + 1
    await writer.close()


async def test_a_spool_with_damage_anywhere_loses_what_is_damaged_and_no_more(tmp_path: Path) -> None:
    for seed, damage in enumerate(DAMAGES * 4):
        chance = random.Random(f"spool {damage.__name__} {seed}")
        folder = tmp_path / str(seed)
        values = [chance.randbytes(chance.choice((10, 3_000, 30_000))) for _ in range(40)]
        spool = Spool(folder, 1 << 30)
        for number, value in enumerate(values):
            spool.append([Append(A, value)], [b"%016d" % number], [NEVER_SENT])
        spool.close()
        for file in folder.glob("*.spool"):
            damage(file, chance)
        if chance.random() < 0.5:
            damage(folder / "progress", chance)
        spool = Spool(folder, 1 << 30)
        found = [entry.append.value for entry in spool.peek(1 << 30).entries]
        assert [value for value in values if value in found] == found, "what comes out is whole and in order"
        spool.append([Append(A, b"new")], [b"n" * 16], [NEVER_SENT])
        assert spool.peek(1 << 30).entries[-1].append.value == b"new"
        spool.close()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("side", ["log.sqlite-shm", "log.sqlite-wal"])
async def test_a_damaged_file_beside_the_log_costs_at_most_what_only_it_had(
    tmp_path: Path, side: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    made = await make_log(tmp_path / "killed" / "log", clean=False)
    damage = DAMAGES[seed]
    folder = copy(made, tmp_path / "log")
    if not (folder / side).exists():
        (folder / side).write_bytes(random.Random(seed).randbytes(32768))
    damage(folder / side, random.Random(seed))
    writer = SqliteLogWriter(folder, PARTITIONS, LIMITS)
    for tp, of_tp in made.values.items():
        await writer.append([Append(tp, b"new")])
        found, lost = await read_all(folder, tp)
        assert found.pop(max(found)) == b"new"
        assert len(found) + lost == EACH
        assert all(value == of_tp[offset] for offset, value in found.items())
        assert not lost or side.endswith("-wal")
        assert not lost or "went back in time" in caplog.text
    await writer.close()


async def test_a_wal_that_another_log_left_is_not_taken_for_this_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As restoring a copy of log.sqlite leaves it, without the files beside it."""
    made = await make_log(tmp_path / "made" / "log")
    other = await make_log(tmp_path / "other" / "log", clean=False)
    folder = copy(made, tmp_path / "log")
    for side in ("-wal", "-shm"):
        left = other.folder / f"log.sqlite{side}"
        if left.exists():
            shutil.copyfile(left, folder / f"log.sqlite{side}")
    writer = SqliteLogWriter(folder, PARTITIONS, LIMITS)
    for tp in made.values:
        await writer.append([Append(tp, b"new")])
        found, lost = await read_all(folder, tp)
        assert found.pop(max(found)) == b"new"
        assert len(found) + lost == max(found, default=-1) + 1 or lost
    await writer.close()
    await SqliteLogWriter(folder, PARTITIONS, LIMITS).close()


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_log_seen_says_so_and_the_log_goes_on(
    made: Made, tmp_path: Path, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy(made, tmp_path / "log")
    damage(folder.with_name("log.seen"), random.Random(1))
    writer = SqliteLogWriter(folder, PARTITIONS, LIMITS)
    await writer.append([Append(A, b"new")])
    found, lost = await read_all(folder, A)
    assert found[max(found)] == b"new"
    assert len(found) == EACH + 1
    assert not lost or "went back in time" in caplog.text
    await writer.close()
    caplog.clear()
    await SqliteLogWriter(folder, PARTITIONS, LIMITS).close()
    assert not caplog.records, "it is written anew"
