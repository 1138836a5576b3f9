"""meshflow beside the OpenTelemetry Collector and Rotel: ``python -m benchmarks.peers.run`` (``make
bench-peers``), see docs/peers.md.
"""

import argparse
import resource
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.peers import cases, loader, rotel
from benchmarks.report import Case, run_cases
from tests.support.collector import build as collector
from tests.support.kafka import broker


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: build what is missing, make the load, run the cases, print the table."""
    parser = argparse.ArgumentParser(
        description="CPU seconds per million spans, rate and peak memory of meshflow and its peers."
    )
    parser.add_argument(
        "--json", type=argparse.FileType("w"), metavar="FILE", help="write a line of JSON for each case"
    )
    parser.add_argument(
        "--cases",
        default="",
        metavar="TEXT,...",
        help="only cases whose name or system has one of these texts in it",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=7.0,
        help="how long a case sends at most (paced ones three times as long)",
    )
    parser.add_argument("--spans", type=int, default=1_000_000, help="how many spans a case sends at most")
    parser.add_argument("--services", type=int, default=100)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="meshflow-peers-load-") as folder, ExitStack() as parts:
        plan = cases.Plan(Path(folder), "", options.seconds)
        chosen = _possible(
            [case for case in cases.cases(plan) if _matches(f"{case.case} {case.system}", options.cases)]
        )
        _allow_many_connections()
        if any(case.arguments["job"] == "kafka" for case in chosen):
            kafka = parts.enter_context(broker.Cluster(Path(folder) / "kafka"))
            chosen = [
                replace(case, arguments={**case.arguments, "kafka": kafka.bootstrap}) for case in chosen
            ]
        for size, spans in cases.SIZES.items():
            if any(case.arguments["load"] == str(cases.load_file(plan.folder, size)) for case in chosen):
                loader.write_load(cases.load_file(plan.folder, size), options.spans, spans, options.services)
        sound = run_cases("meshflow and its peers", chosen, options.json)
    sys.exit(not sound)


def _possible(chosen: Sequence[Case]) -> list[Case]:
    """Build what cases need. Without Rotel, which is not to be had for every machine, its cases are left out;
    without the rest, an exit.
    """
    systems, jobs = {case.system for case in chosen}, {case.arguments["job"] for case in chosen}
    reasons = [
        loader.missing(),
        collector.missing() if "collector" in systems else "",
        broker.missing() if "kafka" in jobs else "",
    ]
    if absent := [reason for reason in reasons if reason]:
        sys.exit("\n".join(absent))
    loader.build()
    if "collector" in systems:
        collector.build()
    try:
        if "rotel" in systems:
            rotel.install()
    except RuntimeError as error:
        print(f"without Rotel: {error}", file=sys.stderr)
        return [case for case in chosen if case.system != "rotel"]
    return list(chosen)


def _matches(case: str, texts: str) -> bool:
    wanted = [text.strip() for text in texts.split(",") if text.strip()]
    return not wanted or any(text in case for text in wanted)


def _allow_many_connections() -> None:
    """As many open files as may be, for this process and those it starts."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
