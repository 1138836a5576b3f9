r"""What is masked by default: keys of attributes that hold credentials, and how credentials look in texts.

Sources: OpenTelemetry's semantic conventions (http.request.header.KEY, rpc.*.metadata.KEY, url.full, db.*),
RFC 6750 (Bearer), RFC 7617 (Basic), RFC 3986 3.2.1 (userinfo), RFC 7519 (JWT), RFC 7468 (PEM), AWS's
documentation of access key ids and signed URLs.
"""

from schemas.redaction import MASK

_SECRETS = (
    "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "apikey", "x-auth-token",
    "x-amz-security-token", "password", "passwd", "passphrase", "secret", "client-secret", "secret-key", "private-key",
    "secret-access-key", "token", "access-token", "auth-token", "id-token", "refresh-token", "session-token",
    "security-token",
)  # fmt: skip
_IN_HEADERS = ("*token", "*secret*", "*password*", "*api-key", "*apikey", "*authorization*", "*credential*")


def _spellings(name: str) -> tuple[str, ...]:
    """A name as headers and as older SDKs write it."""
    return (name, name.replace("-", "_")) if "-" in name else (name,)


KEYS = tuple(
    spelling
    for name in (
        *(whole for secret in _SECRETS for whole in (secret, f"*.{secret}")),
        *(f"*.{place}.{part}" for place in ("header", "metadata") for part in _IN_HEADERS),
    )
    for spelling in _spellings(name)
)
"""Keys (``*`` as in the settings): alone, as the last part of a longer key, and in headers and metadata."""

SUSPECT = (
    r"(?i)(?:token|password|passwd|passphrase|secret|key|signature|sig|pwd|authorization|cookie)(?:=|:|\\*\"\s*:)"
    r"|(?:bearer|basic)[\s%+]|://[^ ]*@|AKIA|ASIA|eyJ|-----BEGIN"
)
"""What a text has where one of PATTERNS matches, and few others have. In Rust's syntax."""

_NAME = (
    r"(?:password|passwd|passphrase|secret|secret[_-]?key|api[_-]?key|secret[_-]?access[_-]?key|private[_-]?key|signature"
    r"|(?:access|auth|id|refresh|session|csrf|xsrf|api|app|client|user|bearer|security|oauth|jwt|sas)[_-]?token)"
)
_ALONE = r"(?:token|sig|pwd|authorization)"  # next_token, config and the like are other words
_QUOTED = r"\"[^\"]*\"?|'[^']*'?"

PATTERNS: tuple[tuple[str, str], ...] = (
    (
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)",
        MASK,
    ),
    (r"\beyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){1,4}", MASK),
    (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", MASK),
    # a token has a digit, a dot inside, a capital after a small letter, or is long; a word has not
    (
        r"\b((?i:bearer)(?:\s+|%20|\+))"
        r"(?:[\w.~+/=-]*[0-9][\w.~+/=-]*|[\w.~+/=-]*[a-z][A-Z][\w.~+/=-]*|\w[\w~+/=-]*\.\w[\w.~+/=-]*|[\w.~+/=-]{20,})",
        rf"\1{MASK}",
    ),
    (
        r"\b((?i:basic)(?:\s+|%20|\+))"
        r"(?:(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)\B"
        r"|[A-Za-z0-9+/]{7,}[0-9][A-Za-z0-9+/]*|[A-Za-z0-9+/]*[0-9][A-Za-z0-9+/]{7,}|[A-Za-z0-9+/]*[a-z][A-Z][A-Za-z0-9+/]*)={0,2}",
        rf"\1{MASK}",
    ),
    # the password may hold the characters that end it, where it can't be a port
    (
        r"(\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#:@\[\"'<>]*:)(?:[^\s/?#\"'<>]+|[^\s/?#\"'<>0-9][^\s\"'<>@]*)@",
        rf"\1{MASK}@",
    ),
    (
        rf"(?i)({_NAME}=|(?:^|[^\w.-]){_ALONE}=)(?:{_QUOTED}|\\+\"[^\"]*\"?|[^\s&;\"'<>\\]+)",
        rf"\1{MASK}",
    ),
    # JSON, and JSON as a text within JSON
    (
        rf"(?i)(\"[\w.-]*(?:{_NAME}|{_ALONE}|cookie)\"\s*:\s*\")(?:[^\"\\]|\\.)+",
        rf"\1{MASK}",
    ),
    (
        rf"(?i)(\\\"[\w.-]*(?:{_NAME}|{_ALONE}|cookie)\\\"\s*:\s*\\\")(?:[^\"\\]|\\\\(?:\\\"|[^\"\\]|\\\\))+",
        rf"\1{MASK}",
    ),
    # headers as lines of a text
    (r"(?i)(\b(?:set-)?cookie:\s*)[^\s=;]+=[^\r\n]+", rf"\1{MASK}"),
    (
        r"(?i)(\bauthorization:\s*(?:token|digest|negotiate|ntlm|apikey|hawk|oauth|aws4-hmac-sha256)\s+)[^\s*][^\r\n]*",
        rf"\1{MASK}",
    ),
    (r"(?i)(\b(?:x-api-key|api-key|x-auth-token|x-amz-security-token):\s*)[^\s*]\S*", rf"\1{MASK}"),
)
"""Regular expressions (RE2) and what replaces a match, in the order in which they are applied."""
