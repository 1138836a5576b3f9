"""Writes docs/settings.md and docs/self-metrics.md from the code (``make docs``); a test holds them equal."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel

from meshflow import settings as all_settings
from meshflow.settings import Name, Settings
from schemas import self_metrics

DOCS = Path(__file__).parents[2] / "docs"

_SETTINGS_HEAD = """# Settings

Made by `make docs` from the settings' own descriptions. `meshflow config` shows the values in effect and where each came from.

Later ones win: the defaults below; `meshflow.toml` of the working directory (or `--config FILE`); the environment
(`MESHFLOW_SECTION__NAME`, as in `MESHFLOW_INGEST__GRPC_PORT=4317`; `MESHFLOW_LOG` and `MESHFLOW_STORE` for the two places);
options of the command line. Durations are written like `5s`, `250ms`, `1h30m`, `7d`; sizes like `64MiB`, `1GiB` or in bytes; lists in
environment variables as JSON.
"""
_METRICS_HEAD = """# meshflow's own metrics

Made by `make docs` from `schemas/self_metrics.py`. In Prometheus' text format at `/metrics` of the SQL port (8123), with those of the
process and of Python (`process_*`, `python_*`). `up` is two processes and shows both: `process_*` is the one that processes and answers
SQL, `meshflow_receiving_process_*` the one that receives and has the log. While the
former is away (it is started again by itself), /metrics does not answer.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def settings_page() -> str:
    """docs/settings.md."""
    defaults = all_settings.load(Path("/dev/null"), {}, {}).settings
    sections = []
    for section, info in Settings.model_fields.items():
        rows = [
            f"| `{'.'.join(name[1:])}` | `{all_settings.toml_of(all_settings.value_of(defaults, name))}` | {_cell(describe(name))} |"
            for name in all_settings.names()
            if name[0] == section
        ]
        sections.append(
            "\n".join(
                [
                    f"## [{section}]",
                    "",
                    info.description or "",
                    "",
                    "| setting | default | meaning |",
                    "|---|---|---|",
                    *rows,
                    "",
                ]
            )
        )
    return "\n".join([_SETTINGS_HEAD, *sections])


def metrics_page() -> str:
    """docs/self-metrics.md."""
    rows = [
        f"| `{name}` | {kind} | {labels} | {_cell(text)} |\n"
        for name, kind, labels, text in _metrics(self_metrics)
    ]
    return _METRICS_HEAD + "".join(rows)


def write() -> None:
    """Write both pages."""
    (DOCS / "settings.md").write_text(settings_page(), encoding="utf-8")
    (DOCS / "self-metrics.md").write_text(metrics_page(), encoding="utf-8")


def describe(name: Name) -> str:
    """A setting's description."""
    model: Any = Settings
    for part in name[:-1]:
        model = model.model_fields[part].annotation
    assert issubclass(model, BaseModel)
    return model.model_fields[name[-1]].description or ""


def _metrics(module: ModuleType) -> Iterator[tuple[str, str, str, str]]:
    for metric in vars(module).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = f"{family.name}_total" if isinstance(metric, Counter) else family.name
            yield (
                name,
                family.type,
                ", ".join(f"`{label}`" for label in metric._labelnames),
                family.documentation,
            )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    write()
