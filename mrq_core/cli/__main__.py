"""``python -m mrq_core.cli`` is the same as ``mrq``, except that the working directory comes first on
`sys.path`: its files may hide modules that mrq needs."""

import sys

try:
    from mrq_core.cli.main import main
except Exception as error:
    from mrq_core.config.hidden import hiding

    sentence = hiding(error, anywhere=True)
    if sentence is None:
        raise
    print(f"mrq: {error}\n{sentence}", file=sys.stderr)
    sys.exit(2)

main()
