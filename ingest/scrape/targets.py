"""Targets: those of the settings, and those of Prometheus' file_sd files.

https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
"""

import glob
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ingest.scrape.settings import TargetGroup

_LOGGER = logging.getLogger(__name__)
_ADDRESS = re.compile(r"^(?:\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]+):\d{1,5}$")
_MOST_FILE_BYTES = 64 << 20
_ATTRIBUTES = {
    "namespace": "k8s.namespace.name",
    "pod": "k8s.pod.name",
    "node": "k8s.node.name",
    "container": "k8s.container.name",
    "cluster": "k8s.cluster.name",
}
"""Labels that resources have another name for."""


@dataclass(frozen=True, slots=True)
class Target:
    """One page."""

    url: str
    resource: tuple[tuple[str, str], ...]
    """Attributes of its metrics' resource, sorted."""

    def offset_ns(self, interval_ns: int) -> int:
        """When within each interval the target is asked: spread by its name, the same after a restart."""
        digest = hashlib.sha256(repr((self.url, self.resource)).encode()).digest()
        return int.from_bytes(digest[:8], "big") % interval_ns

    def due_ns(self, now_ns: int, interval_ns: int) -> int:
        """The next time after ``now_ns``."""
        offset_ns = self.offset_ns(interval_ns)
        return now_ns - (now_ns - offset_ns) % interval_ns + interval_ns


def make_target(group: TargetGroup, address: str, labels: Mapping[str, str]) -> Target:
    """A target of a group. Raises ValueError for what is no ``HOST:PORT``."""
    if not _ADDRESS.match(address) or int(address.rpartition(":")[2]) > 65535:
        raise ValueError(f"{address!r} is no HOST:PORT")
    scheme, path = labels.get("__scheme__", group.scheme), labels.get("__metrics_path__", group.path)
    if scheme not in ("http", "https") or not path.startswith("/"):
        raise ValueError(f"{scheme}://{address}{path} is no page")
    shown = {key: value for key, value in labels.items() if not key.startswith("__")}
    resource = {_ATTRIBUTES.get(key, key): value for key, value in {**group.labels, **shown}.items()}
    resource = {"service.name": group.job, "service.instance.id": address} | resource
    return Target(f"{scheme}://{address}{path}", tuple(sorted(resource.items())))


class Discovery:
    """Targets now. Of a file that cannot be used the last good content holds."""

    def __init__(self, groups: Iterable[TargetGroup], most: int) -> None:
        self._groups = tuple(groups)
        self._most = most
        self._good: dict[Path, tuple[Target, ...]] = {}
        self._faults: dict[Path, str] = {}

    def targets(self) -> tuple[Target, ...]:
        """Each target once, at most so many, in the order of settings and files."""
        found = dict.fromkeys(target for group in self._groups for target in self._of(group))
        if len(found) > self._most:
            _LOGGER.warning(
                "%d targets are more than scrape.max_targets: %d are left out",
                len(found),
                len(found) - self._most,
            )
        return tuple(found)[: self._most]

    def _of(self, group: TargetGroup) -> Iterator[Target]:
        for address in group.targets:
            yield make_target(group, address, {})
        for pattern in group.file_sd:
            for name in sorted(glob.glob(pattern)):
                yield from self._of_file(group, Path(name))

    def _of_file(self, group: TargetGroup, file: Path) -> tuple[Target, ...]:
        try:
            self._good[file] = tuple(_read(group, file))
            self._faults.pop(file, None)
        except (OSError, ValueError, yaml.YAMLError) as error:
            fault = " ".join(str(error).split())
            if self._faults.get(file) != fault:
                self._faults[file] = fault
                _LOGGER.warning("targets of %s stay as they were, it cannot be used: %s", file, fault)
        return self._good.get(file, ())


def _read(group: TargetGroup, file: Path) -> Iterator[Target]:
    """Raises OSError, ValueError, YAMLError."""
    if file.stat().st_size > _MOST_FILE_BYTES:
        raise ValueError("it is larger than 64 MiB")
    text = file.read_text(encoding="utf-8")
    content: Any = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    if not isinstance(content, list):
        raise ValueError("it is no list of target groups")
    for number, entry in enumerate(content):
        if not isinstance(entry, dict) or not isinstance(entry.get("targets"), list):
            raise ValueError(f"group {number} has no list of targets")
        labels = entry.get("labels") or {}
        if not isinstance(labels, dict):
            raise ValueError(f"the labels of group {number} are no mapping")
        for address in entry["targets"]:
            yield make_target(group, str(address), {str(key): str(value) for key, value in labels.items()})
