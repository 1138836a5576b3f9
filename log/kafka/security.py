"""How Kafka's brokers are spoken to: TLS, client certificates, SASL. One model for all that do (writers,
workers, dead letters, admin).
"""

import ssl
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from schemas.errors import LogUnavailable


class KafkaSecuritySettings(BaseModel):
    """``[kafka]`` in meshflow.toml. Passwords are never shown: not by ``meshflow config``, not in logs."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    tls: bool = Field(False, description="Speak TLS with Kafka's brokers, and check their certificates.")
    ca_file: str = Field(
        "",
        description="PEM file of the authorities that the brokers' certificates are checked against; empty: the system's.",
    )
    check_hostname: bool = Field(
        True, description="Whether a broker's certificate must be for the host name that it is reached by."
    )
    certificate_file: str = Field(
        "",
        description="PEM file of the client certificate and those between it and its authority; empty: none.",
    )
    key_file: str = Field(
        "", description="PEM file of the client certificate's key; empty: it is in certificate_file."
    )
    key_password: SecretStr = Field(
        SecretStr(""), description="Password of an encrypted key (better as MESHFLOW_KAFKA__KEY_PASSWORD)."
    )
    mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "", description="SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty: none."
    )
    username: str = Field("", description="SASL user.")
    password: SecretStr = Field(
        SecretStr(""), description="Its password (better as MESHFLOW_KAFKA__PASSWORD than in a file)."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.mechanism and not (self.username and self.password.get_secret_value()):
            raise ValueError(f"kafka.mechanism = {self.mechanism} needs kafka.username and kafka.password")
        if self.username and not self.mechanism:
            raise ValueError(
                "kafka.username is of no use without kafka.mechanism (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512)"
            )
        if not self.tls and (self.ca_file or self.certificate_file or self.key_file):
            raise ValueError("certificates are of no use without kafka.tls = true")
        if self.key_file and not self.certificate_file:
            raise ValueError("kafka.key_file needs kafka.certificate_file")
        return self

    @property
    def protocol(self) -> str:
        """Kafka's name for it: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
        return ("SASL_" if self.mechanism else "") + ("SSL" if self.tls else "PLAINTEXT")

    def ssl_context(self) -> ssl.SSLContext | None:
        """A new context from the files as they are now; None without TLS. Raises LogUnavailable: a file
        cannot be used.
        """
        if not self.tls:
            return None
        for name in ("ca_file", "certificate_file", "key_file"):
            if (file := getattr(self, name)) and not Path(file).is_file():
                raise LogUnavailable(f"kafka.{name} = {file!r} is not there")
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            context.check_hostname = self.check_hostname
            if self.certificate_file:
                # a function, since OpenSSL would ask the terminal for a password that is not given
                context.load_cert_chain(
                    self.certificate_file, self.key_file or None, password=self.key_password.get_secret_value
                )
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise LogUnavailable(f"the certificates of [kafka] cannot be used: {error}") from error
        return context

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments of aiokafka's clients (producer, consumer, admin). Raises LogUnavailable: a file
        cannot be used.
        """
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.tls:
            options["ssl_context"] = self.ssl_context()
        if self.mechanism:
            options |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password.get_secret_value(),
            }
        return options


PLAINTEXT = KafkaSecuritySettings()
"""No TLS, no login."""
