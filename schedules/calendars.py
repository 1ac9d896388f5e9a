"""Compiles an expression in a zone into calendars in UTC that fire at its slots, for an engine that knows no zone.

Engines get clock changes wrong, each in its own way, and their time zone data is not ours. So none of that is left to
them: the calendars are in UTC, where every day has 24 hours. Between two clock changes a schedule is one pattern,
shifted by the offset; the few days on which a clock changes are written out slot by slot.

The calendars are exact until ``exact_until`` and must be renewed before that. Beyond, they fire at every selected local
time under each of the zone's offsets, so that a renewal that comes too late loses no more than a slot that a clock
change moves: whether a fire is a slot is checked where it is claimed.

Pure: imports neither Django nor Temporal.
"""

from __future__ import annotations

import calendar
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib import metadata
from typing import Final
from zoneinfo import ZoneInfo

from schedules import cron

# What mirrors are made by: the version of what they hold, from here and from `temporal.build_schedule`, and that of the
# time zone data. A mirror that was made by anything else is renewed.
RULES: Final = f"3/tzdata-{metadata.version('tzdata')}"
# Exact for at least this long, and for at least so many slots of a schedule that is rarely due.
EXACT_PERIOD: Final = timedelta(days=24 * 31)
EXACT_SLOTS: Final = 12
# How far the calendars reach beyond the exact part, and the last year that Temporal's calendars know.
SPARE_YEARS: Final = 30
LAST_YEAR: Final = 2100
MINUTES_PER_DAY: Final = 24 * 60
ALL_DAYS: Final = tuple(range(1, 32))
ALL_MONTHS: Final = tuple(range(1, 13))
ALL_WEEKDAYS: Final = tuple(range(7))
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class UtcCalendar:
    """A set of UTC instants: those whose every field has one of the values. No years means every year.

    Weekday 0 is Sunday.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...] = ALL_DAYS
    months: tuple[int, ...] = ALL_MONTHS
    weekdays: tuple[int, ...] = ALL_WEEKDAYS
    years: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Compiled:
    """Calendars whose union fires at the slots from now on, and until when that is exact."""

    calendars: tuple[UtcCalendar, ...]
    exact_until: datetime


@dataclass(frozen=True, slots=True)
class ClockChange:
    """An instant at which a zone's offset from UTC changes."""

    at: datetime
    before: timedelta
    after: timedelta


