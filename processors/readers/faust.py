"""The reader of topics on Kafka: a Faust app. This file and ``faust_consumer`` alone know Faust
(docs/adr/0020).

Faust does membership, fetching, back-pressure and dispatch (one agent for each partition). Its acks are not
used, since it would commit past records that are still needed (invariant 4): aiokafka's consumer, which Faust
drives, commits what the work says, with metadata, and reading begins there after each rebalance. Whatever
fails ends the worker, loudly; another one, or the next start, goes on from the commit.
"""

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import faust
from faust.app.base import BootStrategy
from faust.transport.drivers import aiokafka as driver

from log.kafka.brokers import Brokers, Probe, wait_for_topics
from log.kafka.member import ANSWER_S, Beginning, unavailable
from log.kafka.security import KafkaSecuritySettings
from processors.readers.cursor import Arrival, Cursor
from processors.readers.faust_consumer import Consumer, Supervisor, Transport
from processors.readers.work import Work
from processors.settings import KafkaReaderSettings
from schemas.errors import LogUnavailable
from schemas.records import COUNTS, Commit, Record, labels_of

_LOGGER = logging.getLogger(__name__)

_BUFFERED_RECORDS = 4
"""Records that wait for each agent; what is fetched beyond them stays with the consumer."""

_FETCH_BYTES = 1 << 20
"""Of a partition at a time, compressed, which may be a tenth of what it takes in memory; a larger record is
sent alone.
"""

_PATIENCE_S = 25.0
"""How long a rebalance asks where to begin; brokers may be electing a leader, or making the topic of
offsets.
"""

_KEEP_S = 5.0
"""How long a rebalance waits for what is in hand of a partition that stays; then it is begun anew."""

_CRASHED_S = 20.0
"""How long a crashed app may take to stop, its thread included."""

_CANCELLED_S = 5.0
"""How long what is cancelled may take to end: parts of Faust swallow a cancellation and go on with the next
one.
"""

_COUNT = re.compile(rb"[0-9]{1,18}")


class _Boot(BootStrategy):
    enable_web = enable_kafka_producer = enable_sensors = False


