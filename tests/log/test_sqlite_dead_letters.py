"""Dead letters beside the embedded log: the contract of both modes, and their bounds."""

from pathlib import Path

import pytest

from log.sqlite.dead_letters import SqliteDeadLetters
from schemas.dead_letters import LEFT_OUT, WHOLE, LetterId, Selection
from schemas.records import DeadLetter, Record, TopicPartition
from tests.log.dead_letter_contract import NOISE, A, B, DeadLetterContract, letter


class SqliteLetterPlace:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def open_writer(self) -> SqliteDeadLetters:
        return SqliteDeadLetters(self.folder)

    async def open_reader(self) -> SqliteDeadLetters:
        return SqliteDeadLetters(self.folder)

    def id(self, tp: TopicPartition, offset: int) -> LetterId:
        return LetterId(*tp, offset)


class TestSqliteDeadLetters(DeadLetterContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> SqliteLetterPlace:
        return SqliteLetterPlace(tmp_path)


async def test_over_the_limit_the_oldest_payloads_go_and_their_letters_stay(tmp_path: Path) -> None:
    letters = SqliteDeadLetters(tmp_path, max_bytes=5 * len(NOISE))
    for number in range(20):
        await letters.write(A, [letter(number)])
    found = await letters.find(Selection(), payloads=True)
    assert [found_.extent for found_ in found.letters] == [LEFT_OUT] * 15 + [WHOLE] * 5
    assert [found_.payload for found_ in found.letters] == [b""] * 15 + [NOISE] * 5
    assert {found_.size for found_ in found.letters} == {len(NOISE)}
    await letters.write(A, [letter(20, payload=bytes(6 * len(NOISE)))])
    newest = (await letters.find(Selection(), payloads=True)).letters[-1]
    assert (newest.extent, newest.payload) == (LEFT_OUT, b"")
    await letters.close()
    assert (tmp_path / "dead_letters.sqlite").stat().st_size < 200_000


async def test_over_their_number_the_oldest_letters_are_only_counted_and_stay_known(tmp_path: Path) -> None:
    letters = SqliteDeadLetters(tmp_path, max_letters=10)
    many = [letter(number) for number in range(25)]
    await letters.write(A, many)
    await letters.write(B, many[:3])
    for _ in range(2):
        await letters.write(A, many)
        found = await letters.find(Selection())
        assert (found.total, found.forgotten) == (10, 18)
    await letters.write(A, [letter(25)])
    assert [found.id.offset for found in (await letters.find(Selection(topic=A.topic))).letters][-1] == 25
    await letters.close()


async def test_a_new_log_at_the_same_offsets_has_letters_of_its_own(tmp_path: Path) -> None:
    letters = SqliteDeadLetters(tmp_path)
    for time_ns in (1, 2):
        await letters.write(A, [DeadLetter(Record(0, time_ns, b"x", 1), "not OTLP")])
    assert (await letters.find(Selection())).total == 2
    await letters.close()


async def test_what_is_asked_for_is_there_until_it_is_done(tmp_path: Path) -> None:
    letters, other = SqliteDeadLetters(tmp_path), SqliteDeadLetters(tmp_path)
    await letters.write(A, [letter(1), letter(2), letter(3)])
    one, two, _ = (await letters.find(Selection())).letters
    await letters.ask([one, two])
    assert [(asked.id.offset, asked.payload) for asked in await other.asked()] == [(1, NOISE), (2, NOISE)]
    await other.mark_replayed([one], "done")
    await other.unask(two)
    assert await letters.asked() == []
    assert [found.replayed for found in (await letters.find(Selection())).letters] == ["done", "", ""]
    await letters.close()
    await other.close()
