"""What holds for the project as a whole: what is installed, and that the reference pages say what the code does."""

from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest

from meshflow import reference
from meshflow.settings import names
from storage.migrate import migrations

PACKAGES = ("meshflow", "ingest", "processors", "storage", "schemas", "console")


def test_every_package_name_is_meshflows_alone() -> None:
    try:
        distribution("meshflow")
    except PackageNotFoundError:
        pytest.fail("meshflow is not installed here; run `make install`")
    owners = packages_distributions()
    assert {name: sorted(set(owners.get(name, ()))) for name in PACKAGES} == {name: ["meshflow"] for name in PACKAGES}


def test_the_settings_page_is_what_the_settings_say() -> None:
    assert (reference.DOCS / "settings.md").read_text(encoding="utf-8") == reference.settings_page(), "run `make docs`"


def test_the_metrics_page_is_what_the_metrics_say() -> None:
    assert (reference.DOCS / "self-metrics.md").read_text(encoding="utf-8") == reference.metrics_page(), "run `make docs`"


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name in names() if len(reference.describe(name)) < 10] == []


def test_the_changelog_begins_with_what_is_not_released() -> None:
    assert "## Unreleased" in (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")


def test_migrations_are_numbered_without_gaps() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))
