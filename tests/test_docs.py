"""What the documents show works as shown."""

import re
from pathlib import Path

import pytest

from meshflow.settings import load, names
from processors.spans.sampling.policies import POLICY_TYPES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGES = ("meshflow", "console", "ingest", "processors", "storage", "log", "schemas")
_PLACE = re.compile(
    r"(?<![\w/.-])(?:meshflow|console|ingest|processors|storage|log|schemas|native|deploy|benchmarks|tests|docs)/[\w./-]*[\w/]"
)
_MODULE = re.compile(
    r"(?<![\w.])(?:meshflow|console|ingest|processors|storage|log|schemas)(?:\.[A-Za-z_]\w*)+"
)
_MADE_LATER = re.compile(r"log/\w+\.sqlite[\w.-]*")
"""Files of a data folder."""
_OTHER_NAMES = frozenset({"meshflow.toml", "meshflow.cut", "log.seen", "ingest.receiver"})
"""A file, an attribute, a file of a data folder, and a class of another system."""


def pages() -> list[Path]:
    """All that people read: documents, and the code with its docstrings."""
    code = [
        path for name in (*PACKAGES, "benchmarks", "tests", "deploy") for path in (ROOT / name).rglob("*.py")
    ]
    return [
        *ROOT.glob("*.md"),
        *DOCS.rglob("*.md"),
        *(ROOT / "deploy").glob("*.md"),
        *code,
        *ROOT.glob("native/src/**/*.rs"),
    ]


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


def test_files_that_are_named_are_there() -> None:
    """A part of a name does as well: ``docs/adr/0012`` is a file that begins so."""
    named = {(page, place) for page in pages() for place in _PLACE.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 100
    gone = sorted(
        f"{page.relative_to(ROOT)}: {place}"
        for page, place in named
        if not _MADE_LATER.fullmatch(place)
        and not (ROOT / place).exists()
        and not list(ROOT.glob(f"{place}*"))
    )
    assert gone == []


def referenced() -> set[tuple[Path, str]]:
    """Our modules, classes and functions that docstrings name, in roles or in double backticks."""
    settings = set(names())
    marked = re.compile(r"(?::\w+:`|``)([\w.]+)`")
    return {
        (page, text)
        for page in pages()
        if page.suffix == ".py"
        for text in marked.findall(page.read_text(encoding="utf-8"))
        if _MODULE.fullmatch(text) and text not in _OTHER_NAMES and tuple(text.split(".")) not in settings
    }


def test_modules_that_docstrings_name_are_there() -> None:
    found = referenced()
    assert len(found) > 20
    gone = sorted(f"{page.relative_to(ROOT)}: {text}" for page, text in found if not is_there(text))
    assert gone == []


def is_there(dotted: str) -> bool:
    """Whether ``package.module.Name.method`` is there: the module as a file, the names in its text."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:end])
        files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
        if files:
            text = files[0].read_text(encoding="utf-8")
            return all(re.search(rf"\b{name}\b", text) for name in parts[end:])
    return (ROOT / parts[0]).is_dir() and len(parts) == 1


def test_the_architecture_page_has_a_row_for_each_folder() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    folders = {
        f"{path.parent.relative_to(ROOT)}/"
        for name in PACKAGES
        for path in (ROOT / name).rglob("__init__.py")
    }
    inner = {folder for folder in folders if folder.count("/") > 1}
    assert {folder for folder in folders - inner if f"| `{folder}`" not in page} == set()
    missing = {
        folder for folder in inner if f"`{folder}`" not in page and f"`{folder.split('/', 1)[1]}`" not in page
    }
    assert missing == set()
