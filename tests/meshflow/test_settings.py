"""Settings: what wins, where values came from, and errors that say what to do."""

import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshflow import settings as all_settings
from meshflow.settings import SettingsInvalid, load, value_of
from tests.support.examples import examples


def write(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text)
    return file


def test_defaults_need_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(environ={})
    assert loaded.settings.ingest.grpc_port == 4317
    assert loaded.settings.ingest.host == "127.0.0.1"
    assert loaded.settings.console.host == "127.0.0.1"
    assert loaded.origin(("ingest", "grpc_port")) == "default"


def test_later_sources_win_and_each_value_knows_its_own(tmp_path: Path) -> None:
    file = write(
        tmp_path, '[ingest]\ngrpc_port = 1\nhttp_port = 2\nhost = "::"\n[processing.labels]\nseries = 9\n'
    )
    environ = {
        "MESHFLOW_INGEST__HTTP_PORT": "3",
        "MESHFLOW_INGEST__HOST": "0.0.0.0",
        "MESHFLOW_LOG": "sqlite:///tmp/elsewhere",
        "MESHFLOW_PROCESSING__LABELS__SERVICES": "7",
        "MESHFLOW_DECODER": "auto",
        "PATH": "/bin",
    }
    loaded = load(file, {("ingest", "host"): "127.0.0.2", ("processing", "pane"): "250ms"}, environ)
    ingest, processing = loaded.settings.ingest, loaded.settings.processing
    assert (ingest.grpc_port, ingest.http_port, ingest.host) == (1, 3, "127.0.0.2")
    assert processing.pane == timedelta(milliseconds=250)
    assert (processing.labels.series, processing.labels.services) == (9, 7)
    assert loaded.settings.storage.log == "sqlite:///tmp/elsewhere"
    assert loaded.origin(("ingest", "grpc_port")) == f"file {file}"
    assert loaded.origin(("ingest", "http_port")) == "environment variable MESHFLOW_INGEST__HTTP_PORT"
    assert loaded.origin(("ingest", "host")) == "command line"
    assert loaded.origin(("storage", "log")) == "environment variable MESHFLOW_LOG"
    assert (
        loaded.origin(("processing", "labels", "services"))
        == "environment variable MESHFLOW_PROCESSING__LABELS__SERVICES"
    )
    assert loaded.origin(("processing", "wait")) == "default"


def test_the_working_directorys_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "meshflow.toml").write_text("[processing]\nwait = 5\n")
    assert load(environ={}).settings.processing.wait == 5


def test_storage_follows_processing(tmp_path: Path) -> None:
    file = write(tmp_path, '[processing]\npartitions = 2\nrollup_grace = "5m"\n')
    storage = load(file, environ={}).settings.storage
    assert (storage.partitions, storage.rollup_grace) == (2, timedelta(minutes=5))
    with pytest.raises(
        SettingsInvalid, match=r"storage\.partitions follows processing\.partitions; set that instead"
    ):
        load(write(tmp_path, "[storage]\npartitions = 3\n"), environ={})


def test_policies_come_from_the_file_or_as_json(tmp_path: Path) -> None:
    file = write(
        tmp_path, '[[sampling.policies]]\nname = "slow"\ntype = "latency"\nlatency = { threshold_ms = 500 }\n'
    )
    assert [policy.name for policy in load(file, environ={}).settings.sampling.policies] == ["slow"]
    environ = {"MESHFLOW_SAMPLING__POLICIES": '[{"name": "all", "type": "always_sample"}]'}
    assert [policy.name for policy in load(file, environ=environ).settings.sampling.policies] == ["all"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[ingest]\ngrpc_prot = 1",
            r"settings.toml: there is no setting ingest.grpc_prot \(do you mean grpc_port\?\)",
        ),
        (
            "[ingset]\ngrpc_port = 1",
            r"settings.toml: there is no section ingset.grpc_port|there is no section ingset",
        ),
        (
            "[ingest]\ngrpc_port = 'many'",
            r"settings.toml: ingest.grpc_port = 'many': input should be a valid integer",
        ),
        ("[processing]\npane = '5 parsec'", r"processing.pane = '5 parsec': .*write it like 5s, 250ms"),
        ("[storage]\nstore = 'mysql://me:secret@db'", r"write chdb:///DIR or clickhouse://"),
        (
            "[[sampling.policies]]\nname = 'x'\ntype = 'latencies'",
            r"sampling.policies.0: unknown policy type 'latencies'; supported: ",
        ),
        ("[ingest", "is not TOML"),
    ],
)
def test_errors_of_the_file_say_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message) as failed:
        load(write(tmp_path, text), environ={})
    assert "secret" not in str(failed.value)


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid) as failed:
        load(write(tmp_path, "[ingest]\ngrpc_port = 'a'\nhttp_port = 'b'\n"), environ={})
    assert len(str(failed.value).splitlines()) == 2


