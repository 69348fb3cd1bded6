"""`mrq explain`: why a job or a queue is not running."""

from __future__ import annotations

from typing import Annotated

import typer

from mrq_core.cli.options import Given, command
from mrq_core.cli.output import print_json, program, safe_line, say
from mrq_core.operations.explaining.explaining import explain as reasons_of
from mrq_core.operations.explaining.reasons import reason_view


@command("broker", "plugins", needs_output=True)
def explain(
    given: Given,
    name: Annotated[
        str, typer.Argument(metavar="JOB|QUEUE", help="The id of a job, or the name of a queue or tree.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tells why a job or a queue is not running, and which command changes that.

    Examples: `mrq explain ID`, `mrq explain mail`, `mrq explain mail/`.
    """
    with given.client() as client:
        reasons = reasons_of(client.broker, name)
    if as_json:
        print_json([reason_view(reason) for reason in reasons])
        return
    for reason in reasons:
        say(safe_line(reason.sentence))
        if reason.command is not None:
            say(f"  {program()}{reason.command.removeprefix('mrq')}", style="dim")
