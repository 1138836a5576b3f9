"""Group commit's decisions, with time passed in: the answer to a sender is what the log has."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingest.admission import RequestTooLarge
from ingest.pending import RECORDS_PER_APPEND, REQUEST_OVERHEAD_BYTES, Batch, Pending
from ingest.rust import NativePending, make_receiver
from ingest.settings import IngestSettings
from schemas import topics
from schemas.errors import LogFull, LogUnavailable
from schemas.records import TopicPartition
from tests.support.examples import examples

WINDOW_NS = 50
RETRY_NS = 1000
RECORD_BYTES = 60
LIMIT_BYTES = 12 * REQUEST_OVERHEAD_BYTES


AnyPending = Pending | NativePending
Make = Callable[..., AnyPending]


def add(
    pending: AnyPending,
    parts: dict[int, bytes],
    answers: list[Exception | None],
    now_ns: int = 0,
    topic: str = topics.SPANS,
    rejected: int = 0,
) -> None:
    request_bytes = sum(map(len, parts.values()))
    pending.add(
        topic,
        parts,
        items=len(parts),
        rejected=rejected,
        request_bytes=request_bytes,
        now_ns=now_ns,
        reply=answers.append,
    )


def make_python(limit_bytes: int = LIMIT_BYTES) -> AnyPending:
    return Pending(WINDOW_NS, RECORD_BYTES, limit_bytes, RETRY_NS)


def make_native(limit_bytes: int = LIMIT_BYTES) -> AnyPending:
    settings = IngestSettings(record_size=RECORD_BYTES, buffer_size=limit_bytes)
    receiver = make_receiver(settings, partitions=3, window_ns=WINDOW_NS, retry_ns=RETRY_NS)
    return NativePending(receiver, limit_bytes, RETRY_NS)


@pytest.fixture(params=[make_python, pytest.param(make_native, marks=pytest.mark.component("native"))])
def make_pending(request: pytest.FixtureRequest) -> Make:
    """The decisions in Python and their native twin."""
    make: Make = request.param
    return make


def values(batch: Batch | None) -> list[tuple[int, bytes]]:
    assert batch is not None
    return [(append.tp.partition, append.value) for append in batch.appends]


def test_requests_of_one_window_become_one_record_per_partition(make_pending: Make) -> None:
    pending, answers = make_pending(), list[Exception | None]()
    add(pending, {0: b"a", 2: b"A"}, answers, now_ns=0)
    add(pending, {0: b"b"}, answers, now_ns=WINDOW_NS - 1)
    assert pending.take(WINDOW_NS - 1) is None
    assert pending.due_ns() == WINDOW_NS
    batch = pending.take(WINDOW_NS)
    assert values(batch) == [(0, b"ab"), (2, b"A")]
    assert batch is not None
    assert answers == []
    assert pending.finish(batch, None, WINDOW_NS).accepted == {topics.SPANS: 3}
    assert answers == [None, None]
    assert pending.held_bytes == 0
    assert pending.idle


def test_a_full_record_is_taken_before_its_window_is_over(make_pending: Make) -> None:
    pending, answers = make_pending(), list[Exception | None]()
    add(pending, {0: b"a" * 40, 1: b"z"}, answers)
    assert pending.take(0) is None
    add(pending, {0: b"b" * 40}, answers)
    assert pending.due_ns() == 0
    assert values(pending.take(0)) == [(0, b"a" * 40)]


def test_a_part_larger_than_a_record_is_one_larger_record(make_pending: Make) -> None:
    pending, answers = make_pending(), list[Exception | None]()
    add(pending, {0: b"a" * 10}, answers)
    add(pending, {0: b"b" * 1000}, answers)
    assert values(pending.take(0)) == [(0, b"a" * 10), (0, b"b" * 1000)]


def test_a_backlog_is_appended_a_few_records_at_a_time_in_order(make_pending: Make) -> None:
    pending, answers = make_pending(), list[Exception | None]()
    for letter in b"abcdef":
        add(pending, {0: bytes([letter]) * RECORD_BYTES}, answers)
    first = pending.take(0)
    assert [value[:1] for _, value in values(first)] == [b"a", b"b", b"c", b"d"][:RECORDS_PER_APPEND]
    assert pending.take(0) is None, "one batch of a partition at a time"
    assert first is not None
    pending.finish(first, None, 0)
    assert [value[:1] for _, value in values(pending.take(0))] == [b"e", b"f"]


def test_no_room_refuses_counts_and_says_when_to_come_back(make_pending: Make) -> None:
    pending, answers = make_pending(limit_bytes=REQUEST_OVERHEAD_BYTES + 100), list[Exception | None]()
    add(pending, {0: b"a"}, answers)
    with pytest.raises(LogFull) as full:
        add(pending, {0: b"b", 1: b"c"}, answers, rejected=1)
    assert full.value.retry_after_s == RETRY_NS / 1e9
    batch = pending.take(WINDOW_NS)
    assert batch is not None
    assert [(dict(append.headers), append.value) for append in batch.appends] == [({"refused": 3}, b"a")]


def test_a_request_larger_than_the_buffer_is_answered_so(make_pending: Make) -> None:
    pending, answers = make_pending(limit_bytes=REQUEST_OVERHEAD_BYTES + 100), list[Exception | None]()
    with pytest.raises(
        RequestTooLarge, match=r"takes 16,584 bytes to hold; the whole buffer has 16,484 \(buffer_size\)"
    ):
        add(pending, {0: b"x" * 100}, answers)
    assert pending.held_bytes == 0


def test_rejected_items_alone_are_logged_before_the_sender_is_answered(make_pending: Make) -> None:
    pending, answers = make_pending(), list[Exception | None]()
    add(pending, {}, answers, rejected=5)
    batch = pending.take(WINDOW_NS)
    assert batch is not None
    assert [(append.tp, append.value, dict(append.headers)) for append in batch.appends] == [
        (TopicPartition(topics.SPANS, 0), b"", {"rejected": 5})
    ]
    assert answers == []
    assert pending.finish(batch, None, 0).rejected == {topics.SPANS: 5}
    assert answers == [None]


def test_counts_of_refused_items_go_alone_when_nothing_else_does_and_again_when_that_fails(
    make_pending: Make,
) -> None:
    pending = make_pending()
    pending.refuse(topics.LOGS, 7, now_ns=0)
    assert pending.take(WINDOW_NS - 1) is None
    batch = pending.take(WINDOW_NS)
    assert batch is not None
    assert [(append.tp, dict(append.headers)) for append in batch.appends] == [
        (TopicPartition(topics.LOGS, 0), {"refused": 7})
    ]
    pending.finish(batch, LogUnavailable("away"), WINDOW_NS)
    pending.refuse(topics.LOGS, 1, now_ns=WINDOW_NS)
    assert pending.due_ns() == WINDOW_NS + RETRY_NS, "not before the retry time: the log is away"
    batch = pending.take(WINDOW_NS + RETRY_NS)
    assert batch is not None
    assert dict(batch.appends[0].headers) == {"refused": 8}


def test_a_request_fails_when_one_of_its_records_does_and_is_refused_as_a_whole(make_pending: Make) -> None:
    pending, answers = make_pending(), list[Exception | None]()
    add(pending, {0: b"a" * RECORD_BYTES, 1: b"b"}, answers, rejected=2)
    full = pending.take(0)
    rest = pending.take(WINDOW_NS)
    assert full is not None
    assert rest is not None
    error = LogUnavailable("away")
    assert pending.finish(full, error, WINDOW_NS).refused == {topics.SPANS: 4}
    assert answers == [error]
    assert pending.held_bytes > 0, "its other part is still being appended"
    outcome = pending.finish(rest, None, WINDOW_NS)
    assert (outcome.accepted, outcome.rejected, answers) == ({}, {}, [error])
    assert pending.held_bytes == 0


def test_a_stop_makes_everything_due_at_once(make_pending: Make) -> None:
    pending, answers = make_pending(), list[Exception | None]()
    add(pending, {0: b"a"}, answers, now_ns=100)
    pending.refuse(topics.LOGS, 1, now_ns=100)
    pending.hurry(101)
    batch = pending.take(101)
    assert batch is not None
    assert [append.tp.topic for append in batch.appends] == [topics.SPANS, topics.LOGS]


@dataclass(eq=False)
class Sent:
    topic: str
    parts: dict[int, bytes]
    rejected: int
    answers: list[Exception | None]


@examples(200, stateful_step_count=50)
class PendingMachine(RuleBasedStateMachine):
    """Requests, appends that succeed or fail, and time, in any order."""

    make: ClassVar[Make] = staticmethod(make_python)

    def __init__(self) -> None:
        super().__init__()
        self.pending = self.make()
        self.now_ns = 0
        self.serial = 0
        self.sent: list[Sent] = []
        self.under_way: list[Batch] = []
        self.logged: dict[TopicPartition, list[bytes]] = {}
        self.taken: dict[TopicPartition, list[bytes]] = {}
        self.headers: Counter[str] = Counter()
        self.turned_away = 0

    @rule(
        topic=st.sampled_from(topics.TOPICS),
        partitions=st.sets(st.integers(0, 2), max_size=3),
        padding=st.sampled_from([0, 10, 30, 200]),
        rejected=st.integers(0, 2),
    )
    def send(self, topic: str, partitions: set[int], padding: int, rejected: int) -> None:
        self.serial += 1
        parts = dict.fromkeys(partitions, b"%d:%s;" % (self.serial, b"x" * padding))
        request = Sent(topic, parts, rejected, [])
        try:
            add(self.pending, parts, request.answers, self.now_ns, topic, rejected)
        except LogFull:
            self.turned_away += len(parts) + rejected
        else:
            self.sent.append(request)

    @rule(passed_ns=st.sampled_from([1, WINDOW_NS, RETRY_NS]))
    def wait(self, passed_ns: int) -> None:
        self.now_ns += passed_ns

    @rule()
    def take(self) -> None:
        due_ns = self.pending.due_ns()
        batch = self.pending.take(self.now_ns)
        assert (batch is not None) == (due_ns is not None and due_ns <= self.now_ns)
        if batch is None:
            return
        busy = {append.tp for other in self.under_way for append in other.appends}
        assert not busy & {append.tp for append in batch.appends}
        for append in batch.appends:
            parts = append.value.split(b";")[:-1]
            assert len(append.value) <= RECORD_BYTES or len(parts) == 1
            self.taken.setdefault(append.tp, []).extend(parts)
        self.under_way.append(batch)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), fails=st.booleans())
    def finish(self, data: st.DataObject, fails: bool) -> None:
        batch = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        if not fails:
            self._log(batch)
        outcome = self.pending.finish(batch, LogUnavailable("away") if fails else None, self.now_ns)
        self.turned_away += sum(outcome.refused.values())

    def _log(self, batch: Batch) -> None:
        for append in batch.appends:
            self.logged.setdefault(append.tp, []).extend(append.value.split(b";")[:-1])
            self.headers.update(append.headers)

    @invariant()
    def holds_no_more_than_allowed(self) -> None:
        assert 0 <= self.pending.held_bytes <= LIMIT_BYTES

    @invariant()
    def answers_once_and_only_what_is_logged(self) -> None:
        for request in self.sent:
            assert len(request.answers) <= 1
            if request.answers == [None]:
                for partition, part in request.parts.items():
                    assert part[:-1] in self.logged[TopicPartition(request.topic, partition)]

    def teardown(self) -> None:
        """The log is well again: everything is answered, the counts are logged, order is kept."""
        for late in self.under_way:
            self._log(late)
            self.pending.finish(late, None, self.now_ns)
        self.pending.hurry(self.now_ns)
        while (batch := self.pending.take(self.now_ns)) is not None:
            for append in batch.appends:
                self.taken.setdefault(append.tp, []).extend(append.value.split(b";")[:-1])
            self._log(batch)
            self.pending.finish(batch, None, self.now_ns)
        assert self.pending.idle
        assert self.pending.held_bytes == 0
        assert all(len(request.answers) == 1 for request in self.sent)
        assert self.headers["refused"] == self.turned_away
        acknowledged = sum(request.rejected for request in self.sent if request.answers == [None])
        sent = sum(request.rejected for request in self.sent)
        assert acknowledged <= self.headers["rejected"] <= sent
        for parts in self.taken.values():
            assert _serials(parts) == sorted(_serials(parts)), "a partition keeps the order of its requests"


def _serials(parts: Sequence[bytes]) -> list[int]:
    return [int(part.split(b":")[0]) for part in parts]


class NativePendingMachine(PendingMachine):
    """The same for the native twin."""

    make: ClassVar[Make] = staticmethod(make_native)


TestPendingMachine = PendingMachine.TestCase
TestNativePendingMachine = pytest.mark.component("native")(NativePendingMachine.TestCase)
