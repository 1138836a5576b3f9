"""A data folder of `up` with damaged files; what `up`, `meshflow query` and `meshflow repair` make of it."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from schemas.tables import SCHEMAS
from tests.support.damage import DAMAGES, Damage
from tests.support.up import KEEP_ALL, LONG_S, MESHFLOW, ROOT, Up, replay

PANES = ("--pane", "1s", "--wait", "1")
CONFIG = f"[processing]\npartitions = 1\n{KEEP_ALL}"
CAPTURE = ROOT / "tests/data/envoy/traces.bin.gz"
SPANS = 2195
LONGEST_LINE = 1_500


def remove(file: Path, _: Random) -> None:
    """Nothing is left."""
    file.unlink()


ALL_DAMAGES: tuple[Damage, ...] = (*DAMAGES, remove)


def make(folder: Path, *, killed: bool = False) -> Path:
    """A data folder with a log, some parts in each table, and how a stop (a kill) leaves them."""
    up = Up(folder, CONFIG, *PANES)
    try:
        up.start()
        for times in range(1, 3):
            replay(up, CAPTURE, options=("--now",))
            up.wait_for(times * SPANS)
    finally:
        up.kill() if killed else up.stop()
    return up.data


def files_of(data: Path, kind: str) -> list[Path]:
    """Files to damage: ``definitions``, ``parts`` or the ``rest`` of the store, or those of the ``log``."""
    found = sorted(path for path in data.rglob("*") if path.is_file() and not path.is_symlink())
    found = [path for path in found if path.stat().st_size and path.suffix not in {".lock", ".toml"}]
    if kind == "log":
        return [path for path in found if path.is_relative_to(data / "log") or path.name == "log.seen"]
    of_store = [path for path in found if path.is_relative_to(data / "store")]
    definitions = [path for path in of_store if path.suffix == ".sql"]
    parts = [path for path in of_store if any("_" in parent.name for parent in path.parents[:1])]
    parts = [path for path in parts if path.parent.name != "deduplication_logs"]
    rest = set(of_store) - set(definitions) - set(parts)
    return {"definitions": definitions, "parts": parts, "rest": sorted(rest)}[kind]


@dataclass
class Outcome:
    """How a start with damaged files went."""

    code: int | None
    """None: it runs."""
    said: str

    @property
    def last_line(self) -> str:
        """What an operator sees last."""
        return self.said.strip().splitlines()[-1]


class Damaged:
    """A copy of a data folder."""

    def __init__(self, made: Path, folder: Path) -> None:
        self.up = Up(folder, CONFIG, *PANES)
        shutil.copytree(made, self.up.data, symlinks=True)
        (self.up.data / "ports.json").unlink(missing_ok=True)

    def start(self, within_s: float = LONG_S) -> Outcome:
        """Start `up`, until it is ready or has ended."""
        log = self.up.folder / "up.log"
        log.unlink(missing_ok=True)
        self.up.launch()
        end_s = time.monotonic() + within_s
        process = self.up._process
        assert process is not None
        while process.poll() is None and not self.up.poll_ports():
            assert time.monotonic() < end_s, f"it neither starts nor ends: {self.said()}"
            time.sleep(0.1)
        return Outcome(process.poll(), self.said())

    def end(self) -> int:
        """Stop `up`, if it runs; its exit code."""
        return self.up.stop(signal.SIGTERM)

    def said(self) -> str:
        """All that this `up` logged."""
        return (self.up.folder / "up.log").read_text(errors="backslashreplace")

    def query(self, sql: str) -> Outcome:
        """Ask with the command, of the running `up` or at rest."""
        return self._call("query", sql, "--data", str(self.up.data))

    def repair(self) -> Outcome:
        """Say `meshflow repair`."""
        return self._call("repair", "--data", str(self.up.data))

    def read_all(self) -> list[Outcome]:
        """Every table of the running `up` is read, whole."""
        return [self.ask(f"SELECT count(), sum(cityHash64(*)) FROM {table}") for table in SCHEMAS]

    def ask(self, sql: str) -> Outcome:
        """Ask the running `up` over its SQL port."""
        try:
            return Outcome(0, str(self.up.sql(sql)))
        except AssertionError as error:
            return Outcome(1, f"meshflow: {error}")

    def _call(self, *arguments: str) -> Outcome:
        done = subprocess.run(
            [*MESHFLOW, *arguments], cwd=ROOT, capture_output=True, timeout=LONG_S, check=False
        )
        return Outcome(done.returncode, (done.stdout + done.stderr).decode(errors="backslashreplace"))


def assert_plain(outcome: Outcome, what: str) -> None:
    """No traceback, no exit code of a fault of ours, and where it ended, one line that says why."""
    assert "Traceback" not in outcome.said, f"{what}: {outcome.said}"
    assert outcome.code in {None, 0, 1}, f"{what}: exit {outcome.code}: {outcome.said}"
    if outcome.code == 1:
        assert outcome.last_line.startswith("meshflow: "), f"{what}: {outcome.said}"
        lines = [line for line in outcome.said.splitlines() if line.startswith("meshflow: ")]
        assert len(lines) == 1, f"{what}: {outcome.said}"
        assert len(lines[0]) < LONGEST_LINE, f"{what}: {lines[0]}"


def trial(made: Path, folder: Path, seed: int, report: Callable[[str], None] = print) -> None:
    """Damage a file or two at rest or under a running `up`; look at all that follows."""
    chance = Random(seed)
    damaged = Damaged(made, folder)
    running = chance.random() < 0.3
    what = f"seed {seed}{', running' if running else ''}"
    try:
        if running:
            assert damaged.start().code is None
        for _ in range(chance.choice((1, 1, 2))):
            kind = chance.choice(("definitions", "parts", "parts", "rest", "log", "log"))
            file, damage = chance.choice(files_of(damaged.up.data, kind)), chance.choice(ALL_DAMAGES)
            damage(file, chance)
            what += f", {damage.__name__} {file.relative_to(damaged.up.data)}"
        if running:
            _look(damaged, what)
        first = damaged.start()
        assert_plain(first, what)
        if first.code is None:
            _look(damaged, what)
        else:
            assert_plain(damaged.query("SELECT count() FROM red"), what)
        repaired = damaged.repair()
        assert_plain(repaired, what)
        again = damaged.start()
        assert_plain(again, what)
        assert (again.code is None) or repaired.code == 1, f"{what}: not repaired: {again.said}"
        report(f"{what}: {first.code}, {repaired.code}, {again.code}: {first.last_line[:200]}")
    finally:
        damaged.up.stop(signal.SIGKILL)


def _look(damaged: Damaged, what: str) -> None:
    """Ask for everything, send something, and end."""
    for outcome in damaged.read_all():
        assert_plain(outcome, what)
    sent = subprocess.run(
        [*MESHFLOW, "replay", str(CAPTURE), "--target", damaged.up.grpc, "--speed", "0", "--now"],
        cwd=ROOT,
        capture_output=True,
        timeout=LONG_S,
        check=False,
    )
    assert sent.returncode in {0, 1}, f"{what}: {sent.stderr.decode()}"
    code = damaged.end()
    assert_plain(Outcome(code, damaged.said()), what)
