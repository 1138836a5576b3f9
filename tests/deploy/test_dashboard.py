"""Every query of Grafana's dashboard gives rows of the captured mesh, and the totals that Envoy counted."""

import json
import re
import time
from collections import Counter
from typing import Any

import pytest

from tests.deploy.compose import DEPLOY
from tests.support.captured_mesh import SHOWN_UNSENT, truth
from tests.support.up import Up

DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/mesh.json").read_text())
QUERIES = {
    f"{panel['title']} {target['refId']}": target["rawSql"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
(SERVICE,) = DASHBOARD["templating"]["list"]


EMPTY = {"Services that do not hand trace headers on A"}
"""Services of the captured mesh hand trace headers on."""


def filled(sql: str, services: list[str]) -> str:
    """What the data source's plugin makes of its macros, for the last hour, the next one, and points of 10
    s.
    """
    now_s = int(time.time())
    sql = re.sub(
        r"\$__timeFilter\((\w+)\)",
        rf"\1 >= toDateTime({now_s - 3600}) AND \1 <= toDateTime({now_s + 3600})",
        sql,
    )
    sql = re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 10 second)", sql)
    sql = sql.replace("$__interval_s", "10")
    sql = sql.replace("$__fromTime", f"toDateTime({now_s - 3600})").replace(
        "$__toTime", f"toDateTime({now_s + 3600})"
    )
    names = ",".join(f"'{name}'" for name in services)
    return sql.replace("${service:singlequote}", names)


def rows(up: Up, sql: str, services: list[str]) -> list[dict[str, Any]]:
    text = filled(sql, services)
    assert "$" not in text, text
    names, *values = up.sql(f"{text} FORMAT JSONCompactEachRowWithNames")
    return [dict(zip(names, row, strict=True)) for row in values]


def services(up: Up) -> list[str]:
    return [row["service"] for row in rows(up, SERVICE["query"]["rawSql"], [])]


def test_the_variable_lists_the_services(mesh: Up) -> None:
    assert {"front-proxy", "order-service", "product-service"} <= set(services(mesh))


@pytest.mark.parametrize("name", QUERIES)
def test_a_panel_has_rows(mesh: Up, name: str) -> None:
    found = rows(mesh, QUERIES[name], services(mesh))
    assert bool(found) == (name not in EMPTY)


def sums(mesh: Up, panel: str, column: str, *keys: str) -> dict[Any, float]:
    """A column's sums over the rows of each key."""
    found: Counter[Any] = Counter()
    for row in rows(mesh, QUERIES[panel], services(mesh)):
        found[row[keys[0]] if len(keys) == 1 else tuple(row[key] for key in keys)] += row[column]
    return {key: round(total, 6) for key, total in found.items() if total}


def test_requests_are_envoys_own_numbers(mesh: Up) -> None:
    per_10_s = sums(mesh, "Requests per second A", "requests", "service")
    assert {service: round(rate * 10) for service, rate in per_10_s.items()} == truth().requests
    assert sums(mesh, "Services A", "requests", "service") == truth().requests
    shares = sums(mesh, "Services A", "errors", "service")
    assert round(shares["front-proxy"] * truth().requests["front-proxy"]) == 233
    assert sums(mesh, "Services A", "injected", "service") == {}


def test_the_edges_are_envoys_own_numbers(mesh: Up) -> None:
    edges = "Edges: who calls whom A"
    assert sums(mesh, edges, "calls", "client", "server") == truth().calls
    assert sums(mesh, edges, "unsent", "client", "server") == SHOWN_UNSENT
    assert sums(mesh, "Map B", "mainstat", "source", "target") == truth().calls
    not_arrived = sums(mesh, "Calls that did not arrive A", "not arrived", "edge")
    assert round(sum(not_arrived.values()) * 10) == sum(SHOWN_UNSENT.values())
    calls = sum(truth().calls.values())
    assert sum(sums(mesh, "Map A", "mainstat", "id").values()) == 2 * calls


def test_panels_use_the_provisioned_data_source() -> None:
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    places = [SERVICE, *DASHBOARD["panels"], *targets]
    assert {json.dumps(place["datasource"], sort_keys=True) for place in places} == {
        json.dumps({"type": "grafana-clickhouse-datasource", "uid": "meshflow"}, sort_keys=True)
    }
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
                assert x < 24