class ReaderApp(faust.App):
    """Does its work on the partitions that the group gives it. Made by :func:`build_app`, run by
    :func:`serve`.
    """

    BootStrategy = _Boot
    consumer: Consumer
    cursors: dict[Any, Any]
    """By Faust's partition."""
    parted: dict[Any, Any]
    """Those of before the rebalance that is under way: Faust takes every partition away, also those that
    stay.
    """
    settings: KafkaReaderSettings
    brokers: Brokers
    probe: Probe
    work: Work[Any]
    stopping: bool

    def _create_directories(self) -> None:
        """None: there are no tables, and Faust would make an empty folder where it was started."""

    def _new_transport(self) -> driver.Transport:
        return Transport(self.conf.broker_consumer, self)

    async def begin(self) -> None:
        """Make a cursor for each partition that was assigned, at its committed offset."""
        kps = list(self.consumer.assignment())
        beginnings = await self._beginnings(kps)
        commits = {kp: beginnings[kp].commit for kp in kps}
        kept = await self._kept(commits)
        self._withdraw({kp: cursor for kp, cursor in self.parted.items() if kp not in kept})
        self.parted, cursors = {}, dict(kept)
        for kp in kps:
            if kp not in kept:
                commit, first, end = beginnings[kp]
                cursor = self.work.cursor(kp.topic, kp.partition, commit, first, end)
                cursor.committed = commit
                cursors[kp] = cursor
        self.cursors = cursors
        _LOGGER.info(
            "reading %s", ", ".join(sorted(f"{kp.topic}/{kp.partition}" for kp in kps)) or "no partition"
        )

    async def _kept(self, commits: Mapping[Any, Commit | None]) -> dict[Any, Any]:
        """The cursors that go on: their partitions are here again, nobody has committed meanwhile, and what
        was in hand is done.
        """
        same = {
            kp: cursor
            for kp, cursor in self.parted.items()
            if kp in commits and commits[kp] in (cursor.committed, cursor.commit)
        }
        in_hand = {cursor.in_hand for cursor in same.values() if cursor.in_hand is not None}
        if in_hand:
            await asyncio.wait(in_hand, timeout=_KEEP_S)
        return {kp: cursor for kp, cursor in same.items() if cursor.whole}

    async def _beginnings(self, kps: Sequence[Any]) -> dict[Any, Beginning]:
        give_up_s = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return dict(await self.consumer.member.beginnings(kps))
            except LogUnavailable as error:
                if time.monotonic() > give_up_s:
                    raise
                _LOGGER.warning("where to begin is not known yet: %s", error)
                await asyncio.sleep(1)

    async def take(self, message: Any) -> None:
        """Hand one record to the work, if it is the next one of its partition."""
        kp = message.tp
        cursor = self.cursors.get(kp)
        if cursor is None or self.stopping:
            return  # of an assignment that is gone, or for the next worker to read
        arrival = cursor.arrival(message.offset, time.monotonic())
        if arrival is Arrival.AHEAD:
            arrival = await self._bridge(kp, cursor, message.offset)
        if arrival is Arrival.TAKE:
            await self.work.take(
                cursor, record_of(message), more=message.offset + 1 < (self.consumer.highwater(kp) or 0)
            )

    async def _bridge(self, kp: Any, cursor: Cursor, offset: int) -> Arrival:
        wanted = cursor.next_offset
        try:
            beginning, there = await self.probe.look(kp, wanted)
        except LogUnavailable as error:  # the next record asks again
            _LOGGER.warning("%s/%d: the record of offset %d is not known: %s", *kp, wanted, error)
            return Arrival.SKIP
        if cursor.next_offset != wanted or cursor.closed:
            return Arrival.SKIP
        seek = cursor.bridge(offset, beginning, there, time.monotonic())
        level = (
            logging.DEBUG if beginning <= wanted and there == offset else logging.WARNING
        )  # transactions leave such gaps all the time
        _LOGGER.log(
            level, "%s/%d: wanted offset %d, got %d, go on with %d", *kp, wanted, offset, cursor.next_offset
        )
        if seek is None:
            return Arrival.TAKE
        await self.consumer.seek_wait({kp: seek})
        return Arrival.SKIP

    async def keep(self) -> None:
        """What is due from time to time: look after the work, commit, show how far it is."""
        cursors = dict(self.cursors)
        for cursor in cursors.values():
            await self.work.look_after(cursor)
        await self.commit_cursors(self.cursors)

        with suppress(LogUnavailable):
            for kp, end in (await self.consumer.member.ends(cursors)).items():
                if not cursors[kp].closed:
                    self.work.publish(cursors[kp], end)

    async def commit_cursors(self, cursors: Mapping[Any, Cursor]) -> None:
        """Commit how far the work is."""
        due = [
            (kp, cursor, cursor.commit)
            for kp, cursor in cursors.items()
            if cursor.commit and cursor.commit != cursor.committed
        ]
        if not due:
            return
        try:
            await self.consumer.member.commit({kp: commit for kp, _, commit in due})
        except LogUnavailable as error:  # put out of the group, or the brokers are away: tried again later
            _LOGGER.warning("not committed yet: %s", error)
            return
        for _, cursor, commit in due:
            cursor.committed = commit

    async def committed(self, topic: str, count: int) -> list[Commit | None]:
        """The group's newest commit of each of a topic's partitions. Raises LogUnavailable."""
        return await self.consumer.member.committed((topic, number) for number in range(count))

    async def leave(self) -> None:
        """Commit, then let go of every partition: it may be another worker's next, or stay."""
        old, self.cursors = self.cursors, {}
        if self.work.settle_s:
            await self._settle(self.work.settle_s)
        try:
            await self.commit_cursors(old)
        finally:
            if self.work.keeps and not self.stopping:
                self.parted |= old
            else:
                self._withdraw(old)

    async def _settle(self, timeout_s: float) -> None:
        if in_hand := set(self.work.in_hand):
            await asyncio.wait(in_hand, timeout=timeout_s)

    async def finish(self) -> None:
        """Begin nothing new, finish what is in hand, and commit."""
        self.stopping = True
        if self.crashed:
            return
        await self._settle(self.settings.stop_time.total_seconds())
        await self.leave()

    def let_go(self) -> None:
        """After a crash, or a stop that took too long: what is left of the work is another worker's."""
        old, self.cursors, self.parted = {**self.parted, **self.cursors}, {}, {}
        self._withdraw(old)

    def _withdraw(self, cursors: Mapping[Any, Cursor]) -> None:
        for cursor in cursors.values():
            cursor.closed = True
            self.work.withdraw(cursor)


