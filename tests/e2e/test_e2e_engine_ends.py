"""A query that never ends, and one that takes more memory than there is, on a running `up`: the second
process ends with them, and nothing else does.
"""

import threading
from contextlib import suppress
from pathlib import Path

from tests.e2e.test_e2e_kill import CONFIG, assert_accounted_for, span_requests
from tests.e2e.test_e2e_two_processes import alive, answers_sql, refused
from tests.support.load import Load
from tests.support.memory import limited_memory
from tests.support.up import Up, eventually, running_up

STUCK = "SELECT sum(editDistance(materialize(repeat('a', 65000)), repeat('b', 65000))) FROM numbers(500)"
"""One call of a function, for minutes: 500 times 65,000 x 65,000 steps, without a look at the clock."""
GREEDY = "SELECT length(groupArray(number)) FROM numbers(100000000)"
"""Takes 1.6 GB, which the engine's own limit allows here."""


SPARE_BYTES = 200 << 20
PANES = ("--pane", "1s", "--wait", "1")


class Asking:
    """A question whose answer never comes."""

    def __init__(self, up: Up, sql: str) -> None:
        self._thread = threading.Thread(target=self._ask, args=(up, sql), daemon=True)
        self._thread.start()

    def _ask(self, up: Up, sql: str) -> None:
        with suppress(AssertionError, OSError):
            up.sql(sql)

    def join(self) -> None:
        self._thread.join()


def cpu_s(pid: int) -> float:
    """What a process has used of the processors, in hundredths of a second as the kernel counts."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def assert_goes_on(up: Up, first: int, ended: int, load: Load) -> None:
    """Receivers take requests while there is no second process, and the next one misses nothing."""
    eventually(lambda: ended not in up.back_pids(), "the second process is ended")
    before = len(load.acknowledged)
    eventually(lambda: len(load.acknowledged) > before, "receivers go on")
    eventually(lambda: answers_sql(up), "SQL is answered again")
    load.stop()
    assert up.pid == first
    assert alive(first)
    assert not refused(load)
    assert "processing and SQL are there again" in up.said()
    assert "Traceback" not in up.said()
    assert_accounted_for(up, load.acknowledged)


def test_a_query_that_the_engine_cannot_end_ends_the_second_process_alone(tmp_path: Path) -> None:
    config = f"{CONFIG}\n[console]\nmax_query_time = '3s'\n"
    with running_up(tmp_path, config, *PANES) as up:
        first, (back,) = up.pid, up.back_pids()
        with Load(up, span_requests(3_000, seed=4), gap_s=0.4, senders=1) as load:
            asking = Asking(up, STUCK)
            assert_goes_on(up, first, back, load)
        asking.join()
        said = up.said()
        assert "over console.max_query_time, and does not end) and are started again" in said
        assert up.stop() == 0


def test_a_query_that_does_not_end_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with running_up(tmp_path, CONFIG, *PANES) as up:
        (back,) = up.back_pids()
        with Load(up, span_requests(1_000, seed=5)) as load:
            load.finish()
        asking, before = Asking(up, STUCK), cpu_s(back)
        eventually(lambda: cpu_s(back) > before + 1, "the query runs")
        assert up.stop() == 0
        asking.join()
        assert any(
            way in up.said()
            for way in ("a query does not end when it is interrupted", "did not end within 10 s")
        )
        assert not alive(back)
        up.start()
        assert_accounted_for(up, load.acknowledged)


def test_the_kernels_out_of_memory_killer_takes_the_second_process_alone(tmp_path: Path) -> None:
    config = f"{CONFIG}\n[console]\nmax_query_memory = '8GiB'\n"
    with running_up(tmp_path, config, *PANES) as up:
        first, (back,) = up.pid, up.back_pids()
        with (
            limited_memory(back, SPARE_BYTES) as limit,
            Load(up, span_requests(3_000, seed=6), gap_s=0.4, senders=1) as load,
        ):
            asking = Asking(up, GREEDY)
            assert_goes_on(up, first, back, load)
            assert limit.kills() == 1
        asking.join()
        assert "processing and SQL ended (killed by SIGKILL) and are started again" in up.said()
        assert up.stop() == 0
