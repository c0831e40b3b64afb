"""``python -m zpobs``."""

from zpobs.cli import main

main()
