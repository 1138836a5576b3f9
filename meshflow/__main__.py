"""``python -m meshflow``."""

from meshflow.cli import main

main()
