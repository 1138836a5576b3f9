"""Settings of the one rule of health that the views of the mesh share: Kiali's defaults."""

from pydantic import BaseModel, ConfigDict, Field


class HealthSettings(BaseModel):
    """``[storage.health]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    degraded_percent: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Failed requests, in percent, from which on a service is degraded (0: any).",
    )
    failure_percent: float = Field(
        10.0, ge=0, le=100, description="Failed requests, in percent, from which on a service is failing."
    )
    client_degraded_percent: float = Field(
        10.0,
        ge=0,
        le=100,
        description="Requests answered with 4xx, in percent, from which on a service is degraded.",
    )
    client_failure_percent: float = Field(
        20.0,
        ge=0,
        le=100,
        description="Requests answered with 4xx, in percent, from which on a service is failing.",
    )
    convergence_s: float = Field(
        30.0,
        gt=0,
        description="99th percentile of configuration's way to proxies, in seconds, beyond which a control plane is degraded.",
    )
    certificate_degraded: float = Field(
        0.33,
        ge=0,
        le=1,
        description="Share of a certificate's lifetime left below which it is degraded (Istio renews at 0.5).",
    )
    certificate_failure: float = Field(
        0.1, ge=0, le=1, description="Share of a certificate's lifetime left below which it is failing."
    )
    certificate_days: float = Field(
        14.0, ge=0, description="Days left below which a certificate of unknown lifetime is degraded."
    )
