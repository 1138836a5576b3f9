"""Both receivers and their group commit as one thing that starts and stops."""

import asyncio
import logging
import sys
from typing import Any

from ingest.admission import MaxRecordBytes
from ingest.credentials import CredentialsWatch
from ingest.descriptors import fitted
from ingest.gather import Gather
from ingest.grpc import GrpcServer
from ingest.http.server import HttpServer
from ingest.receive import Receiver
from ingest.rust import NativePending, NativeServer, is_chosen, make_receiver
from ingest.security import Credentials, exposure
from ingest.settings import IngestSettings
from schemas.records import LogWriter
from schemas.units import to_ns

_LOGGER = logging.getLogger(__name__)


def unbounded(_topic: str) -> int:
    """The records of a log that takes any size (``MaxRecordBytes``)."""
    return sys.maxsize


class IngestServer:
    """Receives OTLP over gRPC and HTTP into ``log``, whose topics have ``partitions`` partitions each.

    Make it on a running event loop. The log stays the caller's: close it after :meth:`stop`. Raises
    CredentialsInvalid, NativeMissing.
    """

    def __init__(
        self,
        settings: IngestSettings,
        log: LogWriter,
        partitions: int,
        reuse_port: bool = False,
        max_record_bytes: MaxRecordBytes = unbounded,
    ) -> None:
        """``reuse_port``: others of the same user may listen on the same ports (SO_REUSEPORT), and each gets
        its share.

        ``max_record_bytes(topic)``: how large the log's records may be; an item that none can hold is
        refused.
        """
        settings = fitted(settings)
        self._settings = settings
        self._credentials = CredentialsWatch(settings, self._replace)
        self._grpc: GrpcServer | NativeServer
        if is_chosen(settings):
            native = make_receiver(settings, partitions)
            self._gather = Gather(
                log, settings, NativePending(native, settings.buffer_size, to_ns(settings.retry_after))
            )
            self._receiver = Receiver(self._gather, partitions, settings, max_record_bytes)
            self._grpc = NativeServer(
                native,
                self._gather.look,
                settings,
                self._credentials.current,
                reuse_port=reuse_port,
                max_record_bytes=max_record_bytes,
            )
        else:
            self._gather = Gather(log, settings)
            self._receiver = Receiver(self._gather, partitions, settings, max_record_bytes)
            self._grpc = GrpcServer(self._receiver, settings, self._credentials.current, reuse_port)
        self._http = HttpServer(self._receiver, settings, self._credentials.current, reuse_port)

    @property
    def grpc_port(self) -> int:
        """The port of OTLP/gRPC (the one it got where the setting is 0)."""
        return self._grpc.port

    @property
    def http_port(self) -> int:
        """The port of OTLP/HTTP."""
        return self._http.port

    @property
    def held_bytes(self) -> int:
        """Bytes held for requests that the log does not have yet (at most ``buffer_size``)."""
        return self._gather.held_bytes

    async def start(self) -> None:
        """Listen. Raises AddressInUse (nothing listens then)."""
        if warning := exposure(self._settings):
            _LOGGER.warning(warning)
        try:
            await self._http.start()
            await self._grpc.start()
            await self._credentials.start()
        except BaseException:
            await self.stop()
            raise

    async def reload_credentials(self) -> None:
        """Read the files of certificates and tokens now, instead of within two seconds of their change."""
        await self._credentials.reload()

    async def stop(self) -> None:
        """Accept nothing new, answer what was begun, then return: within ``drain_time`` and a second or two.

        What the log has not taken by then is answered as unavailable. What was acknowledged is in the log.
        """
        drain_s = self._settings.drain_time.total_seconds()
        self._gather.hurry()
        await self._credentials.stop()
        stopping = asyncio.gather(self._grpc.stop(drain_s + 1), self._http.stop())
        if not await _within(stopping, drain_s):
            await self._gather.close()
        await stopping
        settled = asyncio.ensure_future(self._gather.settled())
        await _within(settled, drain_s)
        await self._gather.close()
        await settled
        self._receiver.close()

    async def _replace(self, credentials: Credentials) -> None:
        self._grpc.replace(credentials)
        await self._http.replace(credentials)


async def _within(awaited: "asyncio.Future[Any]", timeout_s: float) -> bool:
    done, _ = await asyncio.wait([awaited], timeout=timeout_s)
    return bool(done)
