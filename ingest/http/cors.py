"""Cross-origin requests: pages in browsers that send OTLP (Fetch Standard, "CORS protocol"). Decisions
without I/O.

A page's browser asks first (a preflight: OPTIONS), since OTLP's content types are none that a form could
send; a page whose origin is not listed never gets to send anything.
"""

import re
from collections.abc import Mapping, Sequence

_HEADERS = ("content-type", "content-encoding", "authorization", "x-requested-with")
_MAX_AGE_S = 7200  # the longest that a browser keeps the answer to a preflight


class Cors:
    """The origins whose pages may send."""

    def __init__(self, origins: Sequence[str], headers: Sequence[str] = ()) -> None:
        """``origins`` as in ``ingest.cors.origins``; ``headers`` that pages may set besides those of OTLP."""
        self._any = "*" in origins
        self._origins = [_pattern(origin) for origin in origins if origin != "*"]
        self._headers = ", ".join(dict.fromkeys((*_HEADERS, *(name.lower() for name in headers))))

    def answer(self, origin: str | None) -> dict[str, str]:
        """Headers of an answer to a page of this origin; none of them where it may not read the answer."""
        if origin is None or not (self._any or self._origins):
            return {}
        headers = {"Vary": "Origin"}
        if any(pattern.fullmatch(origin) for pattern in self._origins):
            # sendBeacon sends with credentials, whether there are some or not
            headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"}
        elif self._any:
            headers |= {"Access-Control-Allow-Origin": "*"}
        else:
            return headers
        return headers | {"Access-Control-Expose-Headers": "Retry-After"}

    def preflight(self, headers: Mapping[str, str]) -> dict[str, str] | None:
        """Headers of the answer to a preflight; None where there is none, or its origin is not listed."""
        asked = headers.get("Access-Control-Request-Method", "").upper()
        allowed = self.answer(headers.get("Origin"))
        if asked != "POST" or "Access-Control-Allow-Origin" not in allowed:
            return None
        return allowed | {
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": self._headers,
            "Access-Control-Max-Age": str(_MAX_AGE_S),
        }


def origin_fault(origin: str) -> str:
    """Why this is no value of ``ingest.cors.origins``; "" where it is one."""
    if origin == "*" or re.fullmatch(r"[a-z][a-z0-9+.-]*://(\*\.)?[a-zA-Z0-9.:\[\]-]+(:\*)?", origin):
        return ""
    return (
        f"{origin!r} is no origin: https://shop.example, https://*.shop.example, http://localhost:3000, or *"
    )


def _pattern(origin: str) -> re.Pattern[str]:
    """An origin with ``*.`` for names in front of a domain and ``:*`` for any port."""
    text = re.escape(origin.lower()).replace(r"\*\.", r"([a-z0-9-]+\.)+").replace(r":\*", r"(:\d+)?")
    return re.compile(text, re.IGNORECASE)
