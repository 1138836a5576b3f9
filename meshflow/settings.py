"""Every setting of meshflow, from ``meshflow.toml``, the environment and the command line, with where each
value came from.

Later ones win: defaults, the file, ``MESHFLOW_SECTION__NAME`` variables (``MESHFLOW_LOG`` and
``MESHFLOW_STORE`` for the two places), command-line options.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from console.settings import ConsoleSettings
from ingest.scrape.settings import ScrapeSettings
from ingest.settings import IngestSettings
from log.kafka.security import KafkaSecuritySettings
from processors.settings import ProcessorSettings
from processors.spans.sampling.settings import SamplingSettings
from schemas.errors import MeshflowError
from storage.settings import StorageSettings, without_password

FILE = "meshflow.toml"
PREFIX = "MESHFLOW_"
SHORT_NAMES = {"MESHFLOW_LOG": "MESHFLOW_STORAGE__LOG", "MESHFLOW_STORE": "MESHFLOW_STORAGE__STORE"}
NOT_SETTINGS = frozenset({"MESHFLOW_DECODER", "MESHFLOW_TEST_REQUIRE"})
"""Variables that something other than the settings reads."""
DERIVED = {
    ("storage", "partitions"): ("processing", "partitions"),
    ("storage", "rollup_grace"): ("processing", "rollup_grace"),
}
"""What storage has to know of processing: not set by itself, taken from there."""

_SECRET = frozenset({"store", "log", "password", "key_password", "hash_key"})
"""Settings whose values an error must not show."""

Name = tuple[str, ...]
"""Section and setting, ``("ingest", "grpc_port")``; three parts for a table within a section."""


_Model = TypeVar("_Model", bound=BaseModel)


class SettingsInvalid(MeshflowError):
    """A setting is unknown or wrong; the text says which, where it was read, and what would do."""


class Settings(BaseSettings):
    """All sections of ``meshflow.toml``. Made by :func:`load`; ``Settings()`` itself reads nothing but the
    environment.
    """

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__"
    )

    ingest: IngestSettings = Field(default_factory=IngestSettings, description="Receivers of OTLP.")
    scrape: ScrapeSettings = Field(
        default_factory=ScrapeSettings, description="Prometheus' pages that `meshflow scrape` asks for."
    )
    processing: ProcessorSettings = Field(
        default_factory=ProcessorSettings, description="Panes, windows and limits."
    )
    sampling: SamplingSettings = Field(default_factory=SamplingSettings, description="Which traces are kept.")
    storage: StorageSettings = Field(
        default_factory=StorageSettings, description="The log and the tables, and how long they keep what."
    )
    kafka: KafkaSecuritySettings = Field(
        default_factory=KafkaSecuritySettings, description="TLS and login of Kafka's brokers."
    )
    console: ConsoleSettings = Field(
        default_factory=ConsoleSettings, description="SQL over HTTP and /metrics."
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and, for each that is not a default, where it was read."""

    settings: Settings
    origins: Mapping[Name, str]

    def origin(self, name: Name) -> str:
        """Where a setting's value came from."""
        return next(
            (self.origins[name[:depth]] for depth in range(len(name), 0, -1) if name[:depth] in self.origins),
            "default",
        )


class _Environment(EnvSettingsSource):
    """MESHFLOW_* variables of a given environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {
            SHORT_NAMES.get(name, name).lower(): value
            for name, value in environ.items()
            if name.startswith(PREFIX)
        }
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._environ


def load(
    file: Path | None = None,
    options: Mapping[Name, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Read every source and check the whole. ``options`` are values of the command line by setting.

    Without ``file``, ``meshflow.toml`` of the working directory is read where there is one. Raises
    SettingsInvalid.
    """
    environ = os.environ if environ is None else environ
    path = file or (Path(FILE) if Path(FILE).is_file() else None)
    origins: dict[Name, str] = {}
    values: dict[str, Any] = {}
    layers = (
        (_read_file(path), f"file {path}"),
        (_read_environment(environ), "environment"),
        (_nested(options or {}), "command line"),
    )
    for layer, origin in layers:
        for name, value in _leaves(layer, Settings):
            origins[name] = _variable(name, environ) if origin == "environment" else origin
            _put(values, name, value)
    if early := next((name for name in DERIVED if name in origins), None):
        raise SettingsInvalid(
            f"{origins[early]}: {'.'.join(early)} follows {'.'.join(DERIVED[early])}; set that instead"
        )
    settings = _checked(Settings, values, (), origins)
    derived = {
        late: getattr(getattr(settings, section), name) for (_, late), (section, name) in DERIVED.items()
    }
    storage = _checked(StorageSettings, {**settings.storage.model_dump(), **derived}, ("storage",), origins)
    return Loaded(settings.model_copy(update={"storage": storage}), origins)


