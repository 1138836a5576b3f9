"""Workers, repartition and dead letters on brokers that speak TLS and ask for a login."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.load import make_requests
from log.kafka.brokers import Brokers, Probe, wait_for_topics
from log.kafka.consumer import stop_consumer
from log.kafka.security import KafkaSecuritySettings
from log.kafka.settings import KafkaWriterSettings
from log.kafka.writer import KafkaLogWriter
from schemas.errors import LogUnavailable
from schemas.records import Append, TopicPartition
from schemas.topics import DEAD_LETTER, SPANS, TOPICS
from tests.e2e.test_kafka_e2e import metrics
from tests.support.kafka.broker import Cluster
from tests.support.kafka.certificates import Authority
from tests.support.kafka.fleet import Command, worker
from tests.support.kafka.ports import reserve_port
from tests.support.up import LONG_S

pytestmark = [pytest.mark.component("kafka"), pytest.mark.timeout(900)]

PASSWORD = "a secret"


class SecureCluster(Cluster):
    """One node that takes clients by SASL_SSL alone."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder)
        (node,) = self.nodes
        issued = authority.issue("broker")
        store = issued.certificate.with_name("broker.store.pem")
        store.write_text(issued.key.read_text() + issued.certificate.read_text())
        within = reserve_port()
        self.settings = {
            "listeners": (
                f"SASL_SSL://127.0.0.1:{node.port},PLAINTEXT://127.0.0.1:{within},CONTROLLER://127.0.0.1:{node.controller_port}"
            ),
            "advertised.listeners": f"SASL_SSL://127.0.0.1:{node.port},PLAINTEXT://127.0.0.1:{within}",
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": (
                f'org.apache.kafka.common.security.plain.PlainLoginModule required user_meshflow="{PASSWORD}";'
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
        }


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Cluster]:
    with SecureCluster(tmp_path_factory.mktemp("secure") / "broker", authority) as cluster:
        yield cluster


@pytest.fixture
def security(authority: Authority) -> KafkaSecuritySettings:
    return settings(authority, PASSWORD)


def settings(authority: Authority, password: str) -> KafkaSecuritySettings:
    return KafkaSecuritySettings.model_validate(
        {
            "tls": True,
            "ca_file": str(authority.file),
            "mechanism": "PLAIN",
            "username": "meshflow",
            "password": password,
        }
    )


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


CONFIG = """
[kafka]
tls = true
ca_file = {ca_file}
mechanism = "PLAIN"
username = "meshflow"
password = {password}

[processing]
partitions = 2
"""


def start(running: ExitStack, command: Command) -> Command:
    command.launch()
    running.callback(command.kill)
    command.wait_for("(is running)")
    return command


async def test_repartition_and_process_by_tls_and_login(
    secure: Cluster, authority: Authority, security: KafkaSecuritySettings, tmp_path: Path, running: ExitStack
) -> None:
    url = f"kafka://{secure.bootstrap}/tls."
    config = CONFIG.format(ca_file=json.dumps(str(authority.file)), password=json.dumps(PASSWORD))
    foreign = await KafkaLogWriter.open(
        [secure.bootstrap], dict.fromkeys(TOPICS, 1), KafkaWriterSettings(), "tls.foreign.", security
    )
    for value in (*make_requests(200, 5, 5, 20, seed=1), b"\xff\xff not OTLP"):
        await foreign.append([Append(TopicPartition(SPANS, 0), value)])
    await foreign.close()
    arguments = ("repartition", "--metrics-port", "0", "--pane", "1s", "--source-prefix", "tls.foreign.")
    splitting = await asyncio.to_thread(
        start, running, Command(tmp_path, "repartition", url, *arguments, config=config)
    )
    processing = await asyncio.to_thread(start, running, worker(tmp_path, url, config))
    await eventually(
        lambda: 'meshflow_repartition_items_total{topic="otlp_spans"} 200.0' in metrics(splitting), splitting
    )
    await eventually(
        lambda: 'meshflow_store_rows_total{table="otel_traces"}' in metrics(processing), processing
    )
    assert await asyncio.to_thread(processing.stop) == 0, processing.output()
    assert await asyncio.to_thread(splitting.stop) == 0, splitting.output()
    assert PASSWORD not in processing.output() + splitting.output()

    consumer = Brokers((secure.bootstrap,), security).consumer(auto_offset_reset="earliest")
    consumer.subscribe(["tls." + DEAD_LETTER])
    await consumer.start()
    letter = await asyncio.wait_for(consumer.getone(), LONG_S)
    await stop_consumer(consumer)
    assert (letter.key, letter.value) == (f"tls.foreign.{SPANS}/0/10".encode(), b"\xff\xff not OTLP")
    probe = Probe(Brokers((secure.bootstrap,), security))
    assert await probe.look(("tls.foreign." + SPANS, 0), 3) == (0, 3)
    await probe.close()


async def eventually(happened: Callable[[], bool], command: Command) -> None:
    end_s = time.monotonic() + LONG_S
    while not await asyncio.to_thread(happened):
        assert time.monotonic() < end_s, command.output()
        await asyncio.sleep(0.2)


async def test_a_wrong_password_and_an_unknown_authority_are_reported(
    secure: Cluster, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("log.kafka.brokers._START_S", 0.5)
    unknown = KafkaSecuritySettings.model_validate(
        {"tls": True, "mechanism": "PLAIN", "username": "meshflow", "password": PASSWORD}
    )
    for wrong in (settings(authority, "not it"), unknown):
        with pytest.raises(LogUnavailable, match="does not answer"):
            await wait_for_topics(
                Brokers((secure.bootstrap,), wrong), {"tls." + SPANS: None}, asyncio.Event()
            )
