"""The engine's code leaves memory once it has started, and comes back as far as it is run."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import re, sys
from pathlib import Path
from storage import embedded
from storage.engine_code import forget_code

def resident_mib():
    text = Path("/proc/self/smaps").read_text()
    found = re.findall(r" r-xp [^\\n]*_chdb[^\\n]*\\n(?:Size|KernelPageSize|MMUPageSize)[^$]*?Rss: +([0-9]+)", text)
    return sum(map(int, found)) / 1024

connection = embedded.connect(sys.argv[1])
connection.query("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
connection.query("INSERT INTO t SELECT number FROM numbers(100000)")
before = resident_mib()
mapped = forget_code()
after = resident_mib()
assert mapped > 1 << 20, mapped
assert before > 20 and after < before / 2, (before, after)
connection.query("OPTIMIZE TABLE t FINAL")
assert connection.query("SELECT sum(a) FROM t", "TSV").bytes() == b"4999950000\\n"
assert resident_mib() < before, (before, resident_mib())
"""


def test_the_engine_works_after_its_code_was_forgotten(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
