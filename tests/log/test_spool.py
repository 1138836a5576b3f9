"""The spool on disk: order, limits, crashes at any byte, damage, full disks."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from log.spool import spool as spool_module
from log.spool.format import NEVER_SENT
from log.spool.spool import Spool, SpoolLocked
from schemas.errors import LogUnavailable
from schemas.records import Append, TopicPartition
from schemas.topics import LOGS, SPANS
from tests.support.examples import examples

A = TopicPartition(SPANS, 0)
B = TopicPartition(LOGS, 3)
ALL = 1 << 40
MIB = 1 << 20


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is killed here is a process: the kernel keeps what it wrote. A busy disk would take minutes."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def put(spool: Spool, *values: bytes, tp: TopicPartition = A, since: int = NEVER_SENT) -> None:
    spool.append(
        [Append(tp, value) for value in values], [value[:16] for value in values], [since] * len(values)
    )


def drain(spool: Spool, max_bytes: int = ALL) -> list[bytes]:
    chunk = spool.peek(max_bytes)
    spool.drop(chunk)
    return [entry.append.value for entry in chunk.entries]


def test_entries_come_back_whole_and_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", MIB)
    spool.append(
        [Append(A, b"a" * 1000, {"rejected": 3}, {"tenant": "t"}), Append(B, b"")],
        [b"1" * 16, b"2" * 16],
        [7, NEVER_SENT],
    )
    put(spool, b"c")
    first, second, third = spool.peek(ALL).entries
    assert first.append == Append(A, b"a" * 1000, {"rejected": 3}, {"tenant": "t"})
    assert (first.number, first.id, first.since) == (0, b"1" * 16, 7)
    assert (second.append, second.id, second.since) == (Append(B, b""), b"2" * 16, NEVER_SENT)
    assert (third.append.value, third.number) == (b"c", 2)
    assert spool.oldest_time_ns == first.time_ns > 0
    assert spool.entries == 3
    spool.close()


def test_an_append_returns_when_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, MIB)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
    put(spool, b"1")
    assert synced[-1] == spool.size_bytes > 0
    assert len(synced) == 2, "its name too"
    spool.close()


def test_what_is_drained_is_gone_from_the_disk_also_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    put(spool, b"1", b"2", b"3")
    assert drain(spool, 1) == [b"1"]
    assert drain(spool, 2) == [b"2", b"3"]
    assert (spool.size_bytes, spool.entries, spool.oldest_time_ns) == (0, 0, 0)
    assert not list(tmp_path.glob("*.spool"))
    put(spool, b"4")
    spool.close()
    spool = Spool(tmp_path, MIB)
    assert [entry.number for entry in spool.peek(ALL).entries] == [3]
    assert drain(spool) == [b"4"]
    spool.close()


def test_a_full_spool_takes_nothing_but_counts_of_what_was_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 100_000)
    for _ in range(8):
        put(spool, os.urandom(12_000))
    with pytest.raises(LogUnavailable, match=r"is full \([0-9,]+ of 100,000 bytes, spool.max_size\)"):
        put(spool, os.urandom(12_000))
    assert 50_000 < spool.size_bytes <= 100_000
    before = spool.entries
    spool.append([Append(A, b"", {"refused": 5})], [b"x"], [NEVER_SENT])
    assert spool.entries == before + 1
    with pytest.raises(LogUnavailable, match="is full"):
        put(spool, os.urandom(100_000))
    drain(spool)
    put(spool, b"again")
    spool.close()


def test_segments_go_when_they_are_drained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 1000)
    spool = Spool(tmp_path, MIB)
    values = [os.urandom(300) for _ in range(40)]
    for value in values:
        put(spool, value)
    assert len(list(tmp_path.glob("*.spool"))) > 8
    drained = []
    for left in range(40, 0, -1):
        drained += drain(spool, 1)
        assert spool.entries == left - 1
    assert drained == values
    assert not list(tmp_path.glob("*.spool"))
    spool.close()


def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    with pytest.raises(SpoolLocked, match="in use by another process"):
        Spool(tmp_path, MIB)
    spool.close()
    Spool(tmp_path, MIB).close()


def test_a_folder_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogUnavailable, match="cannot be used"):
        Spool(tmp_path / "file" / "spool", MIB)


def test_what_was_being_sent_is_known_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    put(spool, b"1", b"2", b"3")
    spool.note_sending(2, {A: 41, B: 0})
    spool.close()
    spool = Spool(tmp_path, MIB)
    assert (spool.progress.drained, spool.progress.sent, spool.progress.ends) == (0, 2, {A: 41, B: 0})
    spool.close()


def test_without_its_progress_all_of_it_may_have_been_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path, MIB)
    put(spool, b"1", b"2")
    assert drain(spool, 1) == [b"1"]
    spool.close()
    (tmp_path / "progress").write_bytes(os.urandom(100_000))
    spool = Spool(tmp_path, MIB)
    assert spool.progress.sent == 2
    assert spool.progress.ends == {}
    assert drain(spool) == [b"1", b"2"]
    spool.close()


@pytest.mark.parametrize("at", range(0, 700, 13))
def test_damage_takes_the_entries_it_is_in_and_no_other(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 400)
    spool = Spool(tmp_path, MIB)
    values = [bytes([number]) * 3 + os.urandom(20) for number in range(10)]
    for value in values:
        put(spool, value)
    put(spool, b"the newest segment is not touched: its end would be taken for what a crash left")
    spool.close()
    files = sorted(tmp_path.glob("*.spool"))
    for file in files[:-1]:
        data = bytearray(file.read_bytes())
        if at < len(data):
            data[at] ^= 0xFF
            file.write_bytes(data)
            break
        at -= len(data)
    else:
        raise AssertionError("beyond the end")
    spool = Spool(tmp_path, MIB)
    chunk = spool.peek(ALL)
    survivors = [entry.append.value for entry in chunk.entries][:-1]
    assert len(survivors) == 9
    assert survivors == [value for value in values if value in survivors]
    assert chunk.lost == 1
    spool.drop(chunk)
    assert (spool.lost, spool.entries) == (1, 0)
    spool.close()


DISK_FULL = """
import resource, sys
from pathlib import Path
from log.spool.spool import Spool
from log.spool.format import NEVER_SENT
from schemas.errors import LogUnavailable
from schemas.records import Append, TopicPartition

resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
spool = Spool(Path(sys.argv[1]), 1 << 30)
noise, taken = Path("/dev/urandom").open("rb"), 0
try:
    while True:
        spool.append([Append(TopicPartition("otlp_spans", 0), noise.read(50_000))], [b"%d" % taken], [NEVER_SENT])
        taken += 1
except LogUnavailable as error:
    print(error)
assert spool.entries == taken, (spool.entries, taken)
chunk = spool.peek(1)
spool.note_sending(1, {})
spool.drop(chunk)
print(taken - 1, "left")
"""


def test_a_full_disk_is_an_error_and_what_was_taken_before_stays(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be written: File too large" in done.stdout
    spool = Spool(tmp_path, 1 << 30)
    assert f"{len(drain(spool))} left" in done.stdout
    spool.close()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 600_000


Files = dict[str, bytes]


def read_files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_files(folder: Path, files: Files) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)


@examples(30, stateful_step_count=30)
class SpoolMachine(RuleBasedStateMachine):
    """Appends, drains and crashes, where a crash leaves any prefix of what the step it hits was writing."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="meshflow-spool-"))
        self.segment_bytes = spool_module.SEGMENT_BYTES
        spool_module.SEGMENT_BYTES = 700
        self.spool = Spool(self.folder, 1 << 40)
        self.waiting: list[bytes] = []
        self.serial = 0

    def values(self, sizes: list[int]) -> list[bytes]:
        made = []
        for size in sizes:
            self.serial += 1
            made.append(b"%06d" % self.serial + os.urandom(size))
        return made

    @rule(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=4))
    def append(self, sizes: list[int]) -> None:
        made = self.values(sizes)
        put(self.spool, *made)
        self.waiting += made

    @rule(max_bytes=st.integers(1, 1000))
    def drain(self, max_bytes: int) -> None:
        chunk = self.spool.peek(max_bytes)
        self.spool.note_sending(chunk.until, {A: 1})
        self.spool.drop(chunk)
        drained = [entry.append.value for entry in chunk.entries]
        assert drained == self.waiting[: len(drained)]
        assert drained or not self.waiting
        del self.waiting[: len(drained)]

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.spool = Spool(self.folder, 1 << 40)

    @rule(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=4), share=st.floats(0, 1))
    def crash_while_appending(self, sizes: list[int], share: float) -> None:
        made = self.values(sizes)
        self._crash(lambda: put(self.spool, *made), share)
        found = self._values()
        assert found[: len(self.waiting)] == self.waiting, "what was durable is there, in order"
        extra = found[len(self.waiting) :]
        assert extra == made[: len(extra)], "of what was being written, a beginning"
        self.waiting = found

    @precondition(lambda self: self.waiting)
    @rule(max_bytes=st.integers(1, 1000), share=st.floats(0, 1))
    def crash_while_draining(self, max_bytes: int, share: float) -> None:
        chunk = self.spool.peek(max_bytes)
        self.spool.note_sending(chunk.until, {A: 5})
        self._crash(lambda: self.spool.drop(chunk), share)
        found = self._values()
        assert found in (self.waiting, self.waiting[len(chunk.entries) :])
        if found == self.waiting:
            assert self.spool.progress.sent >= chunk.until, "what may have been sent is known"
            assert self.spool.progress.ends == {A: 5}
        self.waiting = found

    def _crash(self, step: Callable[[], None], share: float) -> None:
        before = read_files(self.folder)
        step()
        self.spool.close()
        write_files(self.folder, torn(before, read_files(self.folder), share))
        self.spool = Spool(self.folder, 1 << 40)

    def _values(self) -> list[bytes]:
        return [entry.append.value for entry in self.spool.peek(ALL).entries]

    @invariant()
    def nothing_is_called_damaged(self) -> None:
        assert self.spool.lost == 0
        assert self.spool.entries == len(self.waiting)

    def teardown(self) -> None:
        assert self._values() == self.waiting
        self.spool.close()
        spool_module.SEGMENT_BYTES = self.segment_bytes
        shutil.rmtree(self.folder)


def torn(before: Files, after: Files, share: float) -> Files:
    """``share`` of the bytes that a step wrote, in the order of names (progress before segments), then of
    what it removed.
    """
    progress = after["progress"]
    changed = (
        [at for at in range(len(progress)) if progress[at] != before["progress"][at]]
        if progress != before["progress"]
        else []
    )
    grown = {
        name: data for name, data in after.items() if name.endswith(".spool") and data != before.get(name)
    }
    removed = [name for name in before if name not in after]
    budget = int(
        share
        * (
            len(changed)
            + sum(len(data) - len(before.get(name, b"")) for name, data in grown.items())
            + len(removed)
            + 1
        )
    )
    files = dict(before)
    patched = bytearray(before["progress"])
    for at in changed[:budget]:
        patched[at] = progress[at]
    files["progress"] = bytes(patched)
    budget -= len(changed)
    for name, data in sorted(grown.items()):
        old = before.get(name, b"")
        if budget >= 0:
            files[name] = data[: len(old) + budget]
        budget -= len(data) - len(old)
    for name in sorted(removed):
        if budget > 0:
            del files[name]
        budget -= 1
    return files


TestSpoolMachine = SpoolMachine.TestCase
