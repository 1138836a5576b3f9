"""What a data point of a fleet of sidecars costs: decode, families, increments, labels of what gained.

Sidecars are the five captured Envoys (``tests/data/envoy``) under other names: each sends a flush every 10 s,
half of them in each pane of 5 s, values as captured. ``decode``: a pane's requests to a PointBatch.
``families``: the family of each point by its metric's name, and where labels stand. ``increments``: of all
counters that a family claims, against the last points of the lookback. ``labels``: the texts of the points
that gained something. ``all``: the four together. The first two flushes of each sidecar are not measured.
"""

import struct
from collections import defaultdict
from contextlib import nullcontext

import numpy as np

from benchmarks.decode import captured
from benchmarks.report import Case, Measurement, main, measure
from processors.points.claims import Claims
from processors.points.increments import increments
from processors.points.last_points import NOTHING_KNOWN
from processors.slots import PaneTime
from schemas import otlp

PANE_NS = 5_000_000_000
FIRST_PANE = 359_000_000
LOOKBACK = 36
WARM_PANES = 4
PARTS = ("decode", "families", "increments", "labels", "all")


class Fleet:
    """So many sidecars' flushes, pane by pane."""

    def __init__(self, sidecars: int, first_pane: int = FIRST_PANE) -> None:
        self.sidecars = sidecars
        self.first_pane = first_pane
        flushes: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
        for request in captured("metrics"):
            batch = otlp.decode_points([request])
            (attributes,) = batch.contexts.resources["attributes"].to_pylist(maps_as_pydicts="strict")
            flushes[attributes["service.instance.id"]].append((request, batch.points["time_ns"][0].as_py()))
        self._flushes = [(name.encode(), of[10:]) for name, of in sorted(flushes.items())]

    def pane(self, number: int) -> list[bytes]:
        """The requests of one pane."""
        time_ns = struct.pack("<Q", (self.first_pane + number) * PANE_NS + 1)
        requests = []
        for sidecar in range(number % 2, self.sidecars, 2):
            name, flushes = self._flushes[sidecar % len(self._flushes)]
            request, flush_ns = flushes[number // 2 % len(flushes)]
            request = request.replace(struct.pack("<Q", flush_ns), time_ns)
            request = request.replace(name, b"%0*d" % (len(name), sidecar))
            requests.append(request.replace(b"order_service", b"order_s%06d" % (sidecar // 3)))
        return requests


def points(part: str, sidecars: int, panes: int) -> Measurement:
    """One of PARTS, of all points of ``panes`` panes."""
    fleet, last = Fleet(sidecars), NOTHING_KNOWN
    whole = Measurement(0)
    rows = gained_rows = 0
    for number in range(WARM_PANES + panes):
        payloads = fleet.pane(number)
        steps = _Steps(whole if number >= WARM_PANES else Measurement(0), part)
        with steps.of("decode"):
            batch = otlp.decode_points(payloads)
        steps.measurement.spans += len(batch)
        with steps.of("families"):
            claims = Claims.of(batch)
            counted = np.flatnonzero(claims.family >= 0).astype(np.uint32)
        time = PaneTime((FIRST_PANE + number) * PANE_NS, PANE_NS, 0)
        with steps.of("increments"):
            gained, last = increments(
                batch, counted, last, pane=FIRST_PANE + number, lookback=LOOKBACK, time=time
            )
        with steps.of("labels"):
            claims.labels(batch, gained.rows["point"].to_numpy())
        if number >= WARM_PANES:
            rows, gained_rows = rows + len(batch), gained_rows + len(gained.rows)
    series = len(last.points)
    whole.note = f"{gained_rows / rows:.0%} of the points gained something; {series:,} series are remembered"
    return whole


class _Steps:
    """Adds up what one part takes."""

    def __init__(self, measurement: Measurement, part: str) -> None:
        self.measurement, self.part = measurement, part

    def of(self, part: str) -> "_Step | nullcontext[None]":
        return _Step(self.measurement) if self.part in (part, "all") else nullcontext()


class _Step:
    def __init__(self, whole: Measurement) -> None:
        self._whole, self._measure = whole, measure(0)

    def __enter__(self) -> None:
        self._own = self._measure.__enter__()

    def __exit__(self, *failure: object) -> None:
        self._measure.__exit__(None, None, None)
        self._whole.cpu_s += self._own.cpu_s
        self._whole.wall_s += self._own.wall_s
        self._whole.peak_rss_mib = max(self._whole.peak_rss_mib, self._own.peak_rss_mib)


_CASES = [
    Case(
        f"{part}, {sidecars:,} sidecars",
        "native",
        points,
        {"part": part, "sidecars": sidecars, "panes": panes},
    )
    for sidecars, panes in ((2_000, 10), (10_000, 4))
    for part in PARTS
]

CASES = [case for case in _CASES if case.arguments["sidecars"] == 2_000]
"""Those that are quick."""

if __name__ == "__main__":
    main("Data points", _CASES)
