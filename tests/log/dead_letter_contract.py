"""What every store of dead letters does (schemas.dead_letters): one suite, run on each implementation."""

import random
from abc import abstractmethod
from typing import Protocol

import pytest

from schemas.dead_letters import LEFT_OUT, WHOLE, DeadLetterReader, DeadLetterWriter, LetterId, Selection
from schemas.records import DeadLetter, Record, TopicPartition
from schemas.topics import METRICS, SPANS
from schemas.units import NS_PER_S

A = TopicPartition(SPANS, 0)
B = TopicPartition(METRICS, 1)
NOISE = random.Random(5).randbytes(2_000)


def letter(offset: int, reason: str = "not OTLP", payload: bytes = NOISE) -> DeadLetter:
    return DeadLetter(Record(offset, offset * NS_PER_S, payload, len(payload)), reason)


class LetterPlace(Protocol):
    """Where letters are; every opener sees the same ones."""

    async def open_writer(self) -> DeadLetterWriter: ...

    async def open_reader(self) -> DeadLetterReader: ...

    def id(self, tp: TopicPartition, offset: int) -> LetterId:
        """The name of a letter here."""


class DeadLetterContract:
    """Subclasses give the fixture ``place``."""

    @abstractmethod
    @pytest.fixture
    def place(self) -> LetterPlace: ...

    async def test_nothing_was_set_aside(self, place: LetterPlace) -> None:
        reader = await place.open_reader()
        found = await reader.find(Selection())
        assert (found.letters, found.total, found.reasons) == ([], 0, [])
        await reader.close()

    async def test_letters_come_back_whole(self, place: LetterPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        labelled = Record(7, 7 * NS_PER_S, NOISE, len(NOISE), key=b"\xff k", labels={"tenant": "ä"})
        await writer.write(A, [DeadLetter(labelled, "a \x1b[2J reason")])
        await writer.write(B, [DeadLetter(Record(8, 8 * NS_PER_S, b"", 9_000_000), "too large")])
        whole, left_out = (await reader.find(Selection(), payloads=True)).letters
        assert (whole.id, whole.append_time_ns, whole.size) == (place.id(A, 7), 7 * NS_PER_S, len(NOISE))
        assert (whole.payload, whole.extent, whole.key) == (NOISE, WHOLE, b"\xff k")
        assert (whole.reason, dict(whole.labels), whole.replayed) == ("a \x1b[2J reason", {"tenant": "ä"}, "")
        assert (left_out.id, left_out.size, left_out.extent) == (place.id(B, 8), 9_000_000, LEFT_OUT)
        assert [found.payload for found in (await reader.find(Selection())).letters] == [b"", b""]
        await writer.close()
        await reader.close()

    async def test_a_second_reading_adds_nothing(self, place: LetterPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        letters = [letter(1), letter(2), letter(2, "another reason")]
        await writer.write(A, letters)
        await writer.write(B, letters[:1])
        await writer.close()
        again = await place.open_writer()
        await again.write(A, letters[1:])
        await again.write(A, letters)
        found = await reader.find(Selection())
        assert sorted((found_.id, found_.reason) for found_ in found.letters) == sorted(
            [
                (place.id(A, 1), "not OTLP"),
                (place.id(A, 2), "not OTLP"),
                (place.id(A, 2), "another reason"),
                (place.id(B, 1), "not OTLP"),
            ]
        )
        assert (found.total, found.reasons) == (4, [("not OTLP", 3), ("another reason", 1)])
        await again.close()
        await reader.close()

    async def test_letters_are_chosen(self, place: LetterPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        await writer.write(A, [letter(number, f"reason {number % 3}") for number in range(10)])
        await writer.write(B, [letter(number, "of metrics") for number in range(10, 15)])

        async def chosen(selection: Selection) -> list[int]:
            return [found.id.offset for found in (await reader.find(selection)).letters]

        name = place.id(A, 0).topic
        assert await chosen(Selection(topic=name)) == list(range(10))
        assert await chosen(Selection(partition=1)) == list(range(10, 15))
        assert await chosen(Selection(reason="reason 1")) == [1, 4, 7]
        assert await chosen(Selection(topic=name, reason="reason", limit=2)) == [8, 9]
        assert (await reader.find(Selection(limit=1))).total == 15, "all are counted"
        ids = frozenset({place.id(A, 3), place.id(B, 11), place.id(B, 3)})
        assert await chosen(Selection(ids=ids)) == [3, 11]
        await writer.close()
        await reader.close()

    async def test_a_replayed_letter_is_marked(self, place: LetterPlace) -> None:
        writer, reader = await place.open_writer(), await place.open_reader()
        await writer.write(A, [letter(1), letter(2)])
        one = (await reader.find(Selection(ids=frozenset({place.id(A, 1)})))).letters
        await reader.mark_replayed(one, "replayed by a test")
        other = await place.open_reader()
        assert [found.replayed for found in (await other.find(Selection())).letters] == [
            "replayed by a test",
            "",
        ]
        for replayed, offset in ((True, 1), (False, 2)):
            found = await other.find(Selection(replayed=replayed))
            assert [found_.id.offset for found_ in found.letters] == [offset]
            assert found.total == 1
        await writer.write(A, [letter(1)])
        assert (await other.find(Selection(replayed=False))).total == 1, "a second reading leaves the mark"
        await writer.close()
        await reader.close()
        await other.close()