@dataclass(frozen=True, slots=True)
class _Shape:
    """Times of a UTC day at which a local pattern is due under some offset.

    ``day_shift`` is how many days the UTC date is ahead of the local one, which is what the date fields select.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    day_shift: int


def compile_calendars(expression: cron.Expression, zone: ZoneInfo, *, now: datetime) -> Compiled:
    """Return calendars that fire at the slots of the expression in the zone, exactly so from ``now`` on.

    Compiling again within the same month gives the same calendars.
    """
    return _compile_from(expression, zone.key, datetime(now.year, now.month, 1, tzinfo=UTC))


# Many schedules share an expression, and whoever pushes many of them compiles it once.
@functools.lru_cache(maxsize=1024)
def _compile_from(expression: cron.Expression, zone_name: str, start: datetime) -> Compiled:
    zone = cron.parse_zone(zone_name)
    end = _exact_end(expression, zone, start)
    changes = clock_changes(zone, start=start - _DAY, end=end)
    irregular = {day for change in changes for day in _irregular_days(expression, change)}
    calendars: list[UtcCalendar] = []
    endless: set[_Shape] = set()
    spans = _spans(_offset_at(zone, start), changes, start=start, end=end)
    for shape, days in _days_by_shape(expression, spans, irregular=irregular).items():
        weekdays = _shifted_weekdays(expression, shape)
        if len(days) == (end - start).days:
            endless.add(shape)
            calendars.append(UtcCalendar(shape.minutes, shape.hours, weekdays=weekdays))
            continue
        calendars += (
            UtcCalendar(shape.minutes, shape.hours, covered, months, weekdays, years)
            for covered, months, years in _cover(days)
        )
    calendars += _written_out(expression, zone, (day for day in sorted(irregular) if start <= _midnight(day) < end))
    offsets = {_offset_at(zone, start), *(change.after for change in changes)}
    calendars += _spare(expression, offsets, first_year=end.year, endless=endless)
    return Compiled(tuple(calendars), exact_until=end)


def clock_changes(zone: ZoneInfo, *, start: datetime, end: datetime) -> list[ClockChange]:
    """The clock changes of a zone, ``start <= at < end``, ascending."""
    return [
        change
        for year in range(start.year, end.year + 1)
        for change in _clock_changes_of_year(zone.key, year)
        if start <= change.at < end
    ]


@functools.lru_cache(maxsize=16_384)
def _clock_changes_of_year(zone_name: str, year: int) -> tuple[ClockChange, ...]:
    """Looks at each midnight: no zone changes its clock twice within a day and back again."""
    zone = cron.parse_zone(zone_name)
    found: list[ClockChange] = []
    moment = datetime(year, 1, 1, tzinfo=UTC)
    before = _offset_at(zone, moment)
    while moment.year == year:
        after = _offset_at(zone, moment + _DAY)
        if after != before:
            found.append(ClockChange(_change_between(zone, moment, moment + _DAY), before, after))
        moment, before = moment + _DAY, after
    return tuple(found)


def _change_between(zone: ZoneInfo, earlier: datetime, later: datetime) -> datetime:
    """The first instant after ``earlier`` with the offset of ``later``, to the second."""
    target = _offset_at(zone, later)
    while later - earlier > timedelta(seconds=1):
        middle = (earlier + (later - earlier) / 2).replace(microsecond=0)
        if _offset_at(zone, middle) == target:
            later = middle
        else:
            earlier = middle
    return later


def _exact_end(expression: cron.Expression, zone: ZoneInfo, start: datetime) -> datetime:
    """The beginning of the year after the exact part."""
    last_wanted = cron.next_slots(expression, zone, after=start, count=EXACT_SLOTS)[-1]
    year = max(start + EXACT_PERIOD, last_wanted).year + 1
    return datetime(min(year, LAST_YEAR), 1, 1, tzinfo=UTC)


def _irregular_days(expression: cron.Expression, change: ClockChange) -> Iterator[date]:
    """The UTC dates around a clock change whose slots are not simply those of one offset."""
    repeated = max(change.before - change.after, timedelta(0))
    if expression.follows_elapsed_time:
        if _shapes(expression, change.before) == _shapes(expression, change.after):
            return
        repeated = timedelta(0)
        if change.at == _midnight(change.at.date()):
            return  # the date before lies wholly under the old offset, this one under the new
    day, last = change.at.date(), (change.at + repeated - timedelta(microseconds=1)).date()
    while day <= max(last, change.at.date()):
        yield day
        day += _DAY


def _spans(
    offset: timedelta, changes: Iterable[ClockChange], *, start: datetime, end: datetime
) -> Iterator[tuple[timedelta, date, date]]:
    """Each offset with the first UTC date at whose noon it is in force and the one at whose noon it no longer is.

    Noon stands for the day: a regular one has one offset, or two that make no difference.
    """
    first = start.date()
    for change in changes:
        following = (change.at + _DAY / 2 - timedelta(microseconds=1)).date()
        if first < following:
            yield offset, first, following
            first = following
        offset = change.after
    yield offset, first, end.date()


def _days_by_shape(
    expression: cron.Expression, spans: Iterable[tuple[timedelta, date, date]], *, irregular: set[date]
) -> dict[_Shape, set[date]]:
    """The regular UTC dates on which each shape is due by day and month; weekdays are a field of their own."""
    found: dict[_Shape, set[date]] = defaultdict(set)
    for offset, first, following in spans:
        for shape in _shapes(expression, offset):
            shift = shape.day_shift * _DAY
            found[shape].update(
                local + shift
                for local in _selected_dates(expression, first - shift, following - shift)
                if local + shift not in irregular
            )
    return {shape: days for shape, days in found.items() if days}


def _selected_dates(expression: cron.Expression, first: date, following: date) -> Iterator[date]:
    """The dates that the expression selects by day and month, ``first <= date < following``, ascending."""
    for year in range(first.year, following.year + 1):
        for month in expression.months:
            if (first.year, first.month) <= (year, month) <= (following.year, following.month):
                last = calendar.monthrange(year, month)[1]
                dates = (date(year, month, day) for day in expression.days if day <= last)
                yield from (one for one in dates if first <= one < following)


@functools.lru_cache(maxsize=4096)
def _shapes(expression: cron.Expression, offset: timedelta) -> tuple[_Shape, ...]:
    """The local times of the expression as times of UTC days, in as few products of minutes and hours as it takes."""
    offset_minutes = int(offset.total_seconds()) // 60
    any_date = (expression.days, expression.months, expression.weekdays) == (ALL_DAYS, ALL_MONTHS, ALL_WEEKDAYS)
    minutes_by_hour: dict[tuple[int, int], set[int]] = defaultdict(set)
    for local_minute in expression.minutes_of_day:
        day_shift, minute = divmod(local_minute - offset_minutes, MINUTES_PER_DAY)
        # Where every date is selected, it does not matter to which local one a time belongs.
        minutes_by_hour[0 if any_date else day_shift, minute // 60].add(minute % 60)
    hours_by_minutes: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
    for (day_shift, hour), minutes in sorted(minutes_by_hour.items()):
        hours_by_minutes[day_shift, tuple(sorted(minutes))].append(hour)
    return tuple(
        _Shape(minutes, tuple(hours), day_shift) for (day_shift, minutes), hours in sorted(hours_by_minutes.items())
    )


def _shifted_weekdays(expression: cron.Expression, shape: _Shape) -> tuple[int, ...]:
    return tuple(sorted((weekday + shape.day_shift) % 7 for weekday in expression.weekdays))


def _cover(days: Iterable[date]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """The dates as few products of (days, months, years)."""
    days_of: dict[tuple[int, int], list[int]] = defaultdict(list)
    for day in sorted(days):
        days_of[day.year, day.month].append(day.day)
    months_of: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
    for (year, month), selected in days_of.items():
        complete = len(selected) == calendar.monthrange(year, month)[1]
        months_of[year, ALL_DAYS if complete else tuple(selected)].append(month)
    years_of: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = defaultdict(list)
    for (year, selected_days), months in months_of.items():
        years_of[selected_days, tuple(months)].append(year)
    for (selected_days, selected_months), years in years_of.items():
        yield selected_days, selected_months, tuple(years)


def _written_out(expression: cron.Expression, zone: ZoneInfo, days: Iterable[date]) -> Iterator[UtcCalendar]:
    """Each slot of these dates by itself."""
    for day in days:
        minutes_by_hour: dict[int, list[int]] = defaultdict(list)
        for slot in cron.slots(expression, zone, start=_midnight(day), end=_midnight(day) + _DAY):
            minutes_by_hour[slot.hour].append(slot.minute)
        hours_by_minutes: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for hour, minutes in minutes_by_hour.items():
            hours_by_minutes[tuple(minutes)].append(hour)
        for selected, hours in hours_by_minutes.items():
            yield UtcCalendar(selected, tuple(hours), (day.day,), (day.month,), years=(day.year,))


def _spare(
    expression: cron.Expression, offsets: Iterable[timedelta], *, first_year: int, endless: set[_Shape]
) -> Iterator[UtcCalendar]:
    """Calendars for the years after the exact part that fire at every selected local time under each offset."""
    years = tuple(range(first_year, min(first_year + SPARE_YEARS, LAST_YEAR) + 1))
    shapes = {shape for offset in offsets for shape in _shapes(expression, offset)} - endless
    for shape in sorted(shapes, key=lambda shape: (shape.day_shift, shape.hours, shape.minutes)):
        days, months = expression.days, expression.months
        if shape.day_shift and (days, months) != (ALL_DAYS, ALL_MONTHS):
            # The day before the first of a month is a different one in each month, so all that it can be.
            shifted = {day + shape.day_shift for day in days}
            days = tuple(sorted({day for day in shifted if 1 <= day <= 31} | {1, 28, 29, 30, 31}))
            months = tuple(sorted({(month + step - 1) % 12 + 1 for month in months for step in (0, shape.day_shift)}))
        weekdays = _shifted_weekdays(expression, shape)
        yield UtcCalendar(shape.minutes, shape.hours, days, months, weekdays, years)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _offset_at(zone: ZoneInfo, moment: datetime) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None  # a ZoneInfo always knows
    return offset
