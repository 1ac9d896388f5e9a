"""The question before something that cannot be undone, or that has consequences one may not think of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib.admin import ModelAdmin
from django.http import HttpRequest
from django.template.response import TemplateResponse

from schedules.models import Schedule


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: what will happen, line by line, and what the button says."""

    title: str
    consequences: Sequence[str]
    button: str
    is_destructive: bool = False
    things: Sequence[Any] = field(default_factory=tuple)


LIFT_HOLD = Question(
    "Lift the operator's hold?",
    (
        "An operator has paused this in Temporal, usually for a reason. Read the note below.",
        "Slots run again from now on. Those that came during the hold stay missed.",
        "What was changed meanwhile is kept and takes effect.",
    ),
    "Lift the hold",
)
DELETE = Question(
    "Delete for good?",
    (
        "No further slot runs, and runs that wait in line are cancelled.",
        "The runs so far and the audit trail stay for as long as the tenant keeps them.",
        "This cannot be undone. To stop a schedule for a while, disable it instead.",
    ),
    "Delete",
    is_destructive=True,
)


def cancel_runs(*, running: int, waiting: int) -> Question:
    """Before runs are asked to stop, with how many there are as far as that is known."""
    lines = []
    if running:
        these = "The call of the run in flight is" if running == 1 else f"The calls of {running} runs in flight are"
        lines.append(f"{these} aborted within seconds. What the extension has done by then stays done.")
    if waiting:
        lines.append(f"{waiting} run{' that waits ends' if waiting == 1 else 's that wait end'} without a call.")
    if not lines:
        lines.append("No run is in flight or waits any more.")
    lines.append("This cannot be undone. A run can be run again afterwards, from its beginning.")
    what = "run" if running + waiting == 1 else "runs"
    title = f"Cancel {'this' if what == 'run' else 'these'} {what}?"
    return Question(title, lines, f"Cancel the {what}", is_destructive=True)


def ask(
    model_admin: ModelAdmin[Any],
    request: HttpRequest,
    question: Question,
    *,
    back: str,
    subject: object = None,
    schedules: Sequence[Schedule] = (),
    hidden: Mapping[str, str] | None = None,
    selected: bool = False,
) -> TemplateResponse:
    """The page; its form comes back to the same address with ``confirmed`` and what ``hidden`` holds.

    ``back`` is where somebody goes who thinks better of it: the page of ``subject``, where there is one.
    """
    context = {
        **model_admin.admin_site.each_context(request),
        "title": question.title,
        "question": question,
        "subject": subject,
        "schedules": schedules,
        "hidden": dict(hidden or {}),
        "selected": selected,
        "back": back,
        "opts": model_admin.opts,
    }
    return TemplateResponse(request, "admin/confirm.html", context)
