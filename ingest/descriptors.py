"""How many files this process may have open, sockets included, and how many connections that leaves.

Most systems give a process 1,024 (``ulimit -n``) and let it ask for more. A receiver that runs out accepts
nobody, and its log cannot open files either; so it asks, and where it does not get enough takes fewer
connections.
"""

import logging
import resource

from ingest.settings import IngestSettings

_LOGGER = logging.getLogger(__name__)

OTHER_FILES = 512
"""What else the process may need: the log, the store (chdb: some hundred), Kafka, other ports."""


def fitted(settings: IngestSettings) -> IngestSettings:
    """``settings`` with as many connections as fit. Raises this process's limit if it may and must; warns
    where that is not enough.
    """
    wanted = settings.max_connections + settings.max_http_connections
    limit = _limit(wanted + OTHER_FILES)
    room = max(limit - OTHER_FILES, limit // 2)
    if wanted <= room:
        return settings
    grpc, http = (
        max(1, share * room // wanted) for share in (settings.max_connections, settings.max_http_connections)
    )
    _LOGGER.warning(
        "this process may have %s files open (ulimit -n), of which it needs up to %s itself: it takes %s gRPC and %s HTTP connections, "
        "not the %s and %s of max_connections and max_http_connections",
        *(
            f"{number:,}"
            for number in (
                limit,
                limit - room,
                grpc,
                http,
                settings.max_connections,
                settings.max_http_connections,
            )
        ),
    )
    return settings.model_copy(update={"max_connections": grpc, "max_http_connections": http})


def _limit(needed: int) -> int:
    """How many files may be open, ``needed`` if that is possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return needed
    may = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (may, hard))
    except (ValueError, OSError):  # the system has a limit of its own
        return soft
    return may
