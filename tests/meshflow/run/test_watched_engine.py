"""A call that does not come back is noticed; one that takes its time is not."""

import threading

import pytest

from meshflow.run.watched_engine import WatchedEngine, grace_s
from schemas.errors import QueryFailed
from schemas.sql import Answer, Engine, Limits, Query
from tests.support.up import eventually


class Slow:
    """An engine whose calls last until ``let_go``."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.closed = self.interrupted = False

    def execute(self, query: Query, limits: Limits) -> Answer:
        if query.sql == "fail":
            raise QueryFailed(1, "failed")
        assert self.let_go.wait(60)
        return Answer(query.sql.encode(), "TSV", 0, 0)

    def interrupt(self) -> None:
        self.interrupted = True

    def close(self) -> None:
        self.closed = True


def limits(time_s: float) -> Limits:
    return Limits(time_s, 1, 1, 1)


def test_a_call_over_limit_and_grace_is_reported_once() -> None:
    slow, stuck = Slow(), list[float]()
    engine: Engine = WatchedEngine(slow, stuck.append, grace_s=lambda _: 0.03, every_s=0.01)
    thread = threading.Thread(target=engine.execute, args=(Query("1"), limits(0.05)))
    thread.start()
    eventually(lambda: bool(stuck), "the call is reported")
    slow.let_go.set()
    thread.join()
    assert len(stuck) == 1
    assert stuck[0] > 0.08


def test_answers_errors_and_endings_pass_through() -> None:
    slow, stuck = Slow(), list[float]()
    engine = WatchedEngine(slow, stuck.append, grace_s=lambda _: 0.0, every_s=0.01)
    slow.let_go.set()
    assert engine.execute(Query("2"), limits(60)).body == b"2"
    with pytest.raises(QueryFailed):
        engine.execute(Query("fail"), limits(0))
    engine.interrupt()
    engine.close()
    assert slow.interrupted
    assert slow.closed
    assert not stuck


def test_a_short_limit_has_a_short_grace() -> None:
    assert [grace_s(limit) for limit in (1.0, 30.0, 3_600.0)] == [5.0, 15.0, 15.0]
