"""Every benchmark, one table: ``python -m benchmarks.run [--json FILE] [--only TEXT]`` (``make bench``), at
most ten minutes.
"""

from benchmarks import decode, end_to_end, fleet, insert, points, process
from benchmarks.report import main

CASES = [*decode.CASES, *points.CASES, *fleet.CASES, *process.CASES, *insert.CASES, *end_to_end.CASES]

if __name__ == "__main__":
    main("meshflow", CASES)
