"""A service whose operations never come again adds few names to each pane; against a plain oracle."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from processors.limits import OTHER
from processors.panes import Emit
from processors.settings import LabelLimits, ProcessorSettings
from schemas.records import Record
from tests.support.examples import examples
from tests.support.span_log import T0_S, Span, make_log, process, total

LOOKBACK, HALF, MANY, NEW = 4, 2, 8, 2
SETTINGS = ProcessorSettings(
    partitions=1,
    pane=timedelta(seconds=1),
    lookback=timedelta(seconds=LOOKBACK),
    wait=1,
    labels=LabelLimits(operations_per_service=MANY, new_operations=NEW),
)
Requests = dict[str, Counter[str]]
"""Service -> operation -> requests."""


def make(seconds: Sequence[Requests]) -> list[Record]:
    """A record for each second, each span its own trace."""
    arrivals = []
    for second, requests in enumerate(seconds):
        names = [
            (service, name)
            for service, operations in requests.items()
            for name in sorted(operations.elements())
        ]
        first = 1_000 * second + 1
        spans = [
            Span(service, first + n, name=name, trace=first + n) for n, (service, name) in enumerate(names)
        ]
        arrivals.append((float(second), spans))
    return make_log(*arrivals, end_s=len(seconds) + 10)


def shown(emits: Sequence[Emit]) -> dict[tuple[int, str], Counter[str]]:
    """(second, service) -> operation -> requests, by pane."""
    found: dict[tuple[int, str], Counter[str]] = {}
    for block in (block for emit in emits for block in emit.blocks if block.table == "red_10s"):
        for row in block.rows.to_pylist():
            counts = found.setdefault((block.pane - T0_S, str(row["service"])), Counter())
            counts[str(row["operation"])] += row["requests"]
    return found


def new_names(seconds: Sequence[Requests], at: int, service: str) -> set[str]:
    """Which of a second's operations are new, by the rule; none while the partition begins."""
    own = set(seconds[at][service])
    past = [set(seconds[number][service]) for number in range(max(at - LOOKBACK, 0), at)]
    if not any(seconds[number] for number in range(max(at - LOOKBACK, 0), max(at - HALF + 1, 0))):
        return set()
    crowded = len(own.union(*past)) > MANY
    return {name for name in own if sum(name in names for names in past) < (HALF if crowded else 1)}


OPERATIONS = st.dictionaries(
    st.sampled_from([f"op-{number:02}" for number in range(14)]), st.integers(1, 3), max_size=MANY
)


@examples(15)
@given(st.lists(st.tuples(OPERATIONS, OPERATIONS), min_size=4, max_size=8))
def test_operations_keep_their_names_by_how_many_panes_of_the_lookback_have_them(
    drawn: list[tuple[dict[str, int], dict[str, int]]],
) -> None:
    seconds: list[Requests] = [
        {"a": Counter(a), "b": Counter(b), "steady": Counter(["/health"])} for a, b in drawn
    ]
    found = shown(process(make(seconds), SETTINGS))
    for at, requests in enumerate(seconds):
        for service, sent in requests.items():
            counts = found.get((at, service), Counter())
            new = new_names(seconds, at, service)
            named = set(counts) - {OTHER}
            assert counts.total() == sent.total()
            assert all(counts[name] == sent[name] for name in named)
            assert named >= set(sent) - new, (at, service)
            assert len(named & new) == min(NEW, len(new)), (at, service)
            kept, hidden = [sent[name] for name in named & new], [sent[name] for name in new - named]
            assert min(kept, default=9) >= max(hidden, default=0), "the busiest stay"


def flood(seconds: int, again: int) -> list[Requests]:
    """Each second three operations that stay, busy, and twenty that each come in ``again`` seconds."""
    steady = Counter(dict.fromkeys(["/cart", "/pay", "/ship"], 3))
    return [
        {
            "shop": steady
            + Counter(
                f"/item-{made}-{n}" for made in range(second - again + 1, second + 1) for n in range(20)
            )
        }
        for second in range(seconds)
    ]


def test_operations_that_never_come_again_are_few_and_hide_no_other() -> None:
    labels = LabelLimits(new_operations=NEW, operations_per_service=50)
    settings = SETTINGS.model_copy(update={"labels": labels})
    for again in (1, 2):
        emits = process(make(flood(10, again)), settings)
        for (second, _), counts in shown(emits).items():
            if second > HALF:
                assert len(counts.keys() - {"/cart", "/pay", "/ship", OTHER}) == NEW, (second, again)
                assert counts["/cart"] == counts["/pay"] == counts["/ship"] == 3
                assert counts[OTHER] == 20 * again - NEW
        assert total(emits, "red_10s", "requests") == 10 * (9 + 20 * again)


def test_which_operations_are_new_is_a_function_of_the_log() -> None:
    log = make(flood(6, 2))
    whole = process(log, SETTINGS)
    blocks = {block.token: block.rows for emit in whole for block in emit.blocks}
    for emit in whole[:-1]:
        for again in process(log, SETTINGS, commit=emit.commit):
            for block in again.blocks:
                assert blocks[block.token].equals(block.rows), block.token
