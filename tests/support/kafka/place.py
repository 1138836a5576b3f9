"""Topics of one test on the shared broker."""

import asyncio
import uuid

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from log.kafka.settings import KafkaWriterSettings
from log.kafka.writer import KafkaLogWriter
from tests.log.log_contract import PARTITIONS
from tests.support.kafka.broker import Cluster
from tests.support.kafka.reader import KafkaLogReader


class KafkaPlace:
    def __init__(
        self, cluster: Cluster, settings: KafkaWriterSettings | None = None, prefix: str = ""
    ) -> None:
        """``prefix`` of the topics' names; "": one that no other test has."""
        self.cluster = cluster
        self.settings = settings or KafkaWriterSettings()
        self.prefix = prefix or f"{uuid.uuid4().hex[:8]}."

    @property
    def url(self) -> str:
        """As MESHFLOW_LOG has it."""
        return f"kafka://{self.cluster.bootstrap}/{self.prefix}"

    async def open_writer(self, partitions: dict[str, int] | None = None) -> KafkaLogWriter:
        return await KafkaLogWriter.open(
            self.cluster.bootstrap.split(","), partitions or PARTITIONS, self.settings, self.prefix
        )

    async def open_reader(self, group: str = "contract") -> KafkaLogReader:
        return await KafkaLogReader.open(self.cluster.bootstrap, self.prefix, self.prefix + group)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def set_topic(self, topic: str, config: dict[str, str]) -> None:
        """Change settings of a topic; those that are not named go back to the brokers' own."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.cluster.bootstrap)
        await admin.start()
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.prefix + topic, config)])
        await admin.close()
