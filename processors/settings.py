"""Section ``[processing]`` of the settings; sampling has a section of its own."""

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.otlp.limits import DEFAULT_LIMITS, Limits
from schemas.topics import LOGS, METRICS, SPANS
from schemas.units import Duration, Size, to_ns

_TOPIC = r"^[a-zA-Z0-9._-]{0,200}$"


class LabelLimits(BaseModel):
    """Bounds on what senders can make of rows; what is over a bound is counted under ``other``, by pane and
    partition.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    operations_per_service: int = Field(
        default=200,
        ge=1,
        description="Operations of one service that keep their name in a pane: the busiest, ties by name.",
    )
    services: int = Field(
        default=20_000,
        ge=1,
        description="Services that keep their name in a pane: the busiest, ties by name.",
    )
    new_services: int = Field(
        default=500,
        ge=1,
        description="Of services not met in the lookback, so many keep their name in a pane: the busiest. Not while a partition begins.",
    )
    new_operations: int = Field(
        default=20,
        ge=1,
        description="Of a service's operations not met in the lookback, so many keep theirs in a pane: the busiest."
        " Not while a partition begins.",
    )
    nodes: int = Field(
        default=50_000,
        ge=1,
        description="Ends of edges (services by version, databases, queues) that keep their name in a pane: the busiest.",
    )
    series: int = Field(
        default=250_000, ge=1, description="Rows that one pane of one partition may add to one table."
    )
    label_length: int = Field(
        default=256, ge=16, description="Characters that a label keeps; longer ones are cut."
    )


class BreakerSettings(BaseModel):
    """When records that fail are too many to be set aside: then the fault is meshflow's, and processing
    stops. Malformed records do not count.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_a_row: int = Field(
        default=1_000,
        ge=1,
        description="Records of one partition that fail one after the other before processing stops.",
    )
    share: float = Field(
        default=0.5, gt=0, le=1, description="Share of failing records over which processing stops."
    )
    of_records: int = Field(
        default=10_000, ge=1, description="Records of one partition, the last ones, that share is of."
    )


class KafkaReaderSettings(BaseModel):
    """How workers share the partitions of a log on Kafka."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: str = Field(
        default="meshflow",
        pattern=r"^[a-zA-Z0-9._-]+$",
        description="Consumer group: workers of one group share the work.",
    )
    session_timeout: Duration = Field(
        default=timedelta(seconds=10),
        description="Silence of a worker after which its partitions go to the others.",
    )
    commit_every: Duration = Field(
        default=timedelta(seconds=1), description="How often a worker commits how far it is."
    )
    threads: int = Field(
        default=4, ge=1, description="Panes that one worker decodes, decides or stores at the same time."
    )
    stop_time: Duration = Field(
        default=timedelta(seconds=20), description="How long a stop may take to finish the panes in hand."
    )

    @model_validator(mode="after")
    def _times_make_sense(self) -> "KafkaReaderSettings":
        if not timedelta(seconds=1) <= self.session_timeout <= timedelta(seconds=30):
            raise ValueError("session_timeout must be 1s to 30s")
        if self.commit_every < timedelta(milliseconds=10) or self.stop_time < timedelta(0):
            raise ValueError("commit_every must be at least 10ms; stop_time cannot be negative")
        return self


class RepartitionSettings(BaseModel):
    """What `meshflow repartition` reads: OTLP (`otlp_proto`) on topics that are not split by trace id. It
    writes to those of the log.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source_prefix: str = Field(
        default="unsplit.",
        pattern=r"^[a-zA-Z0-9._-]{0,200}$",
        description="What names of topics to read begin with.",
    )
    spans: str = Field(
        default=SPANS, pattern=_TOPIC, description="Topic of spans to read, after source_prefix; empty: none."
    )
    metrics: str = Field(
        default=METRICS,
        pattern=_TOPIC,
        description="Topic of metrics to read, after source_prefix; empty: none.",
    )
    logs: str = Field(
        default=LOGS,
        pattern=_TOPIC,
        description="Topic of log records to read, after source_prefix; empty: none.",
    )
    group: str = Field(
        default="meshflow-repartition",
        pattern=r"^[a-zA-Z0-9._-]+$",
        description="Consumer group: those of one group share the work.",
    )
    batch: Size = Field(
        default=4 << 20,
        ge=1 << 16,
        description="OTLP bytes that are split and written at a time, for each partition read.",
    )

    @property
    def sources(self) -> dict[str, str]:
        """The topics to read (after the prefix) -> the topic of the log that each is written to."""
        return {
            name: topic
            for name, topic in ((self.spans, SPANS), (self.metrics, METRICS), (self.logs, LOGS))
            if name
        }

    @model_validator(mode="after")
    def _something_once(self) -> "RepartitionSettings":
        named = [name for name in (self.spans, self.metrics, self.logs) if name]
        if len(set(named)) < max(len(named), 1):
            raise ValueError("spans, metrics and logs must name different topics, and one of them at least")
        return self


