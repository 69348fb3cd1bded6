"""Shows a form again whose action was refused: with what was typed, and the error beside its field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mrq_dashboard.acting import Field, Form
from mrq_dashboard.visit import Page

Items = Sequence[tuple[str, str]]
"""Names and texts, as a form sends them."""


def with_problem(page: Page, sent: Items, text: str, path: str | None, status: int) -> Page:
    """The page that asked, with the texts that were sent and the problem. `path`: the wrong input."""
    form: Form = page.context["form"]
    wrong = _field_of(form.fields, path)
    fields = [_filled(field, sent, text if field is wrong else "") for field in form.fields]
    context: dict[str, Any] = dict(page.context)
    context["form"] = replace(form, fields=fields, problem="" if wrong is not None else text)
    context["back"] = next((value for name, value in sent if name == "_back"), context["back"])
    return replace(page, context=context, status=status)


def _field_of(fields: Sequence[Field], path: str | None) -> Field | None:
    """The field of an input: ``params.user`` is that of ``argument.user``, or else that of ``params``."""
    names = [] if path is None else [path, f"argument.{path.removeprefix('params.')}", path.partition(".")[0]]
    return next((field for name in names for field in fields if field.name == name), None)


def _filled(field: Field, sent: Items, problem: str) -> Field:
    texts = [text for name, text in sent if name == field.name]
    if field.kind == "check":
        return replace(field, is_checked=bool(texts), problem=problem)
    return replace(field, value=texts[0] if texts else field.value, problem=problem)
