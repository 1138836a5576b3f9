"""The stage of increments in a pane processor: one note of last points, and the same after a restart."""

from collections import defaultdict
from datetime import timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from processors.pane_processor import PaneProcessor, Signal
from processors.panes import Emit
from processors.points.count import CountIncrements
from processors.points.increments import Increments
from processors.points.last_points import LastPoints
from processors.settings import ProcessorSettings
from processors.stage import PaneView, Tables, Window
from schemas import otlp, topics
from schemas.otlp.picking import pick
from schemas.points import PointBatch
from schemas.records import Commit, Record, TopicPartition
from schemas.units import NS_PER_S
from tests.support.examples import examples
from tests.support.point_batches import Plain, payload_of

TP = TopicPartition(topics.METRICS, 0)
SETTINGS = ProcessorSettings(partitions=1, pane=timedelta(seconds=1), lookback=timedelta(seconds=4))
T0_NS = 1_800_000_000 * NS_PER_S


class Look:
    """Remembers what each decided pane gained, and how many panes' last points it was given."""

    def __init__(self) -> None:
        self.gained: dict[int, list[tuple[float, ...]]] = defaultdict(list)
        self.notes: list[int] = []

    def close(self, pane: PaneView[PointBatch]) -> Tables:
        self.notes.append(sum(1 for _ in pane.looked_back(LastPoints)))
        return {}

    def decide(self, pane: PaneView[PointBatch], window: Window) -> Tables:
        self.gained[pane.number] = pane.own[Increments].rows.select("slot", "value").rows()
        return {}


def run(log: list[Record], commit: Commit | None = None) -> tuple[Look, list[Emit]]:
    look = Look()
    signal: Signal[PointBatch] = Signal(
        decode=lambda payloads: otlp.decode_points(payloads, payloads.clusters),
        stages=(CountIncrements(SETTINGS.lookback_panes), look),
        weigh=lambda payload: otlp.weigh(topics.METRICS, payload),
        pick=lambda payload, items: pick(topics.METRICS, payload, items),
    )
    processor = PaneProcessor(TP, SETTINGS, signal, commit)
    offset = processor.offset or 0
    return look, processor.feed([record for record in log if record.offset >= offset])


@examples(8)
@given(st.integers(0, 2**32))
def test_whoever_goes_on_finds_the_same(seed: int) -> None:
    random = Random(seed)
    log, values, name = [], {"a": 0, "b": 0, "c": 0}, "cluster.upstream_rq_retry"
    for second in range(16):
        for series in random.sample("abc", random.choice([0, 1, 1, 2])):
            values[series] = random.choice([0, values[series], values[series] + 3])
            start_ns = random.choice([0, 0, T0_NS + 2 * NS_PER_S])
            point = Plain(series, start_ns, T0_NS + second * NS_PER_S, values[series])
            log.append((second, payload_of([point], name)))
        log.append((second, b""))
    records = [
        Record(offset, T0_NS + second * NS_PER_S, value, len(value))
        for offset, (second, value) in enumerate([*log, (20, b"")])
    ]
    whole, emits = run(records)
    assert max(whole.notes) == 1, "earlier notes are let go"
    for emit in random.sample(emits, 3):
        again, _ = run(records, emit.commit)
        assert again.gained == {pane: whole.gained[pane] for pane in again.gained}


def test_only_what_a_family_claims_is_counted() -> None:
    points = [Plain("a", T0_NS, T0_NS + NS_PER_S, 5)]
    payloads = [
        payload_of(points, name)
        for name in ("cluster.upstream_rq_retry", "m", "cluster.internal.upstream_rq")
    ]
    records = [Record(offset, T0_NS, value, len(value)) for offset, value in enumerate(payloads)]
    look, _ = run([*records, Record(3, T0_NS + 9 * NS_PER_S, b"", 0)])
    assert [value for rows in look.gained.values() for _, value in rows] == [5]
