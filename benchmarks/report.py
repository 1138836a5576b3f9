"""Runs benchmark cases and prints them: each in a fresh process, one table, and with ``--json FILE`` a line
per case.

A program is a list of cases and one call::

    def decode_native(spans: int) -> Measurement:
        payloads = make_requests(spans, ...)            # preparation, not measured
        with measure(spans) as measurement:
            decode_spans(payloads)
        return measurement

    CASES = [Case("decode", "native", decode_native, {"spans": 1_000_000})]

    if __name__ == "__main__":
        main("Decode", CASES)

``benchmarks.run`` joins the ``CASES`` of all programs.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table


@dataclass(slots=True)
class Measurement:
    """What a case took; :func:`measure` fills it in."""

    spans: int
    cpu_s: float = 0.0
    """User + system CPU seconds of the measured process (all of its threads) and its finished children."""
    wall_s: float = 0.0
    peak_rss_mib: float = 0.0
    """Peak resident memory during the measured part, whatever was held before it (the input) included."""
    note: str = ""
    """What the figures leave out or what else is worth knowing, printed under the table."""


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table. ``run(**arguments)`` must be a module's function: a fresh process imports and
    calls it.
    """

    case: str
    """What is done: ``decode``, ``split``, ``end to end, 100 services``."""
    system: str
    """What does it: ``native``, ``reference``, ``meshflow``."""
    run: Callable[..., Measurement]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """A case's result, as ``--json`` writes it."""

    case: str
    system: str
    spans: int
    cpu_s_per_million: float
    rate_per_s: float
    peak_rss_mib: float


@contextmanager
def measure(spans: int) -> Iterator[Measurement]:
    """Measure the body of a ``with``: CPU, wall time and peak memory of this process, for ``spans`` spans."""
    measurement = Measurement(spans)
    _forget_peak_rss()
    cpu_before_s, wall_before_s = _cpu_s(), time.perf_counter()
    yield measurement
    measurement.wall_s = time.perf_counter() - wall_before_s
    measurement.cpu_s = _cpu_s() - cpu_before_s
    measurement.peak_rss_mib = peak_rss_mib()


def peak_rss_mib(pid: int | str = "self") -> float:
    """A process's peak resident memory (``VmHWM``) in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    return kib / 1024


def main(title: str, cases: Sequence[Case], argv: Sequence[str] | None = None) -> None:
    """Command line of a benchmark program: run ``cases``, print the table, write ``--json FILE``."""
    parser = argparse.ArgumentParser(
        description=f"{title}: CPU seconds per million spans, rate, peak memory."
    )
    parser.add_argument(
        "--json", type=argparse.FileType("w"), metavar="FILE", help="write a line of JSON for each case"
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only cases whose name or system contains TEXT"
    )
    options = parser.parse_args(argv)
    chosen = [case for case in cases if options.only in f"{case.case} {case.system}"]
    if not run_cases(title, chosen, options.json):
        sys.exit(1)


def run_cases(title: str, cases: Sequence[Case], json_file: TextIO | None = None) -> bool:
    """Run each case in a process of its own and print the table as it stands at the end; False when a case
    failed.
    """
    console = Console(stderr=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 120)
    table = Table(title=title, title_justify="left")
    for column in ("case", "system"):
        table.add_column(column)
    for column in ("spans", "CPU s / 1M", "spans / s", "peak MiB"):
        table.add_column(column, justify="right")
    notes: list[str] = []
    sound = True
    for case in cases:
        console.print(f"[dim]{case.case}, {case.system} ...[/dim]")
        try:
            measurement = _run_alone(case)
        except Exception as error:  # a case that cannot run here must not take the others' results with it
            table.add_row(case.case, case.system, "-", f"[red]{type(error).__name__}[/red]", "-", "-")
            notes.append(f"{case.case}, {case.system}: {error}")
            sound = False
            continue
        line = _line(case, measurement)
        table.add_row(
            line.case,
            line.system,
            f"{line.spans:,}",
            f"{line.cpu_s_per_million:.2f}",
            f"{line.rate_per_s:,.0f}",
            f"{line.peak_rss_mib:,.0f}",
        )
        if measurement.note:
            notes.append(f"{case.case}, {case.system}: {measurement.note}")
        if json_file is not None:
            json_file.write(json.dumps(asdict(line)) + "\n")
            json_file.flush()
    output = Console(width=None if sys.stdout.isatty() else 120)
    output.print(table)
    for note in notes:
        output.print(note, markup=False)
    return sound


def _line(case: Case, measurement: Measurement) -> Line:
    return Line(
        case=case.case,
        system=case.system,
        spans=measurement.spans,
        cpu_s_per_million=round(measurement.cpu_s / measurement.spans * 1e6, 3),
        rate_per_s=round(measurement.spans / measurement.wall_s, 1),
        peak_rss_mib=round(measurement.peak_rss_mib, 1),
    )


def _run_alone(case: Case) -> Measurement:
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(case.run, **case.arguments).result()


def _cpu_s() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _forget_peak_rss() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): 5 resets VmHWM to what is resident now
    except OSError:
        return  # not allowed in some containers: the peak then includes the preparation
