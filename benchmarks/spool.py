"""What ingest's spool costs a MB of OTLP: ``python -m benchmarks.spool [--mb 200] [--folder DIR]``.

A gather window of 50 ms at 50,000 spans/s is 2,500 spans: one record for each of 8 partitions, one append,
one fsync. CPU time is this process's and the kernel's for it (getrusage); fsync waits for the disk, which the
last column has.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.load import make_requests
from log.spool.drain import CHUNK_BYTES
from log.spool.format import NEVER_SENT
from log.spool.spool import Spool
from schemas.otlp import split
from schemas.records import Append, TopicPartition
from schemas.topics import SPANS

_PARTITIONS = 8
_SPANS_A_WINDOW = 2_500


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="cost of ingest's spool")
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument(
        "--folder",
        type=Path,
        default=None,
        help="on the disk that is to be measured [default: the temporary folder]",
    )
    options = parser.parse_args()
    windows = [
        _appends(request) for request in make_requests(20 * _SPANS_A_WINDOW, 100, 10, _SPANS_A_WINDOW, seed=1)
    ]
    size = sum(len(append.value) for appends in windows for append in appends)
    rounds = max(1, options.mb * 1_000_000 // size)
    mb = rounds * size / 1e6
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        spool = Spool(Path(folder) / "spool", 1 << 40)

        def fill() -> None:
            for _ in range(rounds):
                for appends in windows:
                    spool.append(appends, [os.urandom(16) for _ in appends], [NEVER_SENT] * len(appends))

        def drain() -> None:
            while spool.entries:
                chunk = spool.peek(CHUNK_BYTES)
                spool.note_sending(chunk.until, {})
                spool.drop(chunk)

        print(f"{mb:.0f} MB of OTLP in {rounds * len(windows)} appends of {_PARTITIONS} records")
        _measure("into the spool", mb, fill)
        print(f"on disk: 1 / {mb * 1e6 / spool.size_bytes:.1f} of it")
        _measure("out of it (to decoded appends)", mb, drain)
        spool.close()


def _appends(request: bytes) -> list[Append]:
    return [
        Append(TopicPartition(SPANS, partition), part)
        for partition, part in split(SPANS, request, _PARTITIONS).parts.items()
    ]


def _measure(what: str, mb: float, work: Callable[[], None]) -> None:
    cpu_s, wall_s = time.process_time(), time.monotonic()
    work()
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    print(f"{what}: {cpu_s * 1e3 / mb:.2f} ms of CPU a MB, {wall_s * 1e3 / mb:.2f} ms with the disk")


if __name__ == "__main__":
    main()
