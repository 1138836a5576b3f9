"""Errors that cross package borders. Each names what the caller can do about it."""


class MeshflowError(Exception):
    """Root of meshflow's own errors."""


class BatchTooLarge(MeshflowError):
    """The rows of a batch would take more than they may (``schemas.otlp.limits.Limits.batch_bytes``)."""


class MalformedOtlp(MeshflowError):
    """The bytes are not a message of the expected OTLP type: the sender's fault, sending them again will not
    help.

    ``record`` is the index of the payload at fault where several were given.
    """

    def __init__(self, message: str, record: int | None = None) -> None:
        super().__init__(message)
        self.record = record


class LogFull(MeshflowError):
    """The bounded buffer in front of the log is full; the sender may try again after ``retry_after_s``."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LogUnavailable(MeshflowError):
    """The log did not take the records; nothing was acknowledged."""


class LogDiskFull(LogUnavailable):
    """The log's disk has no room; it goes on by itself when there is some."""


class LogDamaged(LogUnavailable):
    """A file of the log holds what nobody wrote; the message says which file, what is lost and what to do."""


class LogVanished(LogUnavailable):
    """The log's files were removed or replaced while they were open."""


class AddressInUse(MeshflowError):
    """A server cannot listen on its address; the message names it."""


class OffsetGone(MeshflowError):
    """The wanted offset was removed by retention; ``beginning`` is the first one that is still there."""

    def __init__(self, wanted: int, beginning: int) -> None:
        super().__init__(f"offset {wanted} is gone, the log begins at {beginning}")
        self.wanted = wanted
        self.beginning = beginning


class SinkUnavailable(MeshflowError):
    """The database cannot be reached or is overloaded; writing the same block again later is right."""


class SinkRejected(MeshflowError):
    """The database refuses this block for what its rows are: writing it again will not help, a part of it may
    be taken.
    """


class SinkTooLarge(SinkRejected):
    """The block is too large for the database: its halves may be taken."""


class SinkUnusable(MeshflowError):
    """The database takes no block of this table until someone mends it (access denied, no such table or
    column); the message says what to do.
    """


class QueryFailed(MeshflowError):
    """A query was refused or failed: ``code`` is ClickHouse's error number, the text is ClickHouse's own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class ProcessingFailed(MeshflowError):
    """Processing cannot go on, and trying again would not mend it; no record is at fault. What was
    acknowledged is in the log, and the next start goes on from the commit.
    """
