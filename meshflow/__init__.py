"""meshflow, the application: command line, settings, and the wiring of the other packages."""

import os

# Read when polars is imported. One pane is processed at a time, beside receivers and the database, and on few
# cores a pool of threads costs more CPU than it saves time.
os.environ.setdefault("POLARS_MAX_THREADS", str(max(1, min(4, (os.cpu_count() or 1) // 4))))

# Read when pyarrow is imported. Its own allocator keeps 60-100 MiB for itself that glibc's gives back
# (benchmarks.end_to_end).
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

# Read when grpc is imported. What it would log of its own accord comes back as errors too.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
