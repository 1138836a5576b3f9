from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processors.grouping import Groups, pack
from processors.limits import OTHER
from processors.settings import LabelLimits, ProcessorSettings
from processors.slots import PaneTime
from schemas.histogram import bucket_of
from schemas.units import NS_PER_S
from tests.support.span_log import CLIENT, SERVER, T0_S, Span, make_log, process, proxy, rows

ONE = ProcessorSettings(partitions=1)


def red(*spans: Span, settings: ProcessorSettings = ONE, table: str = "red_10s") -> list[dict[str, object]]:
    return rows(process(make_log((0, spans)), settings), table)


def limited(**limits: int) -> ProcessorSettings:
    return ProcessorSettings(partitions=1, labels=LabelLimits(**limits))


def by(found: list[dict[str, object]], *names: str) -> dict[object, object]:
    """Requests by some keys."""
    counts: dict[object, int] = defaultdict(int)
    for row in found:
        key = tuple(row[name] for name in names)
        counts[key if len(key) > 1 else key[0]] += row["requests"]  # type: ignore[operator]  # a count
    return dict(counts)


def test_a_row_has_all_of_its_keys_and_values() -> None:
    spans = [
        proxy(
            "shop", n, kind=CLIENT, flags="UT", trace=n, duration_ms=n, version="v7", name="egress b", start_s=-1,
            attributes={
                "http.status_code": "302", "envoy.route": "/cart", "request_size": str(n), "response_size": str(10 * n),
                **({"error": "true"} if n == 2 else {}),
            },
        )
        for n in (1, 2, 3)
    ]  # fmt: skip
    (row,) = red(*spans)
    buckets = sorted(bucket_of(n * 1_000_000) for n in (1, 2, 3))
    assert row == {
        "slot": T0_S - 10, "cluster": "", "namespace": "", "service": "shop", "version": "v7", "operation": "/cart", "kind": "Client",
        "status_class": "3xx", "http_status": 302, "response_flags": "UT", "late": 0, "requests": 3, "errors": 1,
        "duration_ns_sum": 6_000_000, "duration_ns_max": 3_000_000, "duration_histogram": [(bucket, 1) for bucket in buckets],
        "exemplar_trace_id": f"{2:032x}", "entered": 2, "apart": "", "protocol": "http", "dimensions": [],
        "requests_estimated": 3.0, "errors_estimated": 1.0, "request_bytes": 6, "response_bytes": 60, "roots": 3,
    }  # fmt: skip


def test_estimates_are_sums_of_the_weights_of_requests_and_of_failed_ones() -> None:
    def sampled(number: int, state: str, **said: str) -> Span:
        return Span(
            "a",
            number,
            trace=3 * 2**54 + number,
            trace_state=state,
            attributes={"http.status_code": "302", **said},
        )

    failed = {"error": "true"}
    (row,) = red(
        sampled(1, "ot=th:8"), sampled(2, "ot=th:c", **failed), sampled(3, ""), sampled(4, "ot=th:8", **failed), sampled(5, "", **failed)
    )  # fmt: skip
    assert (row["requests"], row["requests_estimated"]) == (5, 2 + 4 + 1 + 2 + 1)
    assert (row["errors"], row["errors_estimated"]) == (3, 4 + 2 + 1)


def test_the_end_of_a_span_that_came_unfinished_adds_no_weight_but_that_of_its_failure() -> None:
    begun = Span(
        "a", 1, trace=2**55, trace_state="ot=th:8", duration_ms=0, attributes={"http.status_code": "302"}
    )
    ended = replace(begun, duration_ms=5, attributes={**begun.attributes, "error": "true"})
    found = rows(process(make_log((0, [begun]), (7, [ended])), ONE), "red_10s")
    sums = {
        name: sum(float(str(row[name])) for row in found)
        for name in ("requests", "requests_estimated", "errors", "errors_estimated")
    }
    assert sums == {"requests": 1, "requests_estimated": 2, "errors": 1, "errors_estimated": 2}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 1 << 20).map(lambda n: n / 1024))))
