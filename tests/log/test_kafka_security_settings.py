"""TLS and login of Kafka's clients as settings: what goes together, what is shown, what becomes of it."""

import ssl
from pathlib import Path

import pytest

from log.kafka.security import KafkaSecuritySettings
from meshflow import settings as all_settings
from meshflow.settings import SettingsInvalid, load
from schemas.errors import LogUnavailable
from tests.support.kafka.certificates import Authority

LOGIN = {"mechanism": "SCRAM-SHA-512", "username": "meshflow", "password": "hunter2"}


@pytest.mark.parametrize(
    ("settings", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"tls": True}, "SSL"),
        (LOGIN, "SASL_PLAINTEXT"),
        ({"tls": True, **LOGIN}, "SASL_SSL"),
    ],
)
def test_the_protocol_follows_from_what_is_set(settings: dict[str, object], protocol: str) -> None:
    options = KafkaSecuritySettings.model_validate(settings).client_options()
    assert options["security_protocol"] == protocol
    assert ("ssl_context" in options, options.get("sasl_plain_password")) == (
        "SSL" in protocol,
        "hunter2" if "SASL" in protocol else None,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("mechanism = 'PLAIN'", "needs kafka.username and kafka.password"),
        ("username = 'me'\npassword = 'hunter2'", "kafka.username is of no use without kafka.mechanism"),
        ("ca_file = 'ca.pem'", "of no use without kafka.tls = true"),
        ("tls = true\nkey_file = 'key.pem'", "kafka.key_file needs kafka.certificate_file"),
        ("mechanism = 'GSSAPI'", "kafka.mechanism = 'GSSAPI'"),
        ("password = 4711", "kafka.password: input should be a valid string"),
    ],
)
def test_what_does_not_go_together_is_said_without_the_password(
    tmp_path: Path, settings: str, message: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f"[kafka]\n{settings}\n")
    with pytest.raises(SettingsInvalid, match=message) as failed:
        load(file, environ={})
    assert "hunter2" not in str(failed.value)
    assert "4711" not in str(failed.value)


def test_passwords_are_never_shown() -> None:
    environ = {
        f"MESHFLOW_KAFKA__{name.upper()}": value
        for name, value in {**LOGIN, "key_password": "hunter3"}.items()
    }
    settings = load(Path("/dev/null"), environ=environ).settings
    shown = f"{settings!r} {settings} {settings.model_dump_json()}"
    shown += " ".join(str(all_settings.value_of(settings, name)) for name in all_settings.names())
    assert "hunter" not in shown
    assert settings.kafka.password.get_secret_value() == "hunter2"


def test_a_client_certificate_with_an_encrypted_key(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("ingest", password="s3cret")
    settings = KafkaSecuritySettings.model_validate(
        {
            "tls": True,
            "ca_file": str(authority.file),
            "certificate_file": str(files.certificate),
            "key_file": str(files.key),
            "key_password": "s3cret",
        }
    )
    context = settings.ssl_context()
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1
    wrong = settings.model_copy(update={"key_password": type(settings.key_password)("wrong")})
    with pytest.raises(LogUnavailable, match=r"certificates of \[kafka\] cannot be used") as failed:
        wrong.ssl_context()
    assert "wrong" not in str(failed.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = KafkaSecuritySettings(tls=True, ca_file=str(tmp_path / "ca.pem"))
    with pytest.raises(LogUnavailable, match=r"kafka.ca_file = '.*ca.pem' is not there"):
        settings.client_options()
