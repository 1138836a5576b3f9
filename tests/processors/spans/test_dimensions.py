"""Custom dimensions: further keys of RED, by attributes; bounded, and a function of the log."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from processors.limits import OTHER
from processors.panes import Emit
from processors.settings import Dimension, LabelLimits, ProcessorSettings
from processors.spans.signal import span_processor
from schemas import topics
from schemas.records import TopicPartition
from tests.support.examples import examples
from tests.support.span_log import KEEP_ALL, Span, blocks, make_log, process, rows

USER = Dimension(name="user_type", key="x.user", default="anonymous")
PLAN = Dimension(name="plan", key="plan")


def settings(*dimensions: Dimension, **other: object) -> ProcessorSettings:
    return ProcessorSettings(partitions=1, dimensions=dimensions, **other)


def span(number: int, user: str | None = None, plan: str | None = None) -> Span:
    said = {"x.user": user, "plan": plan}
    return Span("a", number, attributes={key: value for key, value in said.items() if value is not None})


def counts(emits: Sequence[Emit]) -> dict[tuple[tuple[str, str], ...], int]:
    """Dimensions -> requests."""
    found: Counter[tuple[tuple[str, str], ...]] = Counter()
    for row in rows(emits, "red_10s"):
        found[tuple(row["dimensions"])] += row["requests"]  # type: ignore[arg-type, operator]  # a map, a count
    return dict(found)


def of_user(emits: Sequence[Emit]) -> dict[str, int]:
    return {dict(key)["user_type"]: count for key, count in counts(emits).items()}


def test_without_dimensions_maps_are_empty() -> None:
    assert counts(process(make_log((0, [span(1, "gold")])), settings())) == {(): 1}


def test_requests_are_counted_by_each_combination_and_without_the_attribute_by_the_default() -> None:
    spans = [
        span(1, "gold", "x"),
        span(2, "gold", "x"),
        span(3, "gold", "y"),
        span(4),
        span(5, ""),
        span(6, "anonymous"),
    ]
    assert counts(process(make_log((0, spans)), settings(USER, PLAN))) == {
        (("user_type", "gold"), ("plan", "x")): 2, (("user_type", "gold"), ("plan", "y")): 1,
        (("user_type", "anonymous"), ("plan", "")): 3,
    }  # fmt: skip


def test_rows_of_equal_dimensions_are_one() -> None:
    spans = [span(1), span(2, "anonymous"), span(3, "other"), *(span(10 + n, f"u{n}") for n in range(3))]
    found = rows(process(make_log((0, spans)), settings(USER.model_copy(update={"values": 1}))), "red_10s")
    keys = [str(row["dimensions"]) for row in found]
    assert len(keys) == len(set(keys))


def test_an_attribute_of_the_resource_will_do() -> None:
    by_service = Dimension(name="by", key="service.name")
    assert counts(process(make_log((0, [span(1)])), settings(by_service))) == {(("by", "a"),): 1}


def test_two_dimensions_may_have_one_key() -> None:
    twice = settings(USER, Dimension(name="again", key="x.user"))
    assert counts(process(make_log((0, [span(1, "gold")])), twice)) == {
        (("user_type", "gold"), ("again", "gold")): 1
    }


def test_of_many_values_the_busiest_keep_their_name_and_the_default_always_does() -> None:
    said = ["b", "b", "a", "c", "c", "c", None]
    spans = [span(number, user) for number, user in enumerate(said, 1)]
    found = process(make_log((0, spans)), settings(USER.model_copy(update={"values": 2})))
    assert of_user(found) == {"c": 3, "b": 2, OTHER: 1, "anonymous": 1}
    tied = process(make_log((0, spans[2:4])), settings(USER.model_copy(update={"values": 1})))
    assert of_user(tied) == {"a": 1, OTHER: 1}


def test_few_new_values_keep_their_name_in_a_pane_and_none_is_new_while_the_partition_begins() -> None:
    given_settings = settings(
        USER.model_copy(update={"values": 20}), pane=timedelta(seconds=1), lookback=timedelta(seconds=4)
    )
    log = make_log(
        *((at, [span(100 * at + n + 1, f"{at}-{n}") for n in range(5)] + [span(100 * at + 50, "steady")]) for at in range(8))
    )  # fmt: skip
    found = of_user(process(log, given_settings))
    assert found["steady"] == 8
    assert [sum(name.startswith(f"{at}-") for name in found) for at in range(8)] == [5, 5, 2, 2, 2, 2, 2, 2]
    whole = blocks(process(log, given_settings))
    for stop in range(3, len(log)):
        emits = span_processor(TopicPartition(topics.SPANS, 0), given_settings, KEEP_ALL).feed(log[:stop])
        again = blocks([*emits, *process(log, given_settings, commit=emits[-1].commit if emits else None)])
        assert all(again[token].equals(found_rows) for token, found_rows in whole.items()), stop


def test_long_values_are_cut_and_rows_over_the_limit_have_none() -> None:
    cut = settings(USER, labels=LabelLimits(label_length=16))
    assert of_user(process(make_log((0, [span(1, "x" * 40 + "1"), span(2, "x" * 40 + "2")])), cut)) == {
        "x" * 16: 2
    }
    few = settings(USER, labels=LabelLimits(series=1))
    spans = [span(1, "a"), span(2, "a"), span(3, "b")]
    assert counts(process(make_log((0, spans)), few)) == {(("user_type", "a"),): 2, (): 1}


@examples(20)
@given(
    st.lists(
        st.tuples(st.sampled_from([None, "", "a", "b", "c", "other"]), st.sampled_from([None, "x", "y"])),
        min_size=1,
    )
)
def test_every_request_has_its_own_values(said: list[tuple[str | None, str | None]]) -> None:
    found = counts(
        process(make_log((0, [span(n, *each) for n, each in enumerate(said, 1)])), settings(USER, PLAN))
    )
    assert found == Counter((("user_type", user or "anonymous"), ("plan", plan or "")) for user, plan in said)


@pytest.mark.parametrize(
    "dimension", [{"name": "a b", "key": "k"}, {"name": "1a", "key": "k"}, {"name": "", "key": "k"}, {"name": "a", "key": ""},
                  {"name": "a", "key": "k", "values": 0}]
)  # fmt: skip
def test_names_are_identifiers_and_keys_are_not_empty(dimension: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Dimension.model_validate(dimension)


def test_names_are_unique_and_at_most_eight() -> None:
    with pytest.raises(ValidationError, match="two tables have the name 'user_type'"):
        settings(USER, USER)
    with pytest.raises(ValidationError, match="at most 8"):
        settings(*(Dimension(name=f"d{n}", key="k") for n in range(9)))
