"""The second process of ``up``: ``python -m meshflow.run.back``, by the first one alone.

It confines itself before it loads anything that has threads of its own (NumPy, Arrow, Polars, the engine),
since Landlock binds the thread that asks for it and those that come after.
"""

import asyncio
import logging
import tempfile
from contextlib import suppress
from pathlib import Path

from meshflow.run.bounds import bounds, bounds_with_log_open
from meshflow.run.channel import Channel, Start
from meshflow.run.confinement import CannotConfine, Rules, confine
from meshflow.run.ending import end
from meshflow.run.folders import keep_private, log_folder
from schemas.errors import MeshflowError

logger = logging.getLogger(__name__)

_FIRST_TO_GO = 500
"""Added to what the kernel's out-of-memory killer thinks of this process: it takes this one, not the
receivers.
"""


def main() -> None:
    """Be the second process until SIGTERM, an error that cannot be mended, or the end of the first."""
    channel = Channel()
    start = channel.receive()
    logging.basicConfig(
        level=start.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    keep_private()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_FIRST_TO_GO))
    temporary = Path(tempfile.gettempdir())
    confined = _confine(bounds(start.settings, temporary), start)
    try:
        from log.sqlite.dead_letters import SqliteDeadLetters  # noqa: PLC0415 - brings Arrow, and threads
        from log.sqlite.reader import SqliteLogReader  # noqa: PLC0415 - as above

        log = log_folder(start.settings)
        reader = SqliteLogReader(log)
        letters = SqliteDeadLetters(log, start.settings.storage.dead_letters_max_bytes)
        if confined:
            confine(bounds_with_log_open(start.settings, temporary))
        from meshflow.run.back_parts import serve  # noqa: PLC0415 - brings Polars and chdb

        asyncio.run(serve(start.settings, reader, letters, start.listener, channel))
    except MeshflowError as error:
        end(channel, error)
    except Exception as error:
        logger.critical("processing and SQL failed", exc_info=error)
        end(channel, error)
    end(channel)


def _confine(rules: Rules, start: Start) -> bool:
    try:
        confine(rules)
    except CannotConfine as error:
        if not start.restarts:
            logger.warning(
                "SQL and processing are not confined by the kernel, what guards them is meshflow alone: %s",
                error,
            )
        return False
    return True


if __name__ == "__main__":
    main()
