"""How the second process of ``up`` ends: at once, with the reason for the first one."""

import logging
import os
from typing import NoReturn

from meshflow.run.channel import Channel
from schemas.errors import MeshflowError, ProcessingFailed

EXIT_FAILED = 1
EXIT_BROKEN = 70
EXIT_STUCK = 75
"""As sysexits.h's EX_TEMPFAIL: the next process does better."""


def end(channel: Channel, error: Exception | None = None) -> NoReturn:
    """End this process at once, whatever its threads do, and say why."""
    if error is not None:
        text = str(error) if isinstance(error, MeshflowError) else f"{type(error).__name__}: {error}"
        channel.fail(type(error).__name__, text)
    logging.shutdown()
    code = 0 if error is None else EXIT_BROKEN if isinstance(error, ProcessingFailed) else EXIT_FAILED
    os._exit(code)
