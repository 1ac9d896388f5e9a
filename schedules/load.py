"""How many slots the coming day holds, minute by minute, on the whole platform. For operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Count, Q, QuerySet

from schedules import cron
from schedules.models import Schedule

DAY: Final = timedelta(hours=24)
MINUTE: Final = timedelta(minutes=1)
# A day that begins within an hour reaches into 25.
HOURS: Final = 25
MAX_NAMED: Final = 8

_Key = tuple[str, str]
# (expression, zone) -> the day's first minute, and the minutes at which it is due. Only days of "now" are asked for.
_known: dict[_Key, tuple[datetime, tuple[int, ...]]] = {}
_MAX_KNOWN: Final = 20_000


@dataclass(frozen=True, slots=True)
class HeavyMinute:
    """A minute with many slots, and some of the schedules that are due in it."""

    at: datetime
    count: int
    schedules: Sequence[Schedule]


@dataclass(frozen=True, slots=True)
class Load:
    """The slots of each minute from ``start`` on, a full hour; none before now. And the heaviest minutes."""

    start: datetime
    counts: Sequence[int]
    heaviest: Sequence[HeavyMinute]

    @property
    def total(self) -> int:
        """All slots of the day."""
        return sum(self.counts)


def read_load(*, now: datetime, heaviest: int = 8) -> Load:
    """The load of the next 24 hours. One statement, and one for each of the heaviest minutes.

    Many schedules share an expression and a zone, so the slots are computed once for each such pair.
    """
    start = now.replace(minute=0, second=0, microsecond=0)
    active = Schedule.objects.filter(enabled=True, install__is_enabled=True, held_since__isnull=True)
    groups = {
        (text, zone): count
        for text, zone, count in active.values_list("cron", "timezone").annotate(count=Count("id")).order_by()
    }
    minutes = {key: _minutes(key, start) for key in groups}
    counts = [0] * (HOURS * 60)
    ahead = range(int((now - start) / MINUTE), int((now + DAY - start) / MINUTE))
    for key, due in minutes.items():
        for minute in due:
            if minute in ahead:
                counts[minute] += groups[key]
    order = sorted((minute for minute, count in enumerate(counts) if count), key=lambda minute: -counts[minute])
    named = [
        HeavyMinute(start + minute * MINUTE, counts[minute], _due_in(active, minutes, minute))
        for minute in order[:heaviest]
    ]
    return Load(start, counts, named)


def _due_in(active: QuerySet[Schedule], minutes: Mapping[_Key, Sequence[int]], minute: int) -> list[Schedule]:
    due = Q()
    for (text, zone), at in minutes.items():
        if minute in at:
            due |= Q(cron=text, timezone=zone)
    rows = active.filter(due).select_related("tenant", "install__extension")
    return list(
        rows.defer("payload", "install__config", "install__secret_envelope").order_by("tenant", "id")[:MAX_NAMED]
    )


def _minutes(key: _Key, start: datetime) -> tuple[int, ...]:
    known = _known.get(key)
    if known is not None and known[0] == start:
        return known[1]
    text, zone = key
    slots = cron.slots(cron.parse(text), cron.parse_zone(zone), start=start, end=start + HOURS * 60 * MINUTE)
    due = tuple(int((slot - start) / MINUTE) for slot in slots)
    if len(_known) >= _MAX_KNOWN:
        _known.clear()
    _known[key] = start, due
    return due
