"""``python -m mrq_core.cli`` is the same as ``mrq``."""

from mrq_core.cli.main import main

main()
