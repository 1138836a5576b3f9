"""Kafka's TLS, client certificates and logins, on a broker that asks for them."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from log.kafka.dead_letters import DeadLetterWriter
from log.kafka.security import KafkaSecuritySettings
from log.kafka.settings import KafkaWriterSettings
from log.kafka.writer import KafkaLogWriter
from schemas.errors import LogUnavailable
from schemas.records import Append, DeadLetter, Record
from tests.log.log_contract import ENOUGH, PARTITIONS, A
from tests.support.kafka.broker import Cluster
from tests.support.kafka.certificates import Authority
from tests.support.kafka.fleet import ingest
from tests.support.kafka.place import KafkaPlace
from tests.support.kafka.ports import reserve_port
from tests.support.kafka.sender import logged
from tests.support.receiving import export, traces

pytestmark = [pytest.mark.component("kafka"), pytest.mark.timeout(900)]

PASSWORD = "only-for-this-test"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class Guarded:
    """One broker: PLAINTEXT for the tests' own readers, SSL for clients with a certificate, SASL_SSL for
    users.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        broker = self.authority.issue("broker")
        keys = folder / "broker-all.pem"
        keys.write_text(broker.key.read_text() + broker.certificate.read_text())
        self.ssl_port, self.sasl_port = reserve_port(), reserve_port()
        self.cluster = Cluster(folder / "cluster")
        (self._node,) = self.cluster.nodes
        login = "org.apache.kafka.common.security"
        places = {"PLAINTEXT": self._node.port, "SSL": self.ssl_port, "SASL_SSL": self.sasl_port}
        listeners = ",".join(f"{name}://127.0.0.1:{port}" for name, port in places.items())
        self.cluster.settings = {
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{self._node.controller_port}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keys),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.file),
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{login}.plain.PlainLoginModule required user_meshflow="{PASSWORD}";',
            "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
        }

    def add_user(self) -> None:
        """Brokers keep SCRAM's users themselves."""
        where = (
            "--bootstrap-server",
            self._node.address,
            "--entity-type",
            "users",
            "--entity-name",
            "meshflow",
            "--alter",
        )
        for mechanism in MECHANISMS[1:]:
            config = f"{mechanism}=[iterations=4096,password={PASSWORD}]"
            self._node.run_tool("kafka.admin.ConfigCommand", *where, "--add-config", config)

    def certificates(self) -> dict[str, Any]:
        """Settings of a client that has one."""
        issued = self.authority.issue("client", password="for-the-key")
        files = {
            "certificate_file": str(issued.certificate),
            "key_file": str(issued.key),
            "key_password": "for-the-key",
        }
        return {"tls": True, "ca_file": str(self.authority.file), **files}

    def login(self, mechanism: str, password: str = PASSWORD) -> dict[str, Any]:
        """Settings of a client with a login."""
        user = {"mechanism": mechanism, "username": "meshflow", "password": password}
        return {"tls": True, "ca_file": str(self.authority.file), **user}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    guarded = Guarded(tmp_path_factory.mktemp("guarded"))
    with guarded.cluster:
        guarded.add_user()
        yield guarded


async def write_and_read(guarded: Guarded, port: int, settings: dict[str, Any]) -> None:
    """Everything that ingest does on Kafka, by this way; what it wrote is there."""
    security = KafkaSecuritySettings.model_validate(settings)
    place = KafkaPlace(guarded.cluster)
    writer = await KafkaLogWriter.open(
        [f"127.0.0.1:{port}"], PARTITIONS, KafkaWriterSettings(), place.prefix, security
    )
    append, id_ = Append(A, b"by a safe way"), b"i" * 16
    await writer.append([append], [id_])
    assert len(await writer.find([(append, id_, 0)])) == 1
    await writer.settle()
    await asyncio.sleep(0.01)
    await writer.tick(1)
    await writer.close()
    letters = DeadLetterWriter([f"127.0.0.1:{port}"], place.prefix, security)
    await letters.write(A, [DeadLetter(Record(7, 0, b"", 0), "not OTLP")])
    await letters.close()
    reader = await place.open_reader()
    assert (await reader.read(A, 0, ENOUGH))[0].unpack() == b"by a safe way"
    await reader.close()


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_by_tls_and_a_login(guarded: Guarded, mechanism: str) -> None:
    await write_and_read(guarded, guarded.sasl_port, guarded.login(mechanism))


async def test_by_tls_and_a_client_certificate(guarded: Guarded) -> None:
    await write_and_read(guarded, guarded.ssl_port, guarded.certificates())


@pytest.mark.parametrize("fault", ["wrong password", "no certificate", "unknown authority", "no TLS"])
async def test_who_is_not_let_in_is_answered_so(
    guarded: Guarded, fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port, settings = {
        "wrong password": (guarded.sasl_port, guarded.login("SCRAM-SHA-512", "hunter2")),
        "no certificate": (guarded.ssl_port, {"tls": True, "ca_file": str(guarded.authority.file)}),
        "unknown authority": (
            guarded.sasl_port,
            guarded.login("PLAIN") | {"ca_file": str(Authority(tmp_path).file)},
        ),
        "no TLS": (guarded.sasl_port, {}),
    }[fault]
    security = KafkaSecuritySettings.model_validate(settings)
    with pytest.raises(LogUnavailable, match="does not answer"):
        await KafkaLogWriter.open(
            [f"127.0.0.1:{port}"], PARTITIONS, KafkaWriterSettings(), "nobody.", security
        )
    assert "hunter2" not in caplog.text
    assert PASSWORD not in caplog.text


def test_ingest_takes_it_from_its_settings_and_shows_no_password(guarded: Guarded, tmp_path: Path) -> None:
    place = KafkaPlace(guarded.cluster)
    login = guarded.login("SCRAM-SHA-256")
    config = "[kafka]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in login.items())
    url = f"kafka://127.0.0.1:{guarded.sasl_port}/{place.prefix}"
    receiver = ingest(tmp_path, url, config, workers=2)
    with ExitStack() as running:
        receiver.launch()
        running.callback(receiver.kill)
        target = receiver.wait_for(r"OTLP/gRPC +(\S+)")
        asyncio.run(send_and_look(place, target))
        assert receiver.stop() == 0, receiver.output()
    assert PASSWORD not in receiver.output()


async def send_and_look(place: KafkaPlace, target: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        await export(channel, traces(0, 5), timeout=60)
    assert len(await logged(place)) == 5
