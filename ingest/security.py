"""Who may send: bearer tokens and TLS, as decisions without I/O, and the files that they come from.

Tokens: RFC 6750, "Authorization: Bearer TOKEN" (gRPC: the same as metadata). Their file has a token a line,
then (optional) whose it is; empty lines and lines that begin with # are left out. Several hold at once, so
that clients can be moved from one to the next. Neither tokens nor keys are ever put into a message.
"""

import hmac
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from ingest.settings import AuthSettings, IngestSettings, TlsSettings
from schemas.errors import MeshflowError

MIN_TOKEN_BYTES = 16
"""A shorter token can be guessed."""

NO_TOKEN, NOT_BEARER, UNKNOWN_TOKEN = "no_token", "not_bearer", "unknown_token"
REASONS = (NO_TOKEN, NOT_BEARER, UNKNOWN_TOKEN)

_SCHEME = b"bearer"


class CredentialsInvalid(MeshflowError):
    """A file of certificates, keys or tokens cannot be used; the text says which and why, never what is in
    it.
    """


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """What a TLS listener shows and asks for, as PEM, and as OpenSSL has it. ``client_ca`` empty: clients
    need no certificate.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes
    context: ssl.SSLContext = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """All that the receivers have to know: ``tokens`` None asks for none, ``tls`` None listens in plain
    text.
    """

    tokens: tuple[bytes, ...] | None = field(default=None, repr=False)
    tls: TlsIdentity | None = None


def authorize(authorization: bytes | None, tokens: Sequence[bytes] | None) -> str | None:
    """Why a request must be refused (one of REASONS), None where it may pass.

    ``authorization`` is the value of the header (the metadata), None where there is none. Every token is
    compared, each in a time that does not depend on what was sent: digests are compared, so that the time
    shows nothing of lengths either.
    """
    if tokens is None:
        return None
    if authorization is None:
        return NO_TOKEN
    scheme, _, token = authorization.strip().partition(b" ")
    if scheme.lower() != _SCHEME:
        return NOT_BEARER
    given = sha256(token.strip()).digest()
    known = False
    for accepted in tokens:
        known |= hmac.compare_digest(sha256(accepted).digest(), given)
    return None if known else UNKNOWN_TOKEN


def parse_tokens(text: bytes, name: str) -> tuple[bytes, ...]:
    """The tokens of a file; ``name`` is the file's. Raises CredentialsInvalid, which names lines but never
    shows them.
    """
    tokens: list[bytes] = []
    for number, line in enumerate(text.splitlines(), 1):
        token = line.split(maxsplit=1)[0] if line.strip() else b"#"
        if token.startswith(b"#"):
            continue
        if len(token) < MIN_TOKEN_BYTES:
            raise CredentialsInvalid(
                f"{name}, line {number}: a token needs {MIN_TOKEN_BYTES} characters or more (`openssl rand -hex 32`)"
            )
        if not all(0x21 <= byte <= 0x7E for byte in token):
            raise CredentialsInvalid(
                f"{name}, line {number}: a token is of visible ASCII characters (`openssl rand -hex 32`)"
            )
        tokens.append(token)
    if not tokens:
        raise CredentialsInvalid(
            f"{name} has no token, so nobody could send; leave ingest.auth.tokens empty to ask for none"
        )
    return tuple(tokens)


def exposure(settings: IngestSettings) -> str | None:
    """What the operator should hear at the start about who can reach the receivers; None where all is
    well.
    """
    if settings.host in ("localhost", "::1") or settings.host.startswith("127."):
        return None
    open_to_all = not settings.auth.tokens and not settings.tls.client_ca
    if not settings.tls.certificate:
        who = "anybody who reaches it may write, and" if open_to_all else "tokens and"
        return f"OTLP listens on {settings.host} without TLS: {who} telemetry can be read on the way (ingest.tls, see docs/security.md)"
    if open_to_all:
        return f"OTLP listens on {settings.host} for anybody: set ingest.auth.tokens or ingest.tls.client_ca (see docs/security.md)"
    return None


def read_credentials(tls: TlsSettings, auth: AuthSettings, known: Credentials | None = None) -> Credentials:
    """Read and check every file that the settings name (blocks); parts that are as in ``known`` are taken
    from there.

    Raises CredentialsInvalid.
    """
    tokens = parse_tokens(_read(auth.tokens), auth.tokens) if auth.tokens else None
    if not tls.certificate:
        return Credentials(tokens)
    pem = _read_pem(tls)
    if (
        known is not None
        and known.tls is not None
        and pem == (known.tls.certificate, known.tls.key, known.tls.client_ca)
    ):
        return Credentials(tokens, known.tls)
    identity = TlsIdentity(*pem, context=_server_context(tls))
    if _read_pem(tls) != pem:  # OpenSSL reads files by itself: what it read must be what is returned
        raise CredentialsInvalid(f"{tls.certificate} or a file that goes with it changed while it was read")
    return Credentials(tokens, identity)


def _server_context(tls: TlsSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # "": a key with a passphrase is an error instead of a question on the terminal
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ValueError) as error:
        raise CredentialsInvalid(
            f"{tls.certificate} and {tls.key} are no certificate and its key in PEM: {_why(error)}"
        ) from error
    if tls.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(tls.client_ca)
        except OSError as error:
            raise CredentialsInvalid(f"{tls.client_ca} has no certificates in PEM: {_why(error)}") from error
    return context


def _read_pem(tls: TlsSettings) -> tuple[bytes, bytes, bytes]:
    return _read(tls.certificate), _read(tls.key), _read(tls.client_ca) if tls.client_ca else b""


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CredentialsInvalid(f"{path} cannot be read: {error.strerror}") from error


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None)  # OpenSSL's: KEY_VALUES_MISMATCH
    return str(reason).replace("_", " ").lower() if reason else getattr(error, "strerror", None) or str(error)
