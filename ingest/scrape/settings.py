"""Settings of ``meshflow scrape`` (``[scrape]`` in meshflow.toml)."""

from datetime import timedelta
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.units import Duration, Size

_MIB = 1 << 20


class TargetGroup(BaseModel):
    """Targets with the same labels, as a group of Prometheus' ``static_configs``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str = Field(min_length=1, max_length=256)
    targets: tuple[str, ...] = ()
    """``HOST:PORT`` each."""
    file_sd: tuple[str, ...] = ()
    """Files of Prometheus' file_sd (JSON, YAML), ``*`` in the last part of the path."""
    scheme: Literal["http", "https"] = "http"
    path: str = Field("/metrics", pattern=r"^/")
    labels: dict[str, str] = Field(default_factory=dict)


class ScrapeSettings(BaseModel):
    """Whose pages are asked for, how often, and where they go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups: tuple[TargetGroup, ...] = Field(
        (),
        description='Targets: [[scrape.groups]] with job, targets = ["HOST:PORT"], file_sd = ["FILE"], scheme, path, labels.',
    )
    endpoint: str = Field(
        "http://127.0.0.1:4318",
        pattern=r"^https?://[^/]+$",
        description="OTLP/HTTP receiver that takes the metrics.",
    )
    token: str = Field("", description="File of the bearer token for the receiver. Empty: none is sent.")
    ca: str = Field(
        "", description="File of the CAs that https targets and receiver come from. Empty: the system's."
    )
    interval: Duration = Field(
        timedelta(seconds=10), ge=timedelta(seconds=1), description="Time between two pages of a target."
    )
    timeout: Duration = Field(
        timedelta(seconds=5), gt=timedelta(0), description="How long a target may take for its page."
    )
    refresh: Duration = Field(
        timedelta(seconds=10),
        ge=timedelta(seconds=1),
        description="How often file_sd files are looked at for changes.",
    )
    max_page: Size = Field(
        16 * _MIB, gt=0, description="Largest page; a larger one counts as a failed scrape."
    )
    max_samples: int = Field(
        200_000, gt=0, description="Most samples of a page; one with more counts as a failed scrape."
    )
    max_targets: int = Field(10_000, gt=0, description="Most targets; further ones are left out.")
    concurrency: int = Field(64, gt=0, le=1024, description="Pages that are asked for at the same time.")

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        if self.timeout > self.interval:
            raise ValueError("timeout is longer than interval")
        return self