def test_totals_of_groups_are_the_exact_sums(values: list[tuple[int, float]]) -> None:
    groups = Groups.by(np.array([key for key, _ in values], np.uint64))
    sums: dict[int, float] = defaultdict(float)
    for key, value in values:
        sums[key] += value
    totals = groups.total(np.array([value for _, value in values], np.float64))
    assert totals.tolist() == [sums[key] for key in sorted(sums)]


@pytest.mark.parametrize(
    ("status", "http", "status_class"),
    [
        (0, "200", "2xx"),
        (0, "404", "4xx"),
        (0, "", "ok"),
        (2, "", "error"),
        (0, "0", "ok"),
        (2, "0", "error"),
        (0, "999", "ok"),
    ],
)
def test_status_class(status: int, http: str, status_class: str) -> None:
    (row,) = red(Span("a", 1, status=status, attributes={"http.status_code": http} if http else {}))
    assert row["status_class"] == status_class


@pytest.mark.parametrize(("from_codes", "errors"), [(True, 2), (False, 0)])
def test_codes_of_spans_without_a_status_count_unless_the_setting_keeps_the_status_alone(
    from_codes: bool,
    errors: int,
) -> None:
    spans = (
        Span("a", 1, attributes={"http.response.status_code": "503"}),
        Span("a", 2, attributes={"http.response.status_code": "503"}, status=1),
        Span("a", 3, attributes={"rpc.grpc.status_code": "14"}),
        Span("a", 4, attributes={"http.response.status_code": "404"}),
    )
    found = red(*spans, settings=ONE.model_copy(update={"errors_from_codes": from_codes}))
    assert sum(row["errors"] for row in found) == errors  # type: ignore[misc]  # counts


def test_exemplar_is_the_slowest_failed_span_then_the_slowest_then_the_smallest_trace_id() -> None:
    slow = [Span("a", n, trace=n, duration_ms=5, attributes={"http.status_code": "200"}) for n in (9, 4, 6)]
    (row,) = red(*slow, Span("a", 1, trace=1, duration_ms=4, attributes={"http.status_code": "200"}))
    assert row["exemplar_trace_id"] == f"{4:032x}"


def test_slots_of_impossible_times_are_the_panes_own() -> None:
    day = 86_400
    spans = [Span("a", n, start_s=at) for n, at in enumerate([0, -8 * day, 2 * day, -6 * day, 3000], 1)]
    slots = by(red(*spans), "slot")
    assert slots == {T0_S: 3, T0_S - 6 * day: 1, T0_S + 3000: 1}


def test_late_rows_are_in_every_level_at_once() -> None:
    spans = [
        Span("a", 1, start_s=-4600),
        Span("a", 2, start_s=-4500),
        Span("a", 3, start_s=-100),
    ]  # pane: T0_S, a full hour
    fine = red(*spans)
    assert by(fine, "late") == {1: 2, 0: 1}
    minutes, hours = red(*spans, table="red_1m"), red(*spans, table="red_1h")
    assert by(minutes, "slot", "late") == {(T0_S - 4620, 1): 1, (T0_S - 4500, 1): 1}
    assert by(hours, "slot", "late") == {(T0_S - 7200, 1): 2}


def test_an_hour_is_late_from_its_end_and_the_grace_on() -> None:
    grace = 900 * NS_PER_S
    slots = np.array([T0_S - 3600, T0_S - 10, T0_S], np.uint32)
    before = PaneTime(T0_S * NS_PER_S + grace - 1, 5 * NS_PER_S, grace)
    assert before.late(slots).tolist() == [False, False, False]
    assert before._replace(start_ns=T0_S * NS_PER_S + grace).late(slots).tolist() == [True, True, False]


