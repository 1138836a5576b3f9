"""What every job over the store does (storage.jobs.job): one suite, run on each job."""

import random
from abc import abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, Protocol

import pytest

from schemas.watermark import UNKNOWN, Watermark
from storage.jobs.job import Job


class JobCase(Protocol):
    """A store with work to do."""

    watermarks: list[Watermark]
    """Each makes more of the work due; the last one makes all of it due."""

    def job(self) -> Job:
        """The job, as a process makes it that has just begun; closed with the case."""

    def outcome(self) -> Any:
        """What the job has left in the store."""

    def expected(self) -> Any:
        """What it has to leave there, found in another way."""


def finish(job: Job, watermark: Watermark) -> list[str]:
    """Do all that is due; the portions."""
    return list(job.run(watermark)) if job.due(watermark) else []


class JobContract:
    """Subclasses give the fixture ``case``."""

    @abstractmethod
    @pytest.fixture
    def case(self) -> Iterator[JobCase]: ...

    def test_all_that_is_due_is_done(self, case: JobCase) -> None:
        assert case.outcome() != case.expected()
        assert finish(case.job(), case.watermarks[-1])
        assert case.outcome() == case.expected()

    def test_nothing_is_due_before_the_watermark_is_known(self, case: JobCase) -> None:
        job = case.job()
        assert not job.due(UNKNOWN)
        before = case.outcome()
        assert list(job.run(UNKNOWN)) == []
        assert case.outcome() == before

    def test_a_watermark_that_stands_still_makes_nothing_due(self, case: JobCase) -> None:
        job, watermark = case.job(), case.watermarks[-1]
        finish(job, watermark)
        assert not job.due(watermark)
        assert list(job.run(watermark)) == []
        assert case.outcome() == case.expected()

    def test_a_watermark_that_goes_back_undoes_nothing(self, case: JobCase) -> None:
        job = case.job()
        finish(job, case.watermarks[-1])
        assert not job.due(case.watermarks[0])
        for watermark in case.watermarks:
            assert list(job.run(watermark)) == []
            assert list(case.job().run(watermark)) == []
        assert case.outcome() == case.expected()

    def test_steps_leave_what_a_jump_leaves(self, case: JobCase) -> None:
        job = case.job()
        for watermark in case.watermarks:
            assert job.due(watermark)
            finish(job, watermark)
        assert case.outcome() == case.expected()

    def test_the_next_process_finds_it_done(self, case: JobCase) -> None:
        finish(case.job(), case.watermarks[-1])
        assert finish(case.job(), case.watermarks[-1]) == []
        assert case.outcome() == case.expected()

    def test_one_that_ends_between_portions_is_resumed(self, case: JobCase) -> None:
        """By another process, after each of the portions in turn, and by itself."""
        job, portions = case.job(), 0
        while portions < 100:
            cut = job.run(case.watermarks[-1])
            done = sum(1 for _ in zip(range(portions), cut, strict=False))
            if done < portions:
                break
            cut.close()  # type: ignore[attr-defined]
            assert job.due(case.watermarks[-1])
            portions += 1
            job = case.job() if portions % 2 else job
        finish(job, case.watermarks[-1])
        assert portions > 1
        assert case.outcome() == case.expected()

    def test_two_workers_leave_what_one_leaves(self, case: JobCase) -> None:
        begin = Barrier(2, timeout=60)

        def work(seed: int) -> None:
            chance, job = random.Random(seed), case.job()
            begin.wait()
            for _ in range(chance.randrange(3)):  # begun, and begun again
                next(iter(job.run(case.watermarks[-1])), None)
            finish(job, case.watermarks[-1])

        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(work, seed) for seed in (1, 2)]:
                done.result()
        assert case.outcome() == case.expected()
