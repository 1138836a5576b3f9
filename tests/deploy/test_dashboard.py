"""Every query of Grafana's dashboard gives rows of the captured mesh, and the totals that Envoy counted."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.compose import DEPLOY
from tests.e2e.test_e2e_capture import CAPTURE, CAPTURED_SPANS
from tests.support.up import Up, eventually, replay, running_up

DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/mesh.json").read_text())
QUERIES = {
    f"{panel['title']} {target['refId']}": target["rawSql"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
(SERVICE,) = DASHBOARD["templating"]["list"]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("dashboard"), "", "--pane", "500ms", "--wait", "1") as up:
        replay(up, CAPTURE, options=("--now",))
        up.wait_for(CAPTURED_SPANS)
        eventually(lambda: up.count("SELECT sum(calls) FROM edges") > 0, "edges are stored")
        yield up


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
    names = ",".join(f"'{name}'" for name in services)
    return sql.replace("${service:singlequote}", names)


def rows(up: Up, sql: str, services: list[str]) -> list[dict[str, Any]]:
    text = filled(sql, services)
    assert "$" not in text, text
    names, *values = up.sql(f"{text} FORMAT JSONCompactEachRowWithNames")
    return [dict(zip(names, row, strict=True)) for row in values]


def services(up: Up) -> list[str]:
    return [row["service"] for row in rows(up, SERVICE["query"]["rawSql"], [])]


def test_the_variable_lists_the_services(up: Up) -> None:
    assert {"front-proxy", "order-service", "product-service"} <= set(services(up))


@pytest.mark.parametrize("name", QUERIES)
def test_a_panel_has_rows(up: Up, name: str) -> None:
    assert rows(up, QUERIES[name], services(up))


def test_the_edges_are_envoys_own_numbers(up: Up) -> None:
    def calls() -> dict[tuple[str, str], int]:
        found = rows(up, QUERIES["Edges: who calls whom A"], services(up))
        return {(row["client"], row["server"]): int(row["calls"]) for row in found}

    def shown() -> list[int]:
        edges = calls()
        pairs = (
            ("front-proxy", "order-service"),
            ("front-proxy", "product-service"),
            ("order-service", "product-service"),
        )
        return [edges.get(pair, 0) for pair in pairs]

    eventually(lambda: shown() == [319, 357, 364], lambda: f"edges: {calls()}")


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
