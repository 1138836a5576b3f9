"""Who may ask: the user and password of ClickHouse's HTTP interface. No I/O here."""

import base64
import hmac
from collections.abc import Mapping

from console.clickhouse import interface as clickhouse

AUTHENTICATION_FAILED = 516


def check(parameters: Mapping[str, str], headers: Mapping[str, str], username: str, password: str) -> None:
    """Let a request in that names the user and the password: ``X-ClickHouse-User`` and ``-Key``, HTTP basic,
    or ``user`` and ``password`` of the URL, the first of these that is there. An empty ``password`` lets
    everyone in.

    Raises QueryFailed (AUTHENTICATION_FAILED).
    """
    if not password:
        return
    given = _given(parameters, headers)
    same = [
        hmac.compare_digest(mine.encode(), theirs.encode())
        for mine, theirs in zip((username, password), given, strict=True)
    ]
    if not all(same):
        reason = "Authentication failed: password is incorrect, or there is no user with such name"
        raise clickhouse.failed(AUTHENTICATION_FAILED, "AUTHENTICATION_FAILED", f"{given[0]}: {reason}")


def _given(parameters: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, str]:
    if "X-ClickHouse-User" in headers or "X-ClickHouse-Key" in headers:
        return headers.get("X-ClickHouse-User", "default"), headers.get("X-ClickHouse-Key", "")
    scheme, _, encoded = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:  # not base64, not UTF-8
            return "default", ""
        return name, password
    return parameters.get("user", "default"), parameters.get("password", "")
