"""The protocol of a job."""

from collections.abc import Iterator
from typing import Protocol

from schemas.watermark import Watermark


class Job(Protocol):
    """Work over the store that needs every partition, as roll-ups do.

    A job is idempotent: doing all of it again, by this worker, by the next one, or by two at once, leaves in
    the store what doing it once leaves. How far it is stands in the store, and there alone. One thread at a
    time uses a job.
    """

    @property
    def name(self) -> str:
        """For logs and the metrics ``meshflow_job_*``."""

    def due(self, watermark: Watermark) -> bool:
        """Whether :meth:`run` may have something to do. No I/O: the watermark and what the last run found
        decide; before the first run, every watermark that is known is due.
        """

    def run(self, watermark: Watermark) -> Iterator[str]:
        """Do what is due, portion by portion; the name of each, once the store has it.

        Begins by what the store says. Whoever iterates may end between two portions, and a kill may end it
        anywhere. Raises SinkUnavailable (the same again later is right), SinkRejected, SinkUnusable.
        """

    def close(self) -> None:
        """Let go of the database; nothing runs any more."""
