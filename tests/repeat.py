"""Looks for tests that fail now and then: runs files again and again while the machine is busy.

``python -m tests.repeat --times 10 [files]`` runs each file ten times (default: every file that starts
processes or waits for something), two at once, beside two loops that take all the CPU they get; ``--minutes``
ends earlier. It prints each run as it ends, then how often each file was run, and which tests ever failed.
The output of runs that failed is kept. The order is random; its seed is printed.
"""

import argparse
import random
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
WAITS = re.compile(
    r"subprocess|sleep\(|eventually|until\(|wait_for|Timeout"
    r"|tests\.e2e|tests\.support\.(up|served|kafka|store_server|collector|receiving|load|mesh)|fixture.*server"
)
"""What a file has in it that starts processes, or waits."""


class Run(NamedTuple):
    """One run of one file."""

    file: str
    seconds: float
    failed: tuple[str, ...]
    """Names of the tests that failed; the file's where it could not be run at all."""


def chosen_files() -> list[str]:
    """The files that may fail now and then: those that start processes, or wait."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if WAITS.search(file.read_text())]


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Processes that do nothing, as fast as they can."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(loops)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def run(file: str, folder: Path, number: int) -> Run:
    """Run one file; its output stays in ``folder`` when something failed."""
    name = f"{number:04}-{Path(file).stem}"
    report, output = folder / f"{name}.xml", folder / f"{name}.txt"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", file]
    began_s = time.monotonic()
    with output.open("wb") as said:
        code = subprocess.run(command, cwd=ROOT, stdout=said, stderr=said, check=False).returncode
    failed = failures(report) if report.exists() else ()
    if code and not failed:
        failed = (file,)
    report.unlink(missing_ok=True)
    if not failed:
        output.unlink()
    return Run(file, time.monotonic() - began_s, failed)


def failures(report: Path) -> tuple[str, ...]:
    """Names of the tests that failed by a JUnit report."""
    cases = ET.parse(report).iter("testcase")
    return tuple(
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the files; how many tests ever failed."""
    parser = argparse.ArgumentParser(description="run test files again and again under load")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--busy", type=int, default=2, help="loops beside the tests")
    parser.add_argument("--at-once", type=int, default=2, help="files that run at the same time")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    parser.add_argument("files", nargs="*", help="default: those that start processes or wait")
    options = parser.parse_args(arguments)
    files = options.files or chosen_files()
    folder = Path(tempfile.mkdtemp(prefix="meshflow-repeat-"))
    print(f"{len(files)} files, {options.times} times, seed {options.seed}; see {folder}", flush=True)
    order = random.Random(options.seed)
    queue = [file for _ in range(options.times) for file in order.sample(files, len(files))]
    end_s = time.monotonic() + 60 * options.minutes
    runs: list[Run] = []

    def run_next(number: int) -> None:
        if time.monotonic() < end_s:
            runs.append(run(queue[number], folder, number))
            done = runs[-1]
            print(f"{done.seconds:7.1f} s  {done.file}  {', '.join(done.failed) or 'passed'}", flush=True)

    with busy(options.busy), ThreadPoolExecutor(options.at_once) as pool:
        list(pool.map(run_next, range(len(queue))))
    return summarise(runs)


def summarise(runs: Sequence[Run]) -> int:
    """Print how often each file was run and what failed; how many tests did."""
    times, failed = Counter(one.file for one in runs), Counter(name for one in runs for name in one.failed)
    for file, count in sorted(times.items()):
        print(f"{count:4} runs  {file}")
    for name, count in failed.most_common():
        print(f"{count:4} FAILED  {name}")
    print(f"{len(runs)} runs of {len(times)} files; tests that ever failed: {len(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(min(main(), 100))
