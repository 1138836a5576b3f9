"""Long random campaigns, one after the other, each a program with a seed of its own: ``make soak``.

They are not part of ``make test``: they look for what nobody thought of, and take as long as they are given.
"""

import os
import random
import subprocess
import sys

MINUTES = float(os.environ.get("SOAK_MINUTES") or 30)
EXAMPLES = str(max(1, round(MINUTES / 2)))
"""How many times more examples Hypothesis tries of each property than in ``make test``."""
SEED = random.SystemRandom().randrange(1 << 20)

CAMPAIGNS = (
    ("tests.fuzz.fuzz_otlp", "--seconds", str(int(MINUTES * 12))),
    ("tests.storage.sql.soak_guard", "--statements", str(int(MINUTES * 700))),
    ("tests.e2e.soak_requests", "--requests", str(int(MINUTES * 3_500))),
    ("tests.e2e.soak_damage", "--trials", str(int(MINUTES * 4))),
    ("tests.e2e.faults.faults", "--minutes", str(MINUTES * 0.4)),
    ("tests.e2e.soak_kills", "--minutes", str(MINUTES * 0.3)),
    ("pytest", "-q", "-m", "hypothesis", "--timeout", "7200", f"--hypothesis-seed={SEED}"),
    ("tests.repeat", "--minutes", str(MINUTES)),
)
"""Module and arguments; at 30 minutes they are 20,000 statements and 100,000 requests."""


def main() -> int:
    """Run all; the number of those that failed."""
    failed = []
    for module, *arguments in CAMPAIGNS:
        print(f"== {module} {' '.join(arguments)}", flush=True)
        environment = {**os.environ, "MESHFLOW_TEST_EXAMPLES": EXAMPLES}
        if subprocess.run(
            [sys.executable, "-m", module, *arguments], env=environment, check=False
        ).returncode:
            failed.append(module)
    print(f"{len(CAMPAIGNS) - len(failed)} campaigns passed, failed: {', '.join(failed) or 'none'}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
