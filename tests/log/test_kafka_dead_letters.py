"""Dead letters on a real Kafka: the contract of both modes."""

import pytest

from log.kafka.dead_letter_reader import KafkaDeadLetterReader
from log.kafka.dead_letters import DeadLetterWriter
from schemas.dead_letters import LetterId
from schemas.records import TopicPartition
from tests.log.dead_letter_contract import DeadLetterContract
from tests.support.kafka.broker import Cluster
from tests.support.kafka.place import KafkaPlace

pytestmark = [pytest.mark.component("kafka"), pytest.mark.timeout(900)]


class KafkaLetterPlace(KafkaPlace):
    async def open_writer(self) -> DeadLetterWriter:  # type: ignore[override]
        return DeadLetterWriter(self.cluster.bootstrap.split(","), self.prefix)

    async def open_reader(self) -> KafkaDeadLetterReader:  # type: ignore[override]
        return KafkaDeadLetterReader(self.cluster.bootstrap.split(","), self.prefix)

    def id(self, tp: TopicPartition, offset: int) -> LetterId:
        return LetterId(self.prefix + tp.topic, tp.partition, offset)


class TestKafkaDeadLetters(DeadLetterContract):
    @pytest.fixture
    def place(self, broker: Cluster) -> KafkaLetterPlace:
        return KafkaLetterPlace(broker)
