"""How the first process of ``up`` treats a second one that crashes, hangs, lies or ends: programs that do
so.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from log.sqlite.dead_letters import SqliteDeadLetters
from log.sqlite.retention import Limits
from log.sqlite.writer import SqliteLogWriter
from meshflow.run.back_process import COMMAND, BackProcess, StartFailed
from meshflow.settings import load
from meshflow.wiring import migrate
from schemas.errors import LogDamaged, LogVanished, MeshflowError, ProcessingFailed

SAY = """
import json, os, signal, sys, time
from pathlib import Path
def say(what, **more):
    os.write(1, json.dumps({"say": what, **more}).encode() + b"\\n")
lives = Path(os.environ["TMPDIR"]).parent / "lives"
with lives.open("a") as file:
    file.write("x")
life = len(lives.read_text())
def live():
    say("ready")
    while True:
        say("alive")
        time.sleep(0.2)
"""


@asynccontextmanager
async def running(
    folder: Path, script: str = "", stop_s: float = 30.0, ready_s: float = 60.0, silent_s: float = 2.0
) -> AsyncIterator[BackProcess]:
    """``script`` "": the real second process."""
    settings = load(options={("storage", "data"): str(folder)}, environ={}).settings
    lock = os.open(folder / "lock", os.O_CREAT)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        back = BackProcess(
            settings,
            listener,
            lock,
            lambda: b"ours 1\n",
            command=(sys.executable, "-c", SAY + script) if script else COMMAND,
            silent_s=silent_s,
            ready_s=ready_s,
            stop_s=stop_s,
        )
        try:
            yield back
        finally:
            await back.stop()
            os.close(lock)


async def happens(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not what():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)


async def second_life(back: BackProcess, caplog: pytest.LogCaptureFixture) -> None:
    await happens(lambda: "are there again" in caplog.text)
    assert not back.task.done()


@pytest.mark.parametrize(
    ("first_life", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGABRT)", "killed by SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGBUS)", "killed by SIGBUS"),
        ("os._exit(75)", "exit code 75"),
        (
            "say('failed', kind='QueryStuck', reason='a query does not end'); os._exit(75)",
            "a query does not end",
        ),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "it did not answer for 2 s"),
        ("os.write(1, b'no JSON\\n'); time.sleep(60)", "it said what is not understood"),
        ("os.write(1, b'[1]\\n'); time.sleep(60)", "it said what is not understood"),
        ("os.write(1, b'x' * 9000); time.sleep(60)", "it said what is not understood"),
        ("os.close(1); time.sleep(60)", "it said no more"),
    ],
)
async def test_a_process_that_dies_hangs_or_lies_is_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, first_life: str, reason: str
) -> None:
    script = f"if life == 1:\n    say('ready')\n    {first_life}\nlive()"
    async with running(tmp_path, script) as back:
        await second_life(back, caplog)
    ended = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert f"processing and SQL ended ({reason}" in ended.getMessage()
    assert "started again in 0.2 s; receivers and log go on" in ended.getMessage()
    assert (tmp_path / "lives").read_text() == "xx"


async def test_an_engine_that_hangs_while_it_opens_is_killed_and_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of the store that is a pipe without a writer: opening it waits, as for a disk that does not
    answer, in a thread of the real second process, which says that it is alive.
    """
    settings = load(options={("storage", "data"): str(tmp_path)}, environ={}).settings
    storage = settings.storage
    limits = Limits(storage.log_retention, storage.log_max_bytes)
    log = SqliteLogWriter(tmp_path / "log", storage.log_topics(), limits)
    letters = SqliteDeadLetters(tmp_path / "log", storage.dead_letters_max_bytes)
    await asyncio.to_thread(migrate, settings)
    file = tmp_path / "store" / "status"
    os.mkfifo(file)
    async with running(tmp_path, ready_s=10.0, silent_s=60.0) as back:
        await happens(lambda: "are started again" in caplog.text)
        file.unlink()
        await second_life(back, caplog)
    await letters.close()
    await log.close()
    ended = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert "processing and SQL ended (it was not ready within 1" in ended.getMessage()
    assert f"the engine hangs while it opens {tmp_path}" in ended.getMessage()