class AttributeLimits(BaseModel):
    """How much of attributes, texts and lists is stored; what is left out is named by the attribute
    ``meshflow.cut``, and counted in the ledger.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    value_bytes: Size = Field(
        default=DEFAULT_LIMITS.value_bytes,
        ge=1 << 10,
        le=1 << 20,
        description="Longest attribute value, key, and other text (names, messages, trace states); values and texts are cut.",
    )
    set_bytes: Size = Field(
        default=DEFAULT_LIMITS.set_bytes,
        ge=1 << 12,
        le=1 << 22,
        description="Most bytes of the attributes of one item, resource or scope (those that do not fit are left out), and of a log body.",
    )
    set_entries: int = Field(
        default=DEFAULT_LIMITS.set_entries,
        ge=16,
        le=100_000,
        description="Most attributes of one item, resource or scope; the first ones stay.",
    )
    list_entries: int = Field(
        default=DEFAULT_LIMITS.list_entries,
        ge=16,
        le=100_000,
        description="Most events or links of a span, most exemplars of a data point; the first ones stay.",
    )


class HeadSampling(BaseModel):
    """A share of traces that was let through before spans came here, and whose it is; without ``service`` and
    ``cluster``: everybody's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: str | None = Field(
        default=None, min_length=1, description="service.name of the spans' resource, as it came."
    )
    cluster: str | None = Field(default=None, min_length=1, description="Cluster of the spans' resource.")
    probability: float = Field(
        ge=1e-6,
        le=1,
        allow_inf_nan=False,
        description="Share of the traces that is let through: 0.01 is 1 %.",
    )

    def covers(self, other: "HeadSampling") -> bool:
        """Whether all that another rule matches is matched by this one."""
        return self.service in (None, other.service) and self.cluster in (None, other.cluster)