def test_operations_over_the_limit_of_a_service_are_other() -> None:
    spans = [
        Span("a", 10 * n + m, name=f"op{n}")
        for n, count in ((1, 3), (2, 1), (3, 2), (4, 1))
        for m in range(count)
    ]
    spans += [Span("b", 90 + n, name=f"op{n}") for n in range(3)]
    found = red(*spans, settings=limited(operations_per_service=3))
    counts = by(found, "service", "operation")
    assert counts == {
        ("a", "op1"): 3, ("a", "op3"): 2, ("a", "op2"): 1, ("a", OTHER): 1, ("b", "op0"): 1, ("b", "op1"): 1, ("b", "op2"): 1
    }  # fmt: skip


def test_services_over_the_limit_are_other() -> None:
    spans = [
        Span(name, 10 * n + m, version=f"v{m}")
        for n, name in enumerate("dabc", 1)
        for m in range(2 if name == "d" else 1)
    ]
    assert by(red(*spans, settings=limited(services=2)), "service") == {"d": 2, "a": 1, OTHER: 2}


def test_rows_over_the_limit_are_other_and_late_ones_stay_late() -> None:
    spans = [Span("a", n, name=f"op{n}", start_s=-4000 * (n % 2)) for n in range(1, 9)]
    found = red(*spans, settings=limited(series=3))
    assert len(found) <= 3 + 2
    assert by(found, "late") == {0: 4, 1: 4}
    assert by(found, "service")[OTHER] == 5
    for table in ("red_1m", "red_1h"):
        coarse = red(*spans, settings=limited(series=3), table=table)
        assert by(coarse, "late") == {1: 4}


def test_long_labels_are_cut_and_meet() -> None:
    spans = [Span("a", n, name="é" * 40 + str(n)) for n in (1, 2)]
    found = red(*spans, settings=limited(label_length=20))
    assert by(found, "operation") == {"é" * 20: 2}
    assert len(found) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 3)), min_size=1, max_size=30
    )
)
@example([(0, 1_099_511_496_704, 0), (2_796_203, 0, 2), (2_796_203, 0, 0)])  # more than 63 bits
@example([(2**40, 2**40, 3), (0, 0, 0)])  # more than 64
def test_packed_keys_are_equal_exactly_where_rows_are_and_keep_their_order(
    keys: list[tuple[int, int, int]],
) -> None:
    columns = [np.array(column, np.uint64) for column in zip(*keys, strict=True)]
    packed = pack(columns)
    assert [packed.tolist().index(key) for key in packed] == [keys.index(key) for key in keys]
    assert [keys[n] for n in np.argsort(packed, kind="stable")] == sorted(keys)


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(-1, 1007), st.integers(0, 2)), max_size=60
    )
)
def test_groups_reduce_as_plain_loops_do(table: list[tuple[int, int, int, int]]) -> None:
    key, value, bucket, trace = (np.array([row[n] for row in table], np.int64) for n in range(4))
    groups = Groups.by(key.astype(np.uint64))
    value64, lo = value.astype(np.uint64), trace.astype(np.uint64)
    best = groups.best(value64, np.zeros_like(lo), lo).tolist()
    expected = sorted(set(key.tolist()))
    assert groups.sizes().tolist() == [sum(key == one) for one in expected]
    assert groups.sum(value).tolist() == [value[key == one].sum() for one in expected]
    assert groups.max(value64).tolist() == [value[key == one].max() for one in expected]
    chosen = [min((-value[n], trace[n]) for n in np.flatnonzero(key == one)) for one in expected]
    assert [(-value[n], trace[n]) for n in best] == chosen
    counted = value > 0
    histogram = groups.histogram(bucket.astype(np.int16), counted).to_pylist()
    for one, cells in zip(expected, histogram, strict=True):
        mine = bucket[(key == one) & counted]
        assert cells == [(number, (mine == number).sum()) for number in sorted(set(mine.tolist()))]


def test_kinds_are_told_apart() -> None:
    assert by(red(Span("a", 1, kind=SERVER), Span("a", 2, kind=CLIENT), Span("a", 3, kind=9)), "kind") == {
        "Server": 1, "Client": 1, "Unspecified": 1
    }  # fmt: skip