async def test_each_start_that_is_not_ready_in_time_has_twice_the_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = "while life < 3:\n    say('alive'); time.sleep(0.1)\nlive()"
    async with running(tmp_path, script, ready_s=1.0):
        await happens(lambda: caplog.text.count("it was not ready within") == 2)
    limits = [part[0] for part in caplog.text.split("it was not ready within ")[1:]]
    assert limits == ["1", "2"]


async def test_one_that_cannot_stay_is_started_again_ever_more_slowly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, "say('ready')"):
        await happens(lambda: "in 0.8 s" in caplog.text)
    waits = [
        record.getMessage().split(" again in ")[1][:5]
        for record in caplog.records
        if " again in " in record.msg
    ]
    assert waits[:3] == ["0.2 s", "0.4 s", "0.8 s"]


async def test_a_first_start_that_fails_ends_up_with_its_reason(tmp_path: Path) -> None:
    async with running(tmp_path, "say('failed', kind='SinkUnavailable', reason='the store is away')") as back:
        with pytest.raises(StartFailed, match=r"^the store is away$"):
            await back.task
    assert not back.ready.is_set()


async def test_passwords_in_the_environment_are_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHFLOW_CONSOLE__PASSWORD", "a secret")
    monkeypatch.setenv("MESHFLOW_DECODER", "auto")
    script = "(lives.parent / 'seen').write_bytes(Path('/proc/self/environ').read_bytes())\nlive()"
    async with running(tmp_path, script):
        await happens(lambda: (tmp_path / "seen").exists() and (tmp_path / "seen").stat().st_size > 0)
    seen = (tmp_path / "seen").read_bytes()
    assert b"MESHFLOW_DECODER=auto" in seen
    assert b"a secret" not in seen


async def test_one_that_crashes_at_each_start_is_given_up_with_advice(tmp_path: Path) -> None:
    async with running(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)") as back:
        with pytest.raises(StartFailed, match=r"ended 3 times .* killed by SIGSEGV.* say `meshflow repair`"):
            await back.task
    assert (tmp_path / "lives").read_text() == "xxx"


@pytest.mark.parametrize("kind", [LogDamaged, LogVanished])
async def test_damage_that_the_next_start_of_up_mends_ends_this_one(
    tmp_path: Path, kind: type[MeshflowError]
) -> None:
    script = f"say('ready'); say('failed', kind='{kind.__name__}', reason='start again')"
    async with running(tmp_path, script) as back:
        with pytest.raises(kind, match=r"^start again$"):
            await back.task


async def test_a_later_start_that_fails_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = "if life == 1:\n    say('ready')\nelif life == 2:\n    say('failed', kind='SinkUnavailable', reason='away')\nelse:\n    live()"
    async with running(tmp_path, script) as back:
        await second_life(back, caplog)
    assert "processing and SQL ended (away)" in caplog.text


async def test_an_error_that_cannot_be_mended_ends_up(tmp_path: Path) -> None:
    script = "say('ready'); say('failed', kind='ProcessingFailed', reason='no such table'); os._exit(70)"
    async with running(tmp_path, script) as back:
        with pytest.raises(ProcessingFailed, match=r"^no such table$"):
            await back.task
    assert (tmp_path / "lives").read_text() == "x"


async def test_one_that_does_not_end_when_asked_to_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN); live()", stop_s=1.0) as back:
        await _within(back.ready.wait())
    assert back.task.done()
    assert "did not end within 1 s and are killed" in caplog.text


async def test_it_is_asked_to_end_before_it_is_ready(tmp_path: Path) -> None:
    async with running(tmp_path, "time.sleep(600)") as back:
        await happens((tmp_path / "lives").exists)
    assert back.task.done()
    assert not back.ready.is_set()


async def test_it_gets_the_first_ones_metrics_and_the_listening_socket(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = """
import pickle, socket
start = pickle.load(sys.stdin.buffer)
assert socket.socket(fileno=start.listener).getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
say("exposition", number=7)
assert pickle.load(sys.stdin.buffer) == (7, b"ours 1\\n")
live()
"""
    async with running(tmp_path, script) as back:
        await _within(back.ready.wait())
    assert not caplog.records


async def _within(awaited: Awaitable[object]) -> None:
    async with asyncio.timeout(60):
        await awaited
