"""Every query that README, documents and the demo print, asked of the captured mesh, and its answer beside
the numbers of Envoy's own counters.
"""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from meshflow.tools.demo import TRY
from storage import queries
from tests.support.captured_mesh import SHOWN_UNSENT, truth
from tests.support.up import ROOT, Up

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
QUOTED = re.compile(r'(?:meshflow query|--data) "(SELECT [^"]*)"')
FORMAT = re.compile(r" FORMAT \w+$")
PAGES = [ROOT / "README.md", ROOT / "deploy/README.md", *sorted((ROOT / "docs").glob("*.md"))]
HOUR = timedelta(hours=1)
LOCAL = re.compile(r'^TRY = "(.*)"$', re.MULTILINE)
"""Of ``deploy/local.py``, which is a script."""


def printed() -> dict[str, str]:
    """Where a query is printed, and its text."""
    found: dict[str, str] = {}
    for page in PAGES:
        blocks = FENCED.findall(page.read_text(encoding="utf-8"))
        texts = [sql for kind, block in blocks if kind == "sql" for sql in block.split(";\n")]
        texts += [sql for kind, block in blocks if kind != "sql" for sql in QUOTED.findall(block)]
        statements = [re.sub(r"--.*", "", text).strip().rstrip(";") for text in texts]
        statements = [sql for sql in statements if sql]
        found |= {f"{page.relative_to(ROOT)} {number}": sql for number, sql in enumerate(statements, 1)}
    found["deploy/local.py"] = LOCAL.findall((ROOT / "deploy/local.py").read_text(encoding="utf-8"))[0]
    found |= {f"demo {number}": sql for number, sql in enumerate(TRY.values(), 1)}
    return found | {
        "services": queries.services(HOUR),
        "edges": queries.edges(HOUR),
        "ledger": queries.ledger(HOUR),
    }


PRINTED = printed()


def ask(up: Up, sql: str) -> list[dict[str, Any]]:
    names, *rows = up.sql(FORMAT.sub("", sql) + " FORMAT JSONCompactEachRowWithNames")
    return [dict(zip(names, row, strict=True)) for row in rows]


def sums_of(
    rows: list[dict[str, Any]], keys: Sequence[tuple[str, ...]], values: tuple[str, ...]
) -> Counter[Any]:
    """The sums of a column, whichever of its names it has, by the columns that name a service or an edge."""
    sums: Counter[Any] = Counter()
    for row in rows:
        names = next(tuple(row[name] for name in key) for key in keys if set(key) <= set(row))
        sums[names] += sum(int(row[value]) for value in values if value in row)
    return +sums


def test_the_pages_are_read() -> None:
    assert {page.split(" ")[0] for page in PRINTED} >= {"README.md", "docs/sql.md", "deploy/local.py", "demo"}
    assert len(PRINTED) >= 18


@pytest.mark.parametrize("place", PRINTED)
def test_a_printed_query_answers_with_envoys_numbers(mesh: Up, place: str) -> None:
    sql = PRINTED[place]
    rows = ask(mesh, sql)
    if "FROM mesh_propagation" in sql:
        assert rows == [], "services of the captured mesh hand their headers on"
        return
    assert rows
    if "entry = 0" in sql:
        assert not any(row["kind"] in ("Server", "Consumer") for row in rows)
        return
    columns = set(rows[0])
    if requests := columns & {"requests", "sum(requests)", "n"}:
        expected = {(service,): count for service, count in truth().requests.items()}
        assert sums_of(rows, [("service",)], tuple(requests)) == expected
    edge = [("client_service", "server_service"), ("client", "server")]
    if calls := columns & {"calls", "sum(calls)"}:
        expected_calls = truth().calls
        if "FROM mesh_overhead" in sql:
            expected_calls = {ends: count for ends, count in expected_calls.items() if ends[0] != "outside"}
        assert sums_of(rows, edge, tuple(calls)) == expected_calls
    if unsent := columns & {"unsent", "sum(unsent)"}:
        assert sums_of(rows, edge, tuple(unsent)) == SHOWN_UNSENT
    counts = requests or calls or unsent
    assert counts or not re.search(r"FROM (red|edges|service_traffic|edge_traffic)\b", sql), (
        "nothing was compared"
    )


def test_errors_are_envoys_5xx_where_every_one_had_an_answer(mesh: Up) -> None:
    errors = {row["service"]: int(row["sum(errors)"]) for row in ask(mesh, PRINTED["README.md 1"])}
    assert errors["front-proxy"] == 233


def test_the_printed_answer_of_the_meshs_cost_is_the_answer(mesh: Up) -> None:
    page = (ROOT / "docs/sql.md").read_text(encoding="utf-8")
    (printed_rows,) = re.findall(r"\| p99_ms \|\n\|[-|]+\n((?:\|.*\|\n)+)", page)
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed_rows.splitlines()]
    (sql,) = (sql for sql in PRINTED.values() if "FROM mesh_overhead" in sql)
    answer = [
        [
            row["client_service"],
            row["server_service"],
            str(row["calls"]),
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
        ]
        for row in ask(mesh, sql)
    ]
    assert answer == shown


def test_requests_into_a_service_came_over_its_edges(mesh: Up) -> None:
    """Of the whole mesh: what the views say of services is what they say of edges, those of outside too."""
    keys = "cluster, namespace, service, version"
    requests = f"SELECT {keys}, sum(requests), sum(errors) FROM service_traffic GROUP BY ALL ORDER BY ALL"
    ends = ", ".join(f"server_{key}" for key in keys.split(", "))
    calls = (
        f"SELECT {ends}, sum(calls) AS n, toUInt8(1) FROM edge_traffic WHERE connection IN ('service', 'outside')"
        " GROUP BY ALL HAVING n > 0 ORDER BY ALL"
    )
    by_service = {tuple(row[:4]): int(row[4]) for row in mesh.sql(requests)}
    assert by_service == {tuple(row[:4]): int(row[4]) for row in mesh.sql(calls)}
    assert sum(by_service.values()) == sum(truth().requests.values()) == 1876
