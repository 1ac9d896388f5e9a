"""The table of a schedule's runs: filtered, and each page begins after a row, which costs the same on every page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import HttpRequest, QueryDict

from schedules import payloads, queries
from schedules.admin.base import in_words
from schedules.models import RunStatus, ScheduleRun, Trigger

PAGE_SIZE: Final = 25


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of a filter."""

    value: str
    label: str
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class RunTable:
    """A page of runs, what it is filtered by, and the address of the next one."""

    runs: Sequence[ScheduleRun]
    statuses: Sequence[Choice]
    triggers: Sequence[Choice]
    is_filtered: bool
    is_first: bool
    older: str


def read_table(request: HttpRequest, rows: QuerySet[ScheduleRun]) -> RunTable:
    """The page that the address asks for, of rows that are ordered newest first. One statement.

    What the address says and what is no value of ours is as if it were not there.
    """
    status = _known(request.GET, "status", RunStatus.values)
    trigger = _known(request.GET, "trigger", Trigger.values)
    found = queries.filter_runs(rows, status=[status] if status else None, trigger=trigger or None)
    cursor = _read_cursor(request.GET.get("before", ""))
    if cursor is not None:
        slot, run_id = cursor
        found = found.filter(Q(slot__lt=slot) | Q(slot=slot, id__lt=run_id))
    page = list(found.defer("payload", "response_text", "attempt_log")[: PAGE_SIZE + 1])
    older = ""
    if len(page) > PAGE_SIZE:
        last = page[PAGE_SIZE - 1]
        kept = {name: value for name, value in (("status", status), ("trigger", trigger)) if value}
        older = "?" + urlencode({**kept, "before": f"{last.slot.isoformat()}~{last.id}"}) + "#runs"
    return RunTable(
        runs=page[:PAGE_SIZE],
        statuses=[Choice(value, in_words(value), value == status) for value in RunStatus.values],
        triggers=[Choice(value, in_words(value), value == trigger) for value in Trigger.values],
        is_filtered=bool(status or trigger),
        is_first=cursor is None,
        older=older,
    )


def _known(given: QueryDict, name: str, values: Sequence[str]) -> str:
    value = given.get(name, "")
    return value if value in values else ""


def _read_cursor(text: str) -> tuple[datetime, UUID] | None:
    moment, _, run_id = text.partition("~")
    slot, identifier = payloads.parse_moment(moment), queries.parse_uuid(run_id)
    return None if slot is None or identifier is None else (slot, identifier)
