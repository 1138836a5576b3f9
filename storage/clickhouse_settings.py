"""How a ClickHouse server is spoken to: login, TLS, client certificate, and how blocks are handed over."""

import logging
import ssl
from pathlib import Path
from typing import Self

import certifi
import urllib3
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from schemas.errors import SinkUnavailable

logger = logging.getLogger(__name__)


class ClickHouseSettings(BaseModel):
    """``[storage.clickhouse]`` in meshflow.toml: what does not belong into the URL of ``storage.store``.
    Passwords are never shown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    username: str = Field("", description="User of the server; empty: the one in the URL, else `default`.")
    password: SecretStr = Field(
        SecretStr(""),
        description="Its password (better as MESHFLOW_STORAGE__CLICKHOUSE__PASSWORD than in a URL).",
    )
    ca_file: str = Field(
        "",
        description="PEM file of the authorities that the server's certificate is checked against; empty: certifi's.",
    )
    check_certificate: bool = Field(
        True, description="Whether the server's certificate and host name are checked."
    )
    certificate_file: str = Field(
        "",
        description="PEM file of the client certificate; without a password it is the login too. Empty: none.",
    )
    key_file: str = Field("", description="PEM file of its key; empty: it is in certificate_file.")
    async_insert: bool = Field(
        False,
        description="Let the server gather the blocks of many partitions into one part (docs/adr/0018 says what holds then).",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.key_file and not self.certificate_file:
            raise ValueError("storage.clickhouse.key_file needs storage.clickhouse.certificate_file")
        return self

    def ssl_context(self) -> ssl.SSLContext:
        """A new context from the files as they are now. Raises SinkUnavailable: a file cannot be used."""
        if missing := self.missing_file():
            raise SinkUnavailable(f"{missing} is not there")
        try:
            context = ssl.create_default_context(cafile=self.ca_file or certifi.where())
            if not self.check_certificate:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.certificate_file:
                context.load_cert_chain(
                    self.certificate_file, self.key_file or None, password=""
                )  # OpenSSL would ask the terminal
        except (ssl.SSLError, OSError) as error:
            raise SinkUnavailable(f"a certificate of [storage.clickhouse] cannot be used: {error}") from error
        return context

    def accept_unchecked(self) -> None:
        """Where certificates are not to be checked, say so once, instead of urllib3 at every request."""
        if not self.check_certificate:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
            logger.warning(
                "the ClickHouse server's certificate is not checked: storage.clickhouse.check_certificate = false"
            )

    def missing_file(self) -> str:
        """Which setting names a file that is not there; "" when all are."""
        for name in ("ca_file", "certificate_file", "key_file"):
            if (file := getattr(self, name)) and not Path(file).is_file():
                return f"storage.clickhouse.{name} = {file!r}"
        return ""