def build_app(brokers: Brokers, group: str, settings: KafkaReaderSettings, work: Work[Any]) -> ReaderApp:
    """An app that does ``work`` as one of the members of ``group``."""
    session_s = settings.session_timeout.total_seconds()
    app = ReaderApp(
        group,
        broker=[f"kafka://{server}" for server in brokers.bootstrap],
        broker_credentials=_credentials(brokers.security),
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        stream_wait_empty=False,
        stream_buffer_maxsize=_BUFFERED_RECORDS,
        consumer_max_fetch_size=_FETCH_BYTES,
        consumer_metadata_max_age_ms=60_000,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=min(2.0, session_s / 4),
        broker_request_timeout=30.0,
        broker_rebalance_timeout=30.0,
        broker_max_poll_interval=1e6,  # once passed, Faust would leave the group and never come back
    )
    app.cursors, app.parted, app.stopping = {}, {}, False
    app.brokers, app.settings, app.work, app.probe = brokers, settings, work, Probe(brokers)
    _declare(app)
    return app


def _credentials(security: KafkaSecuritySettings) -> faust.auth.Credentials | None:
    """The login as Faust has it."""
    tls = security.ssl_context()
    if security.mechanism:
        password = security.password.get_secret_value()
        return faust.SASLCredentials(
            username=security.username, password=password, mechanism=security.mechanism, ssl_context=tls
        )
    return faust.SSLCredentials(tls) if tls else None


def _declare(app: ReaderApp) -> None:
    """Hang agent, timer and signals on the app; Faust knows them by decoration only."""
    topic = app.topic(
        *app.work.topics,
        acks=False,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
    )

    @app.agent(topic, isolated_partitions=True, supervisor_strategy=Supervisor)
    async def read(stream: Any) -> None:
        async with _crashing(app):
            async for event in stream.noack().events():
                await app.take(event.message)

    @app.timer(app.settings.commit_every.total_seconds())  # type: ignore[untyped-decorator]  # Faust does not type it
    async def keep() -> None:
        async with _crashing(app):
            await app.keep()

    @app.on_rebalance_complete.connect(weak=False)  # awaited before perform_seek and before the first record
    async def complete(*_: Any, **__: Any) -> None:
        async with _crashing(app):
            await app.begin()

    @app.on_partitions_revoked.connect(
        weak=False
    )  # awaited before the group goes on; a commit here still counts
    async def revoked(*_: Any, **__: Any) -> None:
        await app.leave()

    @app.on_before_shutdown.connect(weak=False)  # on_partitions_revoked is not sent at a stop
    async def stopping(*_: Any, **__: Any) -> None:
        await app.finish()


class _crashing:  # noqa: N801 - used as contextlib's are
    """Ends the app on any error: Faust would start an agent again, without the record at fault."""

    def __init__(self, app: ReaderApp) -> None:
        self._app = app

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            await self._app.crash(error)


async def serve(app: ReaderApp, stop: asyncio.Event) -> bool:
    """Run until ``stop``; True when what was in hand is stored and committed.

    False: brokers or the work did not answer in time; then threads may still hang in them, and the process
    has to end itself. Raises LogUnavailable for an error of Kafka's, or what else the app crashed of.
    """
    if not await wait_for_topics(app.brokers, app.work.topics, stop):
        return True
    starting = asyncio.ensure_future(app.start())
    ends = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(app._crashed.wait())]
    await asyncio.wait([starting, *ends], return_when=asyncio.FIRST_COMPLETED)
    if starting.done() and not starting.exception():
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    grace_s = _CRASHED_S if app.crashed else app.settings.stop_time.total_seconds() + 2 * ANSWER_S
    stopping = asyncio.ensure_future(app.stop())
    await asyncio.wait([stopping], timeout=grace_s)
    in_order = stopping.done() and not stopping.cancelled() and stopping.exception() is None
    for end in (starting, stopping, *ends):
        end.cancel()
    await asyncio.wait([starting, stopping, *ends], timeout=_CANCELLED_S)
    app.let_go()
    await app.probe.close()
    error = (
        app.crash_reason
        if app.crashed
        else starting.exception()
        if starting.done() and not starting.cancelled()
        else None
    )
    if error:
        raise unavailable(error)
    return in_order and all(task.done() for task in app.work.in_hand)


def record_of(message: Any) -> Record:
    """A record as Faust gives it (its time is float seconds of the broker's whole milliseconds; one without a
    time is of 1970).
    """
    value = message.value or b""
    headers = {
        name: int(count)
        for name, count in message.headers or ()
        if name in COUNTS and _COUNT.fullmatch(count or b"")
    }
    append_time_ns = max(0, round(message.timestamp * 1000)) * 1_000_000
    return Record(
        message.offset,
        append_time_ns,
        value,
        len(value),
        headers=headers,
        key=message.key or b"",
        labels=labels_of(message.headers or ()),
    )
