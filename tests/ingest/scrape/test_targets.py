"""Targets of settings and of file_sd files."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.scrape import targets
from ingest.scrape.settings import ScrapeSettings, TargetGroup
from ingest.scrape.targets import Discovery, Target, make_target

SECOND_NS = 1_000_000_000


def group(**given: object) -> TargetGroup:
    return TargetGroup.model_validate({"job": "envoy", **given})


def urls(discovery: Discovery) -> list[str]:
    return [target.url for target in discovery.targets()]


def test_labels_are_attributes_of_the_resource() -> None:
    target = make_target(
        group(labels={"namespace": "shop", "team": "a"}, path="/stats/prometheus"),
        "10.0.0.1:15090",
        {"pod": "p-1"},
    )
    assert target.url == "http://10.0.0.1:15090/stats/prometheus"
    assert dict(target.resource) == {
        "service.name": "envoy",
        "service.instance.id": "10.0.0.1:15090",
        "k8s.namespace.name": "shop",
        "k8s.pod.name": "p-1",
        "team": "a",
    }


@pytest.mark.parametrize(
    "address",
    ["", "host", "host:99999", "http://host:1", "a/b:1", "user@host:1", "host:1\r\nX: y", "host:1\n"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no HOST:PORT"):
        make_target(group(), address, {})


def test_files_are_read_again_and_a_bad_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, other = tmp_path / "pods.json", tmp_path / "more.yaml"
    found = Discovery([group(file_sd=[str(tmp_path / "*.json"), str(other)])], 100)
    assert urls(found) == []
    file.write_text(
        json.dumps([{"targets": ["a:1", "b:2"], "labels": {"__metrics_path__": "/m", "pod": "x"}}])
    )
    other.write_text("- targets: ['c:3']\n  labels: {pod: y}\n")
    assert urls(found) == ["http://a:1/m", "http://b:2/m", "http://c:3/metrics"]
    for bad in (
        "[",
        '{"targets": []}',
        '[{"targets": "a:1"}]',
        '[{"targets": ["a"]}]',
        '[{"targets": [], "labels": 3}]',
        '[{"targets": [1]}]',
        '[{"targets": [], "labels": {"a": []}}]',
        "[" * 100_000,
    ):
        file.write_text(bad)
        assert urls(found) == ["http://a:1/m", "http://b:2/m", "http://c:3/metrics"]
    assert str(file) in caplog.text
    file.write_text(json.dumps([{"targets": ["b:2"]}]))
    assert urls(found) == ["http://b:2/metrics", "http://c:3/metrics"]


def test_groups_that_share_a_file_keep_their_own_targets(tmp_path: Path) -> None:
    file = tmp_path / "pods.json"
    file.write_text('[{"targets": ["a:1"]}]')
    found = Discovery([group(file_sd=[str(file)], path=path) for path in ("/agent", "/envoy")], 100)
    both = ["http://a:1/agent", "http://a:1/envoy"]
    assert urls(found) == both
    file.write_text("[")
    assert urls(found) == both
    file.unlink()
    assert urls(found) == []


def test_a_file_is_read_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pods.json"
    long_ago_s = 1_700_000_000

    def write(address: str, time_s: int) -> None:
        file.write_text(json.dumps([{"targets": [address]}]))
        os.utime(file, (time_s, time_s))

    read: list[Path] = []

    def counted(group: TargetGroup, file: Path) -> Iterator[Target]:
        read.append(file)
        return once(group, file)

    once = targets._read
    monkeypatch.setattr(targets, "_read", counted)
    found = Discovery([group(file_sd=[str(file)])], 100)
    write("a:1", long_ago_s)
    for _ in range(3):
        assert urls(found) == ["http://a:1/metrics"]
    assert len(read) == 1
    write("b:1", long_ago_s + 1)
    assert urls(found) == ["http://b:1/metrics"]
    write("c:1", int(time.time()))
    assert urls(found) == ["http://c:1/metrics"]
    assert urls(found) == ["http://c:1/metrics"]
    assert len(read) == 4, "a file just written may still change within the same time"


def test_labels_may_name_job_and_instance() -> None:
    resource = dict(make_target(group(), "10.0.0.1:1", {"job": "istiod", "instance": "istiod-1"}).resource)
    assert resource == {"service.name": "istiod", "service.instance.id": "istiod-1"}


def test_a_target_is_asked_once_and_there_are_not_too_many() -> None:
    found = Discovery([group(targets=["a:1", "b:1", "a:1", "c:1"])], 2)
    assert urls(found) == ["http://a:1/metrics", "http://b:1/metrics"]


def test_targets_are_spread_over_the_interval_and_keep_their_moment() -> None:
    interval_ns = 10 * SECOND_NS
    pods = [Target(f"http://pod-{number}:15090/metrics", ()) for number in range(200)]
    offsets = [target.offset_ns(interval_ns) for target in pods]
    tenths = {offset // SECOND_NS for offset in offsets}
    assert tenths == set(range(10))
    for target, offset in zip(pods, offsets, strict=True):
        due = target.due_ns(1_800_000_000 * SECOND_NS, interval_ns)
        assert due % interval_ns == offset
        assert 0 < due - 1_800_000_000 * SECOND_NS <= interval_ns
        assert target.due_ns(due, interval_ns) == due + interval_ns


def test_a_timeout_longer_than_the_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout is longer"):
        ScrapeSettings.model_validate({"interval": "2s", "timeout": "3s"})
