"""Credentials that follow their files: read again when they change, the old ones kept while the new ones are
broken.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ingest.security import Credentials, CredentialsInvalid, read_credentials
from ingest.settings import IngestSettings
from schemas import self_metrics

_LOGGER = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
"""How often the files are read and compared: a few kilobytes, and it works on any file system, whatever
renames and links lead there.
"""

OnChange = Callable[[Credentials], Awaitable[None]]


class CredentialsWatch:
    """``current`` is what holds now. Raises CredentialsInvalid when the files cannot be used at the start
    (blocks).
    """

    def __init__(self, settings: IngestSettings, on_change: OnChange, every_s: float = LOOK_EVERY_S) -> None:
        self._tls = settings.tls
        self._auth = settings.auth
        self._every_s = every_s
        self._on_change = on_change
        self._said = ""
        self._watching: asyncio.Task[None] | None = None
        self._reading = asyncio.Lock()
        self.current = read_credentials(self._tls, self._auth)
        self_metrics.CREDENTIALS_BROKEN.set(0)

    async def start(self) -> None:
        """Begin to look at the files; nothing to do where there are none."""
        if self._tls.certificate or self._auth.tokens:
            self._watching = asyncio.create_task(self._watch(), name="credentials")

    async def stop(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None

    async def reload(self) -> None:
        """Read the files now; what cannot be used is logged (once) and changes nothing."""
        async with self._reading:
            try:
                credentials = await asyncio.to_thread(read_credentials, self._tls, self._auth, self.current)
                if credentials != self.current:
                    await self._on_change(credentials)
            except CredentialsInvalid as error:
                self_metrics.CREDENTIALS_BROKEN.set(1)
                if str(error) != self._said:
                    _LOGGER.error("%s; what was read before goes on to hold", error)
                    self._said = str(error)
                return
            self_metrics.CREDENTIALS_BROKEN.set(0)
            if credentials != self.current or self._said:
                _LOGGER.warning("certificates and tokens were read again: %s", _described(credentials))
            self._said = ""
            self.current = credentials

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.reload()
            except Exception:
                _LOGGER.exception("certificates and tokens could not be read again")


def _described(credentials: Credentials) -> str:
    tokens = "none is asked for" if credentials.tokens is None else f"{len(credentials.tokens)} tokens hold"
    return f"{tokens}, TLS is {'on' if credentials.tls else 'off'}"
