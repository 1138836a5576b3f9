"""Targets: those of the settings, and those of Prometheus' file_sd files.

https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config
"""

import glob
import hashlib
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ingest.scrape.settings import TargetGroup
from schemas.units import NS_PER_S

_LOGGER = logging.getLogger(__name__)
_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]+):[0-9]{1,5}")
_MOST_FILE_BYTES = 64 << 20
_MOST_FAULT = 300
_SETTLED_NS = 2 * NS_PER_S
_ATTRIBUTES = {
    "job": "service.name",
    "instance": "service.instance.id",
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
    if not _ADDRESS.fullmatch(address) or int(address.rpartition(":")[2]) > 65535:
        raise ValueError(f"{address!r} is no HOST:PORT")
    scheme, path = labels.get("__scheme__", group.scheme), labels.get("__metrics_path__", group.path)
    if scheme not in ("http", "https") or not path.startswith("/"):
        raise ValueError(f"{scheme}://{address}{path} is no page")
    shown = {key: value for key, value in labels.items() if not key.startswith("__")}
    resource = {_ATTRIBUTES.get(key, key): value for key, value in {**group.labels, **shown}.items()}
    resource = {"service.name": group.job, "service.instance.id": address} | resource
    return Target(f"{scheme}://{address}{path}", tuple(sorted(resource.items())))


@dataclass(slots=True)
class _File:
    """What is known of a file_sd file, for one group."""

    version: tuple[int, ...] = ()
    """Of the content that was read last, good or bad. Empty: it is to be read again."""
    good: tuple[Target, ...] = ()
    fault: str = ""


class Discovery:
    """Targets now.

    A file is read when it has changed. Of one that cannot be used the last good content holds.
    """

    def __init__(self, groups: Iterable[TargetGroup], most: int) -> None:
        self._groups = tuple(groups)
        self._most = most
        self._files: dict[tuple[int, Path], _File] = {}
        self._left_out = 0

    def targets(self) -> tuple[Target, ...]:
        """Each target once, at most so many, in the order of settings and files."""
        files, self._files = self._files, {}
        found = dict.fromkeys(
            target for number, group in enumerate(self._groups) for target in self._of(number, group, files)
        )
        left_out = max(0, len(found) - self._most)
        if left_out and left_out != self._left_out:
            _LOGGER.warning(
                "%d targets are more than scrape.max_targets: %d are left out", len(found), left_out
            )
        self._left_out = left_out
        return tuple(found)[: self._most]

    def _of(self, number: int, group: TargetGroup, files: dict[tuple[int, Path], _File]) -> Iterator[Target]:
        """``files``: what was known before; a file that is gone is forgotten, and its targets with it."""
        for address in group.targets:
            yield make_target(group, address, {})
        for name in dict.fromkeys(name for pattern in group.file_sd for name in sorted(glob.glob(pattern))):
            key = number, Path(name)
            self._files[key] = files.get(key) or _File()
            yield from _targets_of(group, key[1], self._files[key])


def _targets_of(group: TargetGroup, file: Path, known: _File) -> tuple[Target, ...]:
    try:
        state = file.stat()
        version = state.st_ino, state.st_size, state.st_mtime_ns
        if version == known.version:
            return known.good
        # the clock of files is coarse: of one that was just written more may come under the same time
        is_settled = time.time_ns() - state.st_mtime_ns > _SETTLED_NS
        known.version = version if is_settled else ()
        known.good = tuple(_read(group, file))
        known.fault = ""
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        if isinstance(error, OSError):
            known.version = ()
        fault = " ".join(str(error).split())[:_MOST_FAULT]
        if known.fault != fault:
            known.fault = fault
            _LOGGER.warning("targets of %s stay as they were, it cannot be used: %s", file, fault)
    return known.good


def _read(group: TargetGroup, file: Path) -> Iterator[Target]:
    """Raises OSError, ValueError, RecursionError, YAMLError."""
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
        if not all(isinstance(value, str | int | float) for value in labels.values()):
            raise ValueError(f"a label of group {number} is no text")
        texts = {str(key): str(value) for key, value in labels.items()}
        for address in entry["targets"]:
            if not isinstance(address, str):
                raise ValueError(f"a target of group {number} is no text")
            yield make_target(group, address, texts)
