"""`mrq limits`: lists, sets and removes limit rules."""

from __future__ import annotations

from typing import Annotated

import typer

from mrq_core.cli.errors import CommandFailed, UsageError
from mrq_core.cli.options import Given, command
from mrq_core.cli.output import note, print_json, say, show_table
from mrq_core.clock import period_words
from mrq_core.contract.messages import Limit
from mrq_core.contract.naming import shown_names
from mrq_core.operations import limits
from mrq_core.operations.queries.filters import duration_from


@command("broker", "plugins", needs_output=True)
def list_limits(
    given: Given, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Lists the limit rules, and who has set them: a task or a person."""
    with given.client() as client:
        found = limits.list_limits(client.broker)
    if as_json:
        print_json([limits.limit_view(rule) for rule in found])
    elif found:
        rows = [(rule.name, rule.limit.concurrency, _rate(rule.limit), rule.source) for rule in found]
        show_table(("name", "concurrency", "rate", "set by"), rows)
    else:
        note("There are no limits: set one with `mrq limits set NAME --concurrency 5`.")


@command("broker", "plugins")
def set_limit(
    given: Given,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The rule, as `limits` of a task names it.")],
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", metavar="INTEGER", help="Jobs that run at once.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="NUMBER", help="Jobs that start in each --per.")
    ] = None,
    per: Annotated[
        str,
        typer.Option("--per", metavar="DURATION", help="The period of the rate, such as 1s, 1m, 1h."),
    ] = "1s",
) -> None:
    """Sets a limit rule for all workers. It stays until it is removed, whatever the tasks say."""
    if concurrency is None and rate is None:
        raise UsageError("nothing to limit is named: expected --concurrency, --rate, or both")
    with given.client() as client:
        rule = limits.set_limit(
            client.broker, name, concurrency=concurrency, rate=rate, per=duration_from(per, name="--per")
        )
    parts = [
        f"concurrency {rule.limit.concurrency}" if rule.limit.concurrency is not None else None,
        f"rate {_rate(rule.limit)}" if rule.limit.rate is not None else None,
    ]
    say(f"set: {name} {', '.join(part for part in parts if part)}")


@command("broker", "plugins")
def remove_limits(
    given: Given, names: Annotated[list[str], typer.Argument(metavar="NAME", help="Limit rules.")]
) -> None:
    """Removes limit rules. The rule of a task comes back from the workers that have loaded the task."""
    chosen = list(dict.fromkeys(names))
    with given.client() as client:
        answers = limits.remove_limits(client.broker, chosen)
    told = list(zip(chosen, answers, strict=True))
    removed = [name for name, was_there in told if was_there]
    unknown = [name for name, was_there in told if not was_there]
    if removed:
        say(f"removed: {shown_names(removed)}")
    if unknown:
        raise CommandFailed(f"there is no limit {shown_names(unknown)}: `mrq limits` lists the limits")


def _rate(limit: Limit) -> str | None:
    return None if limit.rate is None else f"{limit.rate:g} per {period_words(limit.per)}"
