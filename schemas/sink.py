"""Where blocks go."""

from typing import Protocol

from schemas.tables import Block


class Sink(Protocol):
    """Stores blocks; storing one twice is storing it once."""

    def write(self, block: Block) -> None:
        """One insert with the block's token.

        Raises SinkUnavailable (write it again later), SinkTooLarge (write its halves), SinkRejected (some of
        its rows will never do), SinkUnusable (no block will do until someone mends the database).
        """

    def close(self) -> None:
        """Let go of the database."""
