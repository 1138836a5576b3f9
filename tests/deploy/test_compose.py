"""``deploy/`` without a container engine: every command line, setting, name, port and path that its files
give is one that there is.
"""

import re
import tomllib
import xml.etree.ElementTree as ET
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import pytest

from console.names import Names
from console.password import check_exposure
from meshflow.cli import main
from meshflow.settings import Settings, load
from storage.settings import ClickHouseStore, KafkaLog
from tests.deploy.compose import DEPLOY, read_compose, read_yaml
from tests.support.kafka.broker import POM
from tests.support.up import ROOT

CONTAINERFILE = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
FILES = (("compose.yaml",), ("compose.yaml", "compose.three-brokers.yaml"))
OURS = ("migrate", "ingest", "process", "console")


@pytest.fixture(params=FILES, ids="+".join)
def compose(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read_compose(*request.param)


def instructions(name: str) -> list[str]:
    """Arguments of each instruction of this name in the Containerfile."""
    return re.findall(rf"^{name} +(.*)$", CONTAINERFILE, re.MULTILINE)


def settings_of(service: dict[str, Any]) -> Settings:
    environ = {name: value for name, value in service["environment"].items() if name.startswith("MESHFLOW_")}
    return load(DEPLOY / "meshflow.toml", {}, environ).settings


def brokers(compose: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        name: service["environment"]
        for name, service in compose["services"].items()
        if service["image"].startswith("apache/kafka")
    }


def test_every_command_line_is_one_of_meshflows() -> None:
    (entry,) = instructions("ENTRYPOINT")
    _, *options = re.findall(r'"(.*?)"', entry)
    services = read_compose("compose.yaml")["services"]
    commands = [services[name]["command"] for name in OURS] + [
        re.findall(r'"(.*?)"', instructions("CMD")[-1])
    ]
    assert [command[0] for command in commands] == [*OURS, "up"]
    for command in commands:
        name, *rest = command
        context = main.make_context("meshflow", [*options, *command])
        assert context.params["config"] == Path("/etc/meshflow/meshflow.toml")
        found = main.get_command(context, name)
        assert isinstance(found, click.Command), name
        found.make_context(name, rest, parent=context)


def test_settings_and_places_are_right(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in OURS:
        settings = settings_of(services[name])
        log, store = settings.storage.log_place, settings.storage.store_place
        assert isinstance(log, KafkaLog)
        assert list(log.bootstrap) == [f"{broker}:9092" for broker in brokers(compose)]
        assert isinstance(store, ClickHouseStore)
        clickhouse = services[store.host]["environment"]
        assert (store.username, store.password, store.database, store.port, store.secure) == (
            clickhouse["CLICKHOUSE_USER"],
            clickhouse["CLICKHOUSE_PASSWORD"],
            clickhouse["CLICKHOUSE_DB"],
            8123,
            False,
        )
        assert settings.ingest.host == settings.console.host == "0.0.0.0"
    assert settings.processing.partitions >= services["process"]["deploy"]["replicas"]


def test_ports_are_those_of_the_settings() -> None:
    services = read_compose("compose.yaml")["services"]
    settings = settings_of(services["ingest"])
    ours = [
        settings.ingest.grpc_port,
        settings.ingest.http_port,
        settings.console.sql_port,
        settings.console.metrics_port,
    ]
    assert [int(port) for port in instructions("EXPOSE")[0].split()] == ours
    assert services["ingest"]["ports"] == [f"{port}:{port}" for port in ours[:2]]
    assert services["clickhouse"]["ports"] == ["127.0.0.1:8123:8123"]
    assert services["console"]["ports"] == [f"127.0.0.1:8124:{settings.console.sql_port}"]
    assert (
        f"for port in {settings.console.metrics_port} {settings.console.sql_port};"
        in instructions("HEALTHCHECK")[0]
    )


def test_brokers_know_one_another(compose: dict[str, Any]) -> None:
    nodes = brokers(compose)
    voters = ",".join(f"{number}@{name}:9093" for number, name in enumerate(nodes, 1))
    version = ET.parse(POM).findtext(".//{*}kafka.version")
    for number, (name, environment) in enumerate(nodes.items(), 1):
        assert compose["services"][name]["image"] == f"apache/kafka:{version}"
        assert environment["KAFKA_NODE_ID"] == str(number)
        assert environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] == voters
        assert environment["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{name}:9092"
        assert (
            environment["KAFKA_DEFAULT_REPLICATION_FACTOR"]
            == environment["KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR"]
            == str(len(nodes))
        )
        assert environment["KAFKA_MIN_INSYNC_REPLICAS"] == str((len(nodes) + 1) // 2)
        (volume,) = compose["services"][name]["volumes"]
        assert volume.endswith(f":{environment['KAFKA_LOG_DIRS']}")
    assert len({environment["CLUSTER_ID"] for environment in nodes.values()}) == 1


def test_services_wait_for_what_can_be_waited_for(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            checked = "healthcheck" in services[other] or services[other]["image"] == "meshflow"
            assert how["condition"] in {"service_healthy", "service_completed_successfully"}, name
            assert how["condition"] != "service_healthy" or checked, (name, other)


def test_what_was_acknowledged_survives_a_new_container() -> None:
    ingest = read_compose("compose.yaml")["services"]["ingest"]
    folder = settings_of(ingest).ingest.spool.folder
    assert f"spool:{folder}" in ingest["volumes"]
    assert (
        f"install --directory --owner=meshflow {folder}" in CONTAINERFILE
    )  # a new volume takes the folder's owner over


def test_what_is_mounted_is_there(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), name
            else:
                assert source in compose["volumes"], name


def test_grafana_finds_the_tables_and_its_dashboard() -> None:
    services = read_compose("compose.yaml")["services"]
    grafana, clickhouse = services["grafana"]["environment"], services["clickhouse"]["environment"]
    (source,) = read_yaml(DEPLOY / "grafana/provisioning/datasources/clickhouse.yaml")["datasources"]
    assert source["type"] == grafana["GF_PLUGINS_PREINSTALL"]
    place = source["jsonData"]
    assert (place["host"], place["port"], place["defaultDatabase"]) == (
        "clickhouse",
        8123,
        clickhouse["CLICKHOUSE_DB"],
    )
    readers = ET.parse(DEPLOY / "clickhouse/readers.xml")
    user = readers.find(f"./users/{place['username']}")
    assert user is not None
    assert user.findtext("profile") in {profile.tag for profile in readers.findall("./profiles/*")}
    password = user.find("password")
    assert password is not None
    assert (
        clickhouse[password.attrib["from_env"]]
        == grafana[source["secureJsonData"]["password"].removeprefix("$")]
    )
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    (provider,) = read_yaml(DEPLOY / "grafana/provisioning/dashboards/meshflow.yaml")["providers"]
    assert provider["options"]["path"] == mounts["./grafana/dashboards"]
    assert (
        grafana["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{mounts['./grafana/dashboards']}/mesh.json"
    )


def test_the_image_gets_every_package_and_nothing_is_left_out() -> None:
    copied = [words for line in instructions("COPY") if not (words := line.split())[0].startswith("--")]
    sources = [source for *names, _ in copied for source in names]
    ignored = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert ignored[0] == "*"
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {
        pattern.removesuffix("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    assert packages | {"native", "pyproject.toml", project["project"]["readme"]} <= set(sources)
    again = [line for line in ignored if not line.startswith("!") and line != "*"]
    assert not any(fnmatch(source, pattern) for source in sources for pattern in again)
    assert ["deploy/meshflow.toml", "/etc/meshflow/meshflow.toml"] in copied


def test_sql_asks_for_a_password_and_knows_its_names() -> None:
    """The image makes a password on its volume; compose has one, as for its other services."""
    image = load(DEPLOY / "meshflow.toml", {}, {}).settings.console
    (volume,) = instructions("VOLUME")
    assert Path(image.password_file).parent == Path(volume)
    assert not image.allow_without_password
    services = read_compose("compose.yaml")["services"]
    console = settings_of(services["console"]).console
    assert check_exposure(console).password.get_secret_value()
    names = Names(console.host, console.hosts)
    assert all(map(names.include, ("console:8123", "meshflow:8123", "localhost:8124", "127.0.0.1:8123")))
    assert "evil.example" not in console.hosts


def test_the_image_does_not_run_as_root() -> None:
    users = re.split(r"^FROM .*$", CONTAINERFILE, flags=re.MULTILINE)[-1]
    assert re.search(r"^USER meshflow$", users, re.MULTILINE)
