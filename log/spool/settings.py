"""Settings of the spool (``[ingest.spool]`` in meshflow.toml)."""

from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from schemas.units import Duration, Size


class SpoolSettings(BaseModel):
    """Where requests are kept while Kafka is away."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str = Field(
        "", description="Folder of the spools, one for each process; empty: spool in storage.data."
    )
    max_size: Size = Field(
        8 << 30,
        ge=0,
        description="Bytes on disk (packed OTLP) that each process may spool; beyond it requests are refused. 0: no spool.",
    )
    after: Duration = Field(
        timedelta(seconds=2),
        gt=timedelta(0),
        description="How long Kafka may take for an append until it goes to the spool as well.",
    )

    def path(self, data: Path) -> Path:
        """The folder, where ``data`` is storage.data."""
        return Path(self.folder) if self.folder else data / "spool"
