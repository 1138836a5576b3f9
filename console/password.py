"""The SQL port's password: from the settings, or from a file that is made at the first start; and no port off
loopback without one.
"""

import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path

from console.names import is_loopback
from console.settings import ConsoleSettings
from schemas.errors import MeshflowError

logger = logging.getLogger(__name__)

_BYTES = 24


class PortExposed(MeshflowError):
    """Other machines would reach the SQL port, and it asks for no password."""


class PasswordUnreadable(MeshflowError):
    """The file of the password can be neither read nor made."""


def read_password(settings: ConsoleSettings) -> str:
    """``console.password``, else the first line of ``console.password_file``; "" where there is neither.

    Raises PasswordUnreadable.
    """
    password = settings.password.get_secret_value()
    if password or not settings.password_file:
        return password
    path = Path(settings.password_file)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise PasswordUnreadable(f"{path} (console.password_file) cannot be read: {error}") from error
    if not lines or not lines[0].strip():
        raise PasswordUnreadable(
            f"{path} (console.password_file) has no password in its first line; write one, or remove the file"
        )
    return lines[0].strip()


def check_exposure(settings: ConsoleSettings) -> ConsoleSettings:
    """The settings with the password that the SQL port asks for, so that the file is not needed any more.

    Makes ``console.password_file`` where it is set and not there. Raises PortExposed where other machines
    reach the port and no password is set, unless ``console.allow_without_password``; PasswordUnreadable.
    """
    if settings.password_file and not read_password(settings):
        _make(Path(settings.password_file))
    password = read_password(settings)
    if not password and not is_loopback(settings.host) and not settings.allow_without_password:
        raise PortExposed(
            f"the SQL port would listen on {settings.host or 'every address'} and let everyone in: set console.password "
            "(MESHFLOW_CONSOLE__PASSWORD) or console.password_file, or console.allow_without_password = true"
        )
    return settings.model_copy(update={"password": type(settings.password)(password)})


def _make(path: Path) -> None:
    """Write a random password; the file is whole or not there, and its owner's alone."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(_BYTES) + "\n")
        with suppress(FileExistsError):  # another process was faster: its password holds
            os.link(partial, path)
        partial.unlink()
    except OSError as error:
        raise PasswordUnreadable(f"{path} (console.password_file) cannot be written: {error}") from error
    logger.warning("the password of the SQL port is in %s, which is new", path)
