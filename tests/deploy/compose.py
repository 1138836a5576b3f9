"""``deploy/compose.yaml`` as an engine would read it: overlays merged, ``${NAME:-default}`` replaced by the
default.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.support.up import ROOT

DEPLOY = ROOT / "deploy"
_VARIABLE = re.compile(r"\$\{\w+:-([^}]*)\}")


def read_compose(*names: str) -> dict[str, Any]:
    """The files merged; each service's environment is a mapping of strings."""
    merged: dict[str, Any] = {}
    for name in names:
        merged = _merged(merged, yaml.safe_load(_VARIABLE.sub(r"\1", (DEPLOY / name).read_text())))
    for service in merged["services"].values():
        service["environment"] = {name: str(value) for name, value in service.get("environment", {}).items()}
    return merged


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def _merged(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {
            key: _merged(below[key], above[key]) if key in below and key in above else {**below, **above}[key]
            for key in {**below, **above}
        }
    return above
