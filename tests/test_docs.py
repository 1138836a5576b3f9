"""What the documents show works as shown."""

import re
from pathlib import Path

import pytest

from meshflow.settings import load
from processors.spans.sampling.policies import POLICY_TYPES

DOCS = Path(__file__).parents[1] / "docs"


def test_the_sampling_example_is_a_valid_configuration(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", (DOCS / "sampling.md").read_text(), re.DOTALL)
    assert example
    file = tmp_path / "meshflow.toml"
    file.write_text(example[1])
    policies = load(file, {}, {}).settings.sampling.policies
    assert [policy.name for policy in policies] == re.findall(r'^name = "(.*)"', example[1], re.MULTILINE)


def test_the_sampling_page_names_every_policy_type() -> None:
    page = (DOCS / "sampling.md").read_text()
    assert [name for name in POLICY_TYPES if f"`{name}`" not in page] == []


@pytest.mark.parametrize("path", sorted((DOCS / "adr").glob("0*.md")), ids=lambda path: path.stem)
def test_a_decision_stands_first_and_in_bold(path: Path) -> None:
    title, _, decision = path.read_text(encoding="utf-8").partition("\n\n")
    assert title.startswith("# ")
    assert decision.startswith("**")
