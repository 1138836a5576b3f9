"""What each test file costs, as a pytest plugin and a program that adds up.

``.venv/bin/python -m pytest -p tests.cost --cost /tmp/cost.jsonl ...`` appends a line for each test: wall
seconds, and CPU seconds of the test's process and of those that it started and waited for. With ``-n``
each worker appends its own. ``python -m tests.cost /tmp/cost.jsonl`` prints the sums by file, dearest first.

What a fixture of the session started (a broker, a store) is not among a file's CPU seconds while it runs.
"""

import json
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cost", type=Path, help="file that gets a line of JSON for each test")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    file: Path | None = item.config.getoption("--cost")
    began_s, cpu_s = time.monotonic(), _cpu_s()
    result = yield
    if file is not None:
        line = {"test": item.nodeid, "wall_s": time.monotonic() - began_s, "cpu_s": _cpu_s() - cpu_s}
        with file.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
    return result


def _cpu_s() -> float:
    """User and system time of this process and of its children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(file: str) -> None:
    """Print the table."""
    files: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for line in map(json.loads, Path(file).read_text().splitlines()):
        sums = files[line["test"].partition("::")[0]]
        for index, value in enumerate((1, line["cpu_s"], line["wall_s"])):
            sums[index] += value
    files["all"] = [sum(column) for column in zip(*files.values(), strict=True)]
    print(f"{'tests':>6} {'CPU s':>8} {'wall s':>8}")
    for name, (tests, cpu_s, wall_s) in sorted(files.items(), key=lambda one: -one[1][1]):
        print(f"{tests:6.0f} {cpu_s:8.1f} {wall_s:8.1f}  {name}")


if __name__ == "__main__":
    main(sys.argv[1])
