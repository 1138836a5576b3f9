"""deploy/clickhouse/readers.xml, read by ClickHouse's own code for users, profiles and grants: the embedded
engine's, whose one user gets what the file gives `grafana`. No ClickHouse server can be had where these tests
run (docs/adr/0005).
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.up import ROOT

READERS = ROOT / "deploy" / "clickhouse" / "readers.xml"

FILL = """
import sys, chdb
connection = chdb.connect(sys.argv[1])
for sql in ("CREATE DATABASE meshflow", "CREATE DATABASE other",
            "CREATE TABLE meshflow.red (slot UInt32, requests UInt64) ENGINE = MergeTree ORDER BY slot",
            "INSERT INTO meshflow.red SELECT number, 2 FROM numbers(10)",
            "CREATE TABLE other.secret (n UInt8) ENGINE = MergeTree ORDER BY n"):
    connection.query(sql)
connection.close()
"""
ASK = """
import json, sys, chdb
connection = chdb.connect(f"{sys.argv[1]}?config-file={sys.argv[2]}")

def ask(sql):
    try:
        return (connection.query(sql, "TSVRaw").bytes() or b"").decode()
    except RuntimeError as error:
        return f"refused: {error}"

print(json.dumps([ask(sql) for sql in json.loads(sys.argv[3])]))
"""


def as_the_only_user(folder: Path) -> Path:
    """The file with its user `grafana` named `default`, without the password."""
    tree = ElementTree.parse(READERS)
    root = tree.getroot()
    user = root.find("users/grafana")
    assert user is not None
    user.tag = "default"
    password = user.find("password")
    assert password is not None
    password.attrib.clear()
    quotas = ElementTree.SubElement(root, "quotas")
    ElementTree.SubElement(quotas, "default")
    profiles = root.find("profiles")
    assert profiles is not None
    ElementTree.SubElement(profiles, "default")
    directories = ElementTree.SubElement(ElementTree.SubElement(root, "user_directories"), "users_xml")
    ElementTree.SubElement(directories, "path").text = "readers.xml"
    tree.write(folder / "readers.xml")
    return folder / "readers.xml"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("readers")
    store = str(folder / "store")
    run("-c", FILL, store)
    statements = [*ANSWERED, *REFUSED, *NOT_RAISED]
    said = json.loads(run("-c", ASK, store, str(as_the_only_user(folder)), json.dumps(statements)))
    return dict(zip(statements, said, strict=True))


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ANSWERED = {
    "SELECT sum(requests) FROM meshflow.red": "20\n",
    "SELECT count() FROM system.columns WHERE database = 'meshflow'": "2\n",
    "SELECT name FROM system.tables WHERE database = 'meshflow'": "red\n",
    "SHOW TABLES FROM meshflow": "red\n",
    "SELECT sum(requests) FROM meshflow.red SETTINGS max_execution_time = 60": "20\n",
}
REFUSED = (
    "SELECT * FROM other.secret",
    "SELECT * FROM file('/etc/hostname', LineAsString)",
    "SELECT * FROM url('http://127.0.0.1:9/', LineAsString, 'line String')",
    "SELECT * FROM remote('127.0.0.1:9', 'system', 'one')",
    "SELECT * FROM mysql('127.0.0.1:9', 'd', 't', 'u', 'p')",
    "INSERT INTO meshflow.red VALUES (1, 1)",
    "CREATE TABLE meshflow.made (n UInt8) ENGINE = Memory",
    "CREATE DATABASE made",
    "DROP TABLE meshflow.red",
    "TRUNCATE TABLE meshflow.red",
    "ALTER TABLE meshflow.red DELETE WHERE 1",
    "OPTIMIZE TABLE meshflow.red",
    "SYSTEM SHUTDOWN",
    "CREATE USER stranger",
    "GRANT ALL ON *.* TO default",
)
"""ACCESS_DENIED or READONLY."""
NOT_RAISED = (
    "SELECT 1 SETTINGS max_execution_time = 66",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT 1 SETTINGS max_memory_usage = 0",
    "SELECT 1 SETTINGS max_memory_usage = 2000000000",
    "SELECT 1 SETTINGS format_schema = '/etc/hostname'",
    "SELECT 1 SETTINGS format_template_row = '/etc/hostname'",
    "SELECT 1 SETTINGS format_template_resultset = '/etc/hostname'",
    "SELECT 1 SETTINGS format_avro_schema_registry_url = 'http://127.0.0.1:9'",
    "SELECT 1 SETTINGS send_logs_level = 'trace'",
    "SELECT 1 SETTINGS readonly = 0",
    "SET readonly = 0",
    "SET max_execution_time = 66",
)
"""SETTING_CONSTRAINT_VIOLATION or READONLY."""


@pytest.mark.parametrize("sql", ANSWERED)
def test_a_reader_reads_meshflows_tables(answers: dict[str, str], sql: str) -> None:
    assert answers[sql] == ANSWERED[sql]


@pytest.mark.parametrize("sql", REFUSED)
def test_a_reader_changes_and_reaches_nothing_else(answers: dict[str, str], sql: str) -> None:
    assert re.search(r"Code: (497|164)\.", answers[sql]), answers[sql]


@pytest.mark.parametrize("sql", NOT_RAISED)
def test_a_reader_keeps_its_limits(answers: dict[str, str], sql: str) -> None:
    assert re.search(r"Code: (452|164)\.", answers[sql]), answers[sql]
