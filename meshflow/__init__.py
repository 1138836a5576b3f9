"""meshflow, the application: command line, settings, and the wiring of the other packages."""

import os
import sys
from collections.abc import Sequence
from types import ModuleType

# Read when polars is imported. One pane is processed at a time, beside receivers and the database, and on few
# cores a pool of threads costs more CPU than it saves time.
os.environ.setdefault("POLARS_MAX_THREADS", str(max(1, min(4, (os.cpu_count() or 1) // 4))))

# Read when pyarrow is imported. Its own allocator keeps 60-100 MiB for itself that glibc's gives back
# (benchmarks.end_to_end).
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

# Read when grpc is imported. What it would log of its own accord comes back as errors too.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


class _WithoutPandas:
    """Keeps pandas out of the process. chdb brings it, and pyarrow imports it at its first array, to
    look whether that is one of pandas: 33 MiB and 0.5 s of CPU of each process, for nothing.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:  # noqa: ARG002
        """Refuse ``pandas``, leave all else to others. Raises ModuleNotFoundError."""
        if name == "pandas":
            raise ModuleNotFoundError("meshflow does without pandas", name=name)


sys.meta_path.insert(0, _WithoutPandas())