def test_errors_of_the_environment_name_the_variable(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsInvalid,
        match=r"MESHFLOW_INGEST__GRPC_PROT names no setting \(do you mean MESHFLOW_INGEST__GRPC_PORT\?\)",
    ):
        load(write(tmp_path, ""), environ={"MESHFLOW_INGEST__GRPC_PROT": "1"})
    with pytest.raises(
        SettingsInvalid, match=r"environment variable MESHFLOW_INGEST__GRPC_PORT: ingest.grpc_port = 'z'"
    ):
        load(write(tmp_path, ""), environ={"MESHFLOW_INGEST__GRPC_PORT": "z"})
    with pytest.raises(SettingsInvalid, match="lists are written as JSON"):
        load(write(tmp_path, ""), environ={"MESHFLOW_SAMPLING__POLICIES": "[{"})


def test_a_missing_file_is_an_error_when_it_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="is not there"):
        load(tmp_path / "nowhere.toml", environ={})


def test_all_settings_written_as_toml_read_back(tmp_path: Path) -> None:
    first = load(write(tmp_path, ""), environ={}).settings
    lines = [
        f"{'.'.join(name)} = {all_settings.toml_of(all_settings.value_of(first, name))}"
        for name in all_settings.names()
    ]
    file = write(tmp_path, "\n".join(lines))
    assert tomllib.loads(file.read_text())["ingest"]["max_message"] == "64MiB"
    assert load(file, environ={}).settings == first


@pytest.mark.parametrize(
    "password", ["open@sesame", "a:b@c", "open%40sesame%2F", "@", "@@x", ":@:", "p@x%2Fy"]
)
@pytest.mark.parametrize("name", ["store", "log"])
def test_a_shown_url_has_no_part_of_its_password(password: str, name: str) -> None:
    url = {"store": f"clickhouse://me:{password}@db:8123/mesh", "log": f"kafka://me:{password}@kafka:9092"}[
        name
    ]
    loaded = load(options={("storage", name): url}, environ={}).settings
    host = "db:8123/mesh" if name == "store" else "kafka:9092"
    assert value_of(loaded, ("storage", name)) == f"{url.partition('://')[0]}://me:***@{host}"


@examples(60)
@given(
    st.sampled_from(["store", "log"]),
    st.sampled_from(["clickhouse", "clickhouses", "kafka", "sqlite", "chdb", "mysql", ""]),
    st.text("@:/?#[]%4028,=& \u2100\\\n", max_size=8),
    st.text("@:/?#[]%4028,=& \u2100\\\n", max_size=8),
)
def test_no_error_and_no_shown_setting_has_a_part_of_a_password(
    name: str, scheme: str, before: str, after: str
) -> None:
    url = f"{scheme}://me:QUINCE{before}QUINCE{after}QUINCE@db:8123/mesh"
    try:
        loaded = load(options={("storage", name): url}, environ={}).settings
    except SettingsInvalid as error:
        shown = str(error)
    else:
        shown = str(value_of(loaded, ("storage", name)))
    assert "quince" not in shown.lower()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mask_patterns = ['a', '((']", r"storage\.redact\.mask_patterns\.1 = .*: is no regular expression of RE2: missing \): \(\("),
        ("mask_patterns = ['x*']", r"storage\.redact\.mask_patterns\.0 = .*: matches the empty text, .*; ask for one character"),
        ("mask_patterns = ['(?=a)b']", r"storage\.redact\.mask_patterns\.0 = .*: is no regular expression of RE2"),
        (f"mask_patterns = {[f'{number}.{{1000}}' for number in range(100)]}", r"storage\.redact: mask_patterns, .*too large"),
        ("drop = ['']", r"storage\.redact\.drop\.0 = '': string should have at least 1 character"),
        ("drop = ['a']\nhash = ['A']", r"storage\.redact: a is in two of drop, hash and mask; leave it in one"),
        ("hash_key = 'short'", r"storage\.redact: hash_key has 16 characters or more, or none"),
        ("masks = ['a']", r"there is no setting storage\.redact\.masks .*do you mean mask"),
    ],
)  # fmt: skip
def test_a_rule_of_redaction_that_cannot_be_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message) as error:
        load(write(tmp_path, f"[storage.redact]\n{text}\n"), environ={})
    assert "short" not in str(error.value)


def test_rules_of_redaction_are_handed_on_and_the_hash_key_is_not_shown(tmp_path: Path) -> None:
    key = "0123456789abcdef"
    file = write(
        tmp_path, f"[storage.redact]\ndrop = ['a.*']\nmask_patterns = ['4\\d{{3}}']\nhash_key = '{key}'\n"
    )
    settings = load(file, environ={"MESHFLOW_STORAGE__REDACT__HASH": '["user.id"]'}).settings
    rules = settings.storage.redact.rules
    assert (rules.drop, rules.hash, rules.mask_patterns) == (("a.*",), ("user.id",), (r"4\d{3}",))
    assert (rules.hash_key, rules.credentials) == (key, True)
    assert key not in repr(rules) + repr(settings)
    assert value_of(settings, ("storage", "redact", "hash_key")) == "**********"
