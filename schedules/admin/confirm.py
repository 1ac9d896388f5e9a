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


def ask(
    model_admin: ModelAdmin[Any],
    request: HttpRequest,
    question: Question,
    *,
    back: str,
    schedules: Sequence[Schedule] = (),
    hidden: Mapping[str, str] | None = None,
    selected: bool = False,
) -> TemplateResponse:
    """The page; its form comes back to the same address with ``confirmed`` and what ``hidden`` holds."""
    context = {
        **model_admin.admin_site.each_context(request),
        "title": question.title,
        "question": question,
        "schedules": schedules,
        "hidden": dict(hidden or {}),
        "selected": selected,
        "back": back,
        "opts": model_admin.opts,
    }
    return TemplateResponse(request, "admin/confirm.html", context)