def _checked(
    model: type[_Model], values: Mapping[str, Any], above: Name, origins: Mapping[Name, str]
) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SettingsInvalid(
            "\n".join(_explain(fault, above, origins) for fault in error.errors())
        ) from None


def names(model: type[BaseModel] = Settings, above: Name = ()) -> Iterator[Name]:
    """Every setting there is, tables within sections taken apart, in the order of the models."""
    for field, info in model.model_fields.items():
        name = (*above, field)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from names(info.annotation, name)
        elif name not in DERIVED:
            yield name


def value_of(settings: BaseModel, name: Name) -> Any:
    """A setting's value as a file would write it, but for passwords in URLs."""
    value: Any = settings.model_dump(mode="json")
    for part in name:
        value = value[part]
    return without_password(value) if isinstance(value, str) else value


def _read_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsInvalid(f"settings file {path} is not there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"settings file {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid(f"settings file {path} is not TOML: {error}") from error


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    known = {_variable_name(name) for name in names()} | set(SHORT_NAMES) | NOT_SETTINGS
    for variable in environ:
        if (
            variable.startswith(PREFIX)
            and variable not in known
            and variable.rpartition("__")[0] not in known
        ):
            raise SettingsInvalid(
                f"environment variable {variable} names no setting{_hint(variable, known)}; `meshflow config` lists all"
            )
    try:
        return _Environment(environ)()
    except SettingsError as error:
        raise SettingsInvalid(f"environment: {error}; lists are written as JSON") from error


def _nested(options: Mapping[Name, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in options.items():
        _put(values, name, value)
    return values


def _leaves(layer: Mapping[str, Any], model: type[BaseModel], above: Name = ()) -> Iterator[tuple[Name, Any]]:
    """Name and value of each setting that a layer gives (an unknown one too: it is refused when all is put
    together).
    """
    for key, value in layer.items():
        field = model.model_fields.get(key)
        inner = field.annotation if field else None
        if isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _leaves(value, inner, (*above, key))
        else:
            yield (*above, key), value


def _put(values: dict[str, Any], name: Name, value: Any) -> None:
    for part in name[:-1]:
        values = values.setdefault(part, {})
    values[name[-1]] = value


def _variable_name(name: Name) -> str:
    return PREFIX + "__".join(name).upper()


def _variable(name: Name, environ: Mapping[str, str]) -> str:
    long = _variable_name(name)
    short = next((short for short, full in SHORT_NAMES.items() if full == long and short in environ), None)
    return f"environment variable {short or long}"


def _explain(fault: Any, above: Name, origins: Mapping[Name, str]) -> str:
    """One line: where, which setting, what is wrong and what would do."""
    name = (*above, *(str(part) for part in fault["loc"]))
    where = next(
        (origins[name[:depth]] for depth in range(len(name), 0, -1) if name[:depth] in origins), "settings"
    )
    dotted = ".".join(name) or "settings"
    if fault["type"] == "extra_forbidden":
        siblings = {
            known[len(name) - 1]
            for known in names()
            if len(known) >= len(name) and known[: len(name) - 1] == name[:-1]
        }
        kind = "section" if len(name) == 1 else "setting"
        return f"{where}: there is no {kind} {dotted}{_hint(name[-1], siblings)}; `meshflow config` lists all"
    message = str(fault["msg"]).removeprefix("Value error, ")
    given = fault["input"]
    shown = (
        f" = {given!r}"
        if isinstance(given, str | int | float | bool) and not _SECRET.intersection(name)
        else ""
    )
    return f"{where}: {dotted}{shown}: {message[:1].lower()}{message[1:]}"


def _hint(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (do you mean {close[0]}?)" if close else ""


def toml_of(value: Any) -> str:
    """A value as ``meshflow.toml`` writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return (
            "{ "
            + ", ".join(f"{key} = {toml_of(item)}" for key, item in value.items() if item is not None)
            + " }"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
