"""The distributed system under faults: brokers, receivers, workers and the store are killed and paused, all
under load.

``python -m tests.e2e.faults.faults --minutes 30`` goes on for so long and then compares, as the test does
with each kind of fault once.
"""

import argparse
import asyncio
import os
import tempfile
import time
from functools import partial
from pathlib import Path

from tests.e2e.faults.fault_check import compare
from tests.e2e.faults.fault_fleet import FaultedFleet
from tests.e2e.faults.fault_load import Senders
from tests.e2e.faults.fault_plan import FAULTS, make_plan

SPANS_PER_S = 2_000
MOST_ENDS = 2.0
"""How often a process may end by itself for each fault: a worker that starts while its database is away does,
every few seconds.
"""

DATA = Path(__file__).parents[2] / "data/envoy"
CAPTURES = [DATA / "logs.bin.gz", DATA / "metrics.bin.gz"]


async def run(
    folder: Path, seed: int, *, faults: int = FAULTS, minutes: float = 0.0, loudly: bool = False
) -> str:
    """Faults under load (``minutes``: as many as that takes), then the comparison; what there was, in a line.
    Raises AssertionError.
    """
    print(f"faults of seed {seed}", flush=True)
    fleet = FaultedFleet(folder, partial(print, flush=True) if loudly else lambda _: None)
    try:
        return await _run(fleet, seed, faults, minutes)
    except BaseException:
        print(fleet.explain("what happened:"), flush=True)
        raise


async def _run(fleet: FaultedFleet, seed: int, faults: int, minutes: float) -> str:
    async with fleet:
        with Senders(fleet.targets, SPANS_PER_S, seed, CAPTURES) as load:
            end_s = time.monotonic() + 60 * minutes
            done = 0
            while done == 0 or time.monotonic() < end_s:
                await fleet.suffer(make_plan(seed + done, faults))
                done += faults
            load.finish()
            await fleet.until(lambda: load.finished, "every request that was begun is acknowledged")
            acknowledged = load.acknowledged()
            fleet.report(f"{len(acknowledged)} spans acknowledged, {load.resent} requests were sent again")
        counts = await compare(fleet, acknowledged)
        assert not fleet.unexpected, fleet.unexpected
        ends = f"{fleet.ended_by_itself} processes ended by themselves in {done} faults"
        assert fleet.ended_by_itself <= MOST_ENDS * done, f"{ends}: some of them do nothing else"
        return f"{done} faults, seed {seed}, {fleet.seconds:.0f} s, {fleet.ended_by_itself} ended by themselves: {counts}"


def main() -> None:
    """A soak, or one run by hand."""
    parser = argparse.ArgumentParser(description="meshflow under faults")
    parser.add_argument("--minutes", type=float, default=0.0, help="default: 30 faults")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    parser.add_argument(
        "--folder", type=Path, help="where data and logs go; default: a temporary one, which stays"
    )
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="meshflow-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"data and logs are in {folder}")
    print(asyncio.run(run(folder, options.seed, minutes=options.minutes, loudly=True)))


if __name__ == "__main__":
    main()
