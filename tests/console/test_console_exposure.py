"""A port that other machines reach has a password, or does not start."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from console.password import PasswordUnreadable, PortExposed, check_exposure, read_password
from console.settings import ConsoleSettings
from meshflow.cli import main
from tests.console.plain_http import ask, request, serving

EVERYWHERE = ("0.0.0.0", "::", "10.1.2.3", "node7.internal", "")


@pytest.mark.parametrize("host", EVERYWHERE)
def test_no_port_off_loopback_without_a_password(host: str) -> None:
    with pytest.raises(PortExposed, match=r"console\.password .*console\.allow_without_password"):
        check_exposure(ConsoleSettings(host=host))
    check_exposure(ConsoleSettings(host=host, password="secret"))
    check_exposure(ConsoleSettings(host=host, allow_without_password=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert check_exposure(ConsoleSettings(host=host)).password.get_secret_value() == ""


async def test_the_server_checks_by_itself() -> None:
    with pytest.raises(PortExposed):
        async with serving(host="0.0.0.0"):
            pass
    async with serving(host="0.0.0.0", password="secret") as server:
        assert (await ask(server, request())).status == 403
        assert (await ask(server, request("/", b"SELECT 1", "X-ClickHouse-Key: secret"))).status == 200


@pytest.mark.parametrize(
    ("command", "places"),
    [
        (("store",), {}),
        (("console",), {"MESHFLOW_STORE": "clickhouse://nowhere.invalid:8123/x"}),
    ],
)
def test_commands_do_not_start(command: tuple[str, ...], places: dict[str, str], tmp_path: Path) -> None:
    environ = {"MESHFLOW_STORAGE__DATA": str(tmp_path), **places}
    result = CliRunner().invoke(main, [*command, "--host", "0.0.0.0", "--sql-port", "0"], env=environ)
    assert result.exit_code != 0
    assert "console.allow_without_password" in result.output


def test_up_does_not_start(tmp_path: Path) -> None:
    ports = ("--grpc-port", "0", "--http-port", "0", "--sql-port", "0")
    up = subprocess.run(
        [sys.executable, "-m", "meshflow", "up", "--data", str(tmp_path / "data"), *ports],
        env={"MESHFLOW_CONSOLE__HOST": "0.0.0.0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert up.returncode != 0
    assert "console.allow_without_password" in up.stderr + up.stdout


async def test_a_file_has_the_password_and_is_made_where_there_is_none(tmp_path: Path) -> None:
    file = tmp_path / "there/password"
    settings = ConsoleSettings(host="0.0.0.0", password_file=str(file))
    assert read_password(settings) == ""
    first = check_exposure(settings).password.get_secret_value()
    assert len(first) >= 24
    assert first == read_password(settings) == file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["password"]
    assert check_exposure(settings).password.get_secret_value() == first
    async with serving(host="0.0.0.0", password_file=str(file)) as server:
        assert (await ask(server, request())).status == 403
        assert (await ask(server, request("/", b"SELECT 1", f"X-ClickHouse-Key: {first}"))).status == 200


def test_the_setting_stands_above_the_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    settings = ConsoleSettings(host="0.0.0.0", password="mine", password_file=str(file))
    assert check_exposure(settings).password.get_secret_value() == "mine"
    assert not file.exists()


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\n"])
def test_a_file_without_a_password_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(PasswordUnreadable, match=str(file)):
        check_exposure(ConsoleSettings(host="0.0.0.0", password_file=str(file)))


def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PasswordUnreadable):
        check_exposure(ConsoleSettings(password_file=str(tmp_path / "file/password")))
