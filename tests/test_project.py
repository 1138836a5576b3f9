"""What holds for the project as a whole: what is installed, and that the reference pages say what the code
does.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

from meshflow.settings import names
from meshflow.tools import reference
from storage.migrate import migrations
from tests.soak import CAMPAIGNS

ROOT = Path(__file__).parents[1]
PACKAGES = ("meshflow", "ingest", "processors", "storage", "log", "schemas", "console")


def test_every_package_name_is_meshflows_alone() -> None:
    try:
        distribution("meshflow")
    except PackageNotFoundError:
        pytest.fail("meshflow is not installed here; run `make install`")
    owners = packages_distributions()
    assert {name: sorted(set(owners.get(name, ()))) for name in PACKAGES} == {
        name: ["meshflow"] for name in PACKAGES
    }


def imported(package: str) -> Iterator[str]:
    """Top-level names that a package's modules import, but for ours and Python's."""
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            yield from (
                {module.split(".")[0] for module in modules} - set(PACKAGES) - sys.stdlib_module_names
            )


def normal(name: str) -> str:
    """A distribution's name as the packaging specification (PEP 503) compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_meshflow_imports_is_installed_with_it_without_the_developers_tools() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    dependencies = {normal(re.split(r"[\[<>=~! ]", dependency)[0]) for dependency in project["dependencies"]}
    owners = packages_distributions()
    names = {name for package in PACKAGES for name in imported(package)}
    assert len(names) > 20
    assert {name for name in names if dependencies.isdisjoint(map(normal, owners.get(name, ())))} == set()


def test_the_settings_page_is_what_the_settings_say() -> None:
    assert (reference.DOCS / "settings.md").read_text(encoding="utf-8") == reference.settings_page(), (
        "run `make docs`"
    )


def test_the_metrics_page_is_what_the_metrics_say() -> None:
    assert (reference.DOCS / "self-metrics.md").read_text(encoding="utf-8") == reference.metrics_page(), (
        "run `make docs`"
    )


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name in names() if len(reference.describe(name)) < 10] == []


def test_the_changelog_begins_with_what_is_not_released() -> None:
    assert "## Unreleased" in (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")


def test_migrations_are_numbered_without_gaps() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_every_campaign_of_make_soak_is_there() -> None:
    assert all(find_spec(module) for module, *_ in CAMPAIGNS)
