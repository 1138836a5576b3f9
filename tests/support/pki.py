"""Certificates and token files as an operator would lay them out, made afresh for a test."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import trustme

TOKEN = "correct-horse-battery-staple"
NEXT_TOKEN = "tr0ub4dor-and-3-more-words"


@dataclass
class Pki:
    """A folder with a server's certificate and key and the CA of its clients; ``settings`` name them."""

    folder: Path
    ca: trustme.CA = field(default_factory=trustme.CA)
    client_ca: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.renew(self.ca)
        self.trust(self.client_ca)
        self.set_tokens(TOKEN)

    def renew(self, ca: trustme.CA) -> None:
        """Give the server a new certificate."""
        issued = ca.issue_cert("127.0.0.1", "localhost")
        (self.folder / "tls.key").write_bytes(issued.private_key_pem.bytes())
        (self.folder / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    def trust(self, *cas: trustme.CA) -> None:
        """Let clients of these CAs in, of no others."""
        (self.folder / "client_ca.crt").write_bytes(b"".join(ca.cert_pem.bytes() for ca in cas))

    def set_tokens(self, *tokens: str) -> None:
        """Let these tokens hold, no others."""
        (self.folder / "tokens").write_text(
            "# whose they are\n\n" + "".join(f"{token}  sidecars\n" for token in tokens)
        )

    def settings(self, *, tls: bool = False, mtls: bool = False, tokens: bool = False) -> dict[str, Any]:
        """Settings of a receiver that uses these files."""
        settings: dict[str, Any] = {}
        if tls or mtls:
            settings["tls"] = {
                "certificate": str(self.folder / "tls.crt"),
                "key": str(self.folder / "tls.key"),
            }
        if mtls:
            settings["tls"]["client_ca"] = str(self.folder / "client_ca.crt")
        if tokens:
            settings["auth"] = {"tokens": str(self.folder / "tokens")}
        return settings

    def client_files(self) -> tuple[Path, Path, Path]:
        """Files for a client: the CA of the server, a certificate that the server lets in, and its key."""
        issued = self.client_ca.issue_cert("sidecar.example")
        ca, certificate, key = (self.folder / name for name in ("ca.crt", "client.crt", "client.key"))
        ca.write_bytes(self.ca.cert_pem.bytes())
        certificate.write_bytes(issued.cert_chain_pems[0].bytes())
        key.write_bytes(issued.private_key_pem.bytes())
        return ca, certificate, key

    def channel(
        self, ca: trustme.CA | None = None, client_ca: trustme.CA | None = None
    ) -> grpc.ChannelCredentials:
        """A client that trusts ``ca`` (this one's) and shows a certificate of ``client_ca`` (none)."""
        roots = (ca or self.ca).cert_pem.bytes()
        if client_ca is None:
            return grpc.ssl_channel_credentials(roots)
        issued = client_ca.issue_cert("sidecar.example")
        return grpc.ssl_channel_credentials(
            roots, issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
        )