class Dimension(BaseModel):
    """A further key of rows of RED and edges: the value of an attribute of the span, else of its resource."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$",
        description="What the value is called in `dimensions`: letters, digits, underscores.",
    )
    key: str = Field(min_length=1, max_length=256, description="The attribute's key.")
    default: str = Field(
        default="",
        max_length=256,
        description="The value of spans that have no such attribute, or an empty one.",
    )
    values: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="Values that keep their name in a pane (the busiest, ties by name), a tenth of them new ones; others are `other`.",
    )


MetricTable = Literal["traffic", "upstreams", "proxies", "control_plane", "certificates"]


class MetricSettings(BaseModel):
    """Which metrics of proxies and of Istio become rows of tables of counters, and what is stored besides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    families: tuple[MetricTable, ...] = Field(
        default=("traffic", "upstreams", "proxies", "control_plane", "certificates"),
        description="Tables of counters to make; metrics that go into one are not stored as points.",
    )
    keep: tuple[str, ...] = Field(
        default=(),
        max_length=1_000,
        description="Names of metrics (* and ? are wild) stored as points in any case; proxies' own that no table takes are left out.",
    )

    @field_validator("keep")
    @classmethod
    def _patterns_are_short(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not 0 < len(pattern) <= 256 or pattern.count("*") > 4:
                raise ValueError(f"{pattern[:80]!r}: a name has 1 to 256 characters, and four * at most")
        return patterns


class ProcessorSettings(BaseModel):
    """Panes, windows and limits of processing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pane: Duration = Field(default=timedelta(seconds=5), description="How long a pane is, in log time.")
    wait: int = Field(
        default=2,
        ge=0,
        description="Panes that must close after a pane before its traces and edges are decided.",
    )
    lookback: Duration = Field(
        default=timedelta(seconds=60),
        description="How far back copies, parents and a trace's earlier spans are looked for; read again on a restart.",
    )
    metrics_lookback: Duration = Field(
        default=timedelta(minutes=3),
        description="How long the last point of a counter is remembered, from which the next one adds; read again on a restart.",
    )
    metrics: MetricSettings = Field(
        default=MetricSettings(), description="Tables of counters, and which metrics are stored as points."
    )
    rollup_grace: Duration = Field(
        default=timedelta(minutes=15),
        description="How long after its end an hour is rolled up; what comes later goes to every level at once, marked late.",
    )
    partitions: int = Field(
        default=4, ge=1, description="Partitions of each topic; their panes are staggered."
    )
    pane_bytes: Size = Field(
        default=256 << 20,
        ge=1 << 20,
        le=1 << 30,
        description="OTLP bytes of a partition's pane, and of its rows (256 an item), that are processed; records over it are set aside.",
    )
    breaker: BreakerSettings = Field(
        default=BreakerSettings(),
        description="When failing records stop processing instead of being set aside.",
    )
    kafka: KafkaReaderSettings = Field(default=KafkaReaderSettings(), description="Reading from Kafka.")
    repartition: RepartitionSettings = Field(
        default=RepartitionSettings(), description="Splitting topics of other writers by trace id."
    )
    attributes: AttributeLimits = Field(
        default=AttributeLimits(), description="Bounds on attributes that are stored."
    )
    errors_from_codes: bool = Field(
        default=True,
        description="Whether HTTP and gRPC codes of SERVER and CLIENT spans without a status count as errors; false: the status alone.",
    )
    head_sampling: tuple[HeadSampling, ...] = Field(
        default=(),
        max_length=1_000,
        description="Tables (`probability`, optional `service`, `cluster`) of how traces were sampled before; first match, else `ot=th`.",
    )
    dimensions: tuple[Dimension, ...] = Field(
        default=(),
        max_length=8,
        description="Tables (`name`, `key`, optional `default`, `values`) of attributes by which RED and edges are counted apart.",
    )
    labels: LabelLimits = Field(
        default=LabelLimits(), description="Bounds on services, operations, rows and the length of labels."
    )

    @model_validator(mode="after")
    def _pane_is_some_time(self) -> "ProcessorSettings":
        if to_ns(self.pane) < 1_000_000 or min(
            self.lookback, self.metrics_lookback, self.rollup_grace
        ) < timedelta(0):
            raise ValueError(
                "pane must be at least 1ms; lookback, metrics_lookback and rollup_grace cannot be negative"
            )
        return self

    @field_validator("head_sampling")
    @classmethod
    def _each_matches_something(cls, rules: tuple[HeadSampling, ...]) -> tuple[HeadSampling, ...]:
        for place, rule in enumerate(rules):
            if any(earlier.covers(rule) for earlier in rules[:place]):
                raise ValueError(
                    f"table {place + 1} never matches, as an earlier one matches all that it does; put the narrower one first"
                )
        return rules

    @field_validator("dimensions")
    @classmethod
    def _names_are_unique(cls, dimensions: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
        names = [dimension.name for dimension in dimensions]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two tables have the name {twice[0]!r}; give each its own")
        return dimensions

    @property
    def dimension_keys(self) -> tuple[str, ...]:
        """Keys of attributes that dimensions are made of, each once: to be decoded."""
        return tuple(dict.fromkeys(dimension.key for dimension in self.dimensions))

    @property
    def limits(self) -> Limits:
        """For decoding the records of a pane."""
        own = self.attributes
        return Limits(own.value_bytes, own.set_bytes, own.set_entries, own.list_entries, self.pane_bytes)

    @property
    def pane_ns(self) -> int:
        """Length of a pane in ns."""
        return to_ns(self.pane)

    @property
    def lookback_panes(self) -> int:
        """The lookback in panes, rounded up, at least ``wait + 1``."""
        return max(-(-to_ns(self.lookback) // self.pane_ns), self.wait + 1)

    @property
    def metrics_lookback_panes(self) -> int:
        """``metrics_lookback`` in panes, rounded up, at least one."""
        return max(-(-to_ns(self.metrics_lookback) // self.pane_ns), 1)
