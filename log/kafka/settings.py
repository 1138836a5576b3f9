"""Settings of the log on Kafka (``[ingest.kafka]`` in meshflow.toml)."""

from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field

from schemas.units import Duration, Size

MIB = 1 << 20


class KafkaWriterSettings(BaseModel):
    """How OTLP is written to Kafka, and what topics it makes where there are none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replication: int = Field(
        0, ge=0, description="Copies of each partition of topics that are made; 0: the brokers' own default."
    )
    retention: Duration = Field(
        timedelta(days=1), gt=timedelta(0), description="How long topics that are made keep records."
    )
    max_record: Size = Field(
        8 * MIB,
        ge=MIB,
        description="Largest record of topics that are made; larger gathers become several records.",
    )
    append_timeout: Duration = Field(
        timedelta(seconds=15),
        gt=timedelta(0),
        description="How long the brokers may take for an append (9s until a dead one is replaced); then its requests are refused.",
    )
