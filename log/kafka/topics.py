"""Topics with the settings that meshflow needs: made where they are not there, else checked."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from log.kafka.security import KafkaSecuritySettings
from log.kafka.settings import KafkaWriterSettings
from schemas.errors import LogUnavailable
from schemas.topics import DEAD_LETTER
from schemas.units import to_ns

_LOGGER = logging.getLogger(__name__)

TIMEOUT_S = 30.0
"""How long a start waits for the brokers."""


class TopicsUnfit(LogUnavailable):
    """A topic is not as meshflow needs it, and somebody has to mend it: the message says what."""


_NS_PER_MS = 1_000_000


async def ensure(
    bootstrap: Sequence[str],
    topics: Mapping[str, int],
    settings: KafkaWriterSettings,
    prefix: str,
    security: KafkaSecuritySettings,
) -> dict[str, int]:
    """Make or check ``topics`` (name -> partitions) and the dead letters' topic; the largest record of each
    topic, in bytes.

    Settings of a topic that is there may differ on purpose from meshflow's, and put data at risk: a warning
    names them. Raises TopicsUnfit when a topic is not as it has to be, LogUnavailable, KafkaError.
    """
    wanted = {**topics, DEAD_LETTER: 1}
    admin = AIOKafkaAdminClient(
        bootstrap_servers=list(bootstrap),
        request_timeout_ms=int(TIMEOUT_S * 1000),
        **security.client_options(),
    )
    try:
        await admin.start()
        present = set(await admin.list_topics())
        missing = [
            _new(prefix + topic, count, settings)
            for topic, count in wanted.items()
            if prefix + topic not in present
        ]
        if missing:
            await _create(admin, missing)
        copies = await _copies(admin, [prefix + topic for topic in wanted])
        configs = {topic: await _config(admin, prefix + topic) for topic in wanted}
    finally:
        await admin.close()
    faults = [
        fault
        for topic, count in topics.items()
        for fault in _faults(prefix + topic, len(copies[prefix + topic]), count, configs[topic])
    ]
    if faults:
        raise TopicsUnfit("\n".join(faults))
    for topic in topics:
        for risk in _risks(prefix + topic, copies[prefix + topic], configs[topic], settings):
            _LOGGER.warning("%s", risk)
    return {topic: int(config["max.message.bytes"]) for topic, config in configs.items()}


def _new(name: str, partitions: int, settings: KafkaWriterSettings) -> NewTopic:
    config = {
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(to_ns(settings.retention) // _NS_PER_MS),
        "max.message.bytes": str(settings.max_record),
    }
    if settings.replication > 1:
        config["min.insync.replicas"] = "2"  # else an acknowledged record could be on one disk alone
    # without a replication factor (-1: the brokers' default) aiokafka wants to be given assignments, be there
    # none
    return NewTopic(
        name,
        partitions,
        settings.replication or -1,
        replica_assignments=None if settings.replication else {},
        topic_configs=config,
    )


async def _create(admin: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> None:
    for name, code, *message in (await admin.create_topics(list(topics))).topic_errors:
        error: type[KafkaError] = for_code(code)
        if code and error is not TopicAlreadyExistsError:  # another ingest process may have been first
            raise LogUnavailable(
                f"topic {name} could not be made: {message[0] if message else error.__name__}"
            )


async def _copies(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, list[int]]:
    """Of each topic: how many copies each partition has. A topic that was made a moment ago may not be known
    to every broker yet.
    """
    while True:
        described = {topic["topic"]: topic for topic in await admin.describe_topics(list(names))}
        if all(not described[name]["error_code"] and described[name]["partitions"] for name in names):
            return {
                name: [len(partition["replicas"]) for partition in described[name]["partitions"]]
                for name in names
            }
        await asyncio.sleep(0.1)


async def _config(admin: AIOKafkaAdminClient, name: str) -> dict[str, str]:
    (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    code, message, *_, entries = response.resources[0]
    if code:
        raise LogUnavailable(f"the settings of topic {name} cannot be read: {message}")
    return {entry[0]: entry[1] for entry in entries}


def _faults(name: str, partitions: int, wanted: int, config: Mapping[str, Any]) -> list[str]:
    faults = []
    if partitions != wanted:
        faults.append(f"topic {name} has {partitions} partitions, processing.partitions says {wanted}")
    if config["message.timestamp.type"] != "LogAppendTime":
        faults.append(
            f"topic {name} has message.timestamp.type={config['message.timestamp.type']}; meshflow needs LogAppendTime"
        )
    if "compact" in config["cleanup.policy"]:
        faults.append(
            f"topic {name} has cleanup.policy={config['cleanup.policy']}; records would be removed before they are read"
        )
    return faults


def _risks(
    name: str, copies: Sequence[int], config: Mapping[str, Any], settings: KafkaWriterSettings
) -> list[str]:
    risks = []
    retention_ms, wanted_ms = int(config["retention.ms"]), to_ns(settings.retention) // _NS_PER_MS
    if 0 <= retention_ms < wanted_ms:
        risks.append(
            f"topic {name} has retention.ms={retention_ms}, ingest.kafka.retention says {wanted_ms}:"
            " what is not processed within that time is lost"
        )
    least, in_sync = min(copies), int(config["min.insync.replicas"])
    if least < settings.replication:
        risks.append(
            f"topic {name} has partitions of {least} copies, ingest.kafka.replication says {settings.replication}"
        )
    if settings.replication > 1 and in_sync < 2:
        risks.append(
            f"topic {name} has min.insync.replicas={in_sync}: what is acknowledged may be on one disk alone"
        )
    if in_sync > 1 and in_sync >= least:
        risks.append(
            f"topic {name} has min.insync.replicas={in_sync} and partitions of {least} copies: nothing is taken while one broker is away"
        )
    return risks
