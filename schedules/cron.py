"""What a cron expression means: grammar, slots, gaps and calendars. The only place that knows time.

The grammar is the intersection of what cron programs agree on (crontab(5)), so that no expression means one thing
here and another in the engine: five fields, numbers, ``*``, lists, ranges, steps, month and weekday names.
Everything else is refused with a message that says what to write instead.

At clock changes the rule is the one of cron(8) as Debian ships it: an expression whose minute or hour field begins
with ``*`` follows elapsed time; any other runs once for each matching local time, at the first instant after a gap
that swallowed it and in the first pass of a repeated hour.

Imports neither Django nor Temporal.
"""

from __future__ import annotations

import functools
import re
import zoneinfo
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final

from croniter import CroniterError, croniter

MAX_EXPRESSION_LENGTH: Final = 128
MAX_ZONE_LENGTH: Final = 64
MINUTES_PER_DAY: Final = 24 * 60
# 29 February can be 8 years away (1896 to 1904, 2096 to 2104); one more year closes the search.
SEARCH_HORIZON_DAYS: Final = 9 * 366

# Time zone rules come from the pinned tzdata package and not from the host, so that every process of a deployment
# computes the same slots (https://docs.python.org/3/library/zoneinfo.html#data-sources).
zoneinfo.reset_tzpath(to=())


class CronError(ValueError):
    """The expression or the zone cannot be accepted; the message names the field and says what to write instead."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        if text.upper() in self.names:
            return self.names.index(text.upper()) + (1 if self.lowest else 0)
        if not text:
            raise CronError(f"{self.name}: a number is missing, write {self.expected}")
        if not (text.isascii() and text.isdigit() and len(text) <= 4):
            raise CronError(f"{self.name}: {_quote(text)} is not {self.expected}")
        number = int(text)
        if not self.lowest <= number <= self.highest:
            raise CronError(f"{self.name}: {number} is outside {self.lowest}-{self.highest}")
        return number

    @property
    def expected(self) -> str:
        names = f" or a name {self.names[0]}-{self.names[-1]}" if self.names else ""
        return f"a number {self.lowest}-{self.highest}{names}"


_MONTH_NAMES = (
    "JAN",
    "FEB",
    "MAR",
    "APR",
    "MAY",
    "JUN",
    "JUL",
    "AUG",
    "SEP",
    "OCT",
    "NOV",
    "DEC",
)
_WEEKDAY_NAMES = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FIELDS: Final = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTH_NAMES),
    _Field("day of week", 0, 7, _WEEKDAY_NAMES),
)
_MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_BLANKS: Final = " \t"


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked cron expression.

    ``text`` is what is stored: the input with its blanks folded. ``canonical`` is what other cron libraries read as we
    do. The five tuples are sorted and hold what the fields
    select; ``weekdays`` counts from Sunday = 0. ``follows_elapsed_time`` selects the rule for clock changes.
    """

    text: str
    canonical: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    follows_elapsed_time: bool

    def matches_date(self, day: date) -> bool:
        """Whether the day, month and weekday fields all select the date."""
        return day.month in self.months and day.day in self.days and day.isoweekday() % 7 in self.weekdays

    @property
    def minutes_of_day(self) -> tuple[int, ...]:
        """The selected times of a day as minutes since midnight, ascending."""
        return tuple(hour * 60 + minute for hour in self.hours for minute in self.minutes)


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Expression:
    """Return the meaning of a five-field expression.

    Raises CronError with a message that names the field. An expression that never fires is refused here; how often
    one may fire is the caller's rule (see `shortest_gap_seconds`).
    """
    members = _split(text)
    canonical = [_canonical_field(field, member) for field, member in zip(_FIELDS, members, strict=True)]
    _refuse_day_conflict(members)
    try:
        expanded, _ = croniter.expand(" ".join(canonical))
    except CroniterError as error:  # the grammar above is narrower than croniter's, so this would be a bug of ours
        raise CronError(f"cron: {_quote(text)} is not understood") from error
    minutes, hours, days, months, weekdays = (
        _selected(field, values) for field, values in zip(_FIELDS, expanded, strict=True)
    )
    expression = Expression(
        text=" ".join(members),
        canonical=" ".join(canonical),
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=weekdays,
        follows_elapsed_time=members[0].startswith("*") or members[1].startswith("*"),
    )
    if not _ever_fires(expression):
        raise CronError(
            f"day of month: {members[2]} never comes in month {members[3]}, so the schedule would never fire"
        )
    return expression


def parse_zone(name: str) -> zoneinfo.ZoneInfo:
    """Return an IANA time zone by its exact name; raises CronError for an unknown one."""
    if len(name) > MAX_ZONE_LENGTH:
        raise CronError(f"timezone: at most {MAX_ZONE_LENGTH} characters")
    if name not in _zone_names():
        raise CronError(f"timezone: {_quote(name)} is not an IANA time zone such as Europe/Berlin or UTC")
    return zoneinfo.ZoneInfo(name)


@functools.cache
def _zone_names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - {"Factory", "localtime"}


def zone_names() -> list[str]:
    """Every accepted zone name, sorted."""
    return sorted(_zone_names())


def shortest_gap_seconds(expression: Expression) -> int:
    """The shortest time between two fires over the whole cycle of the expression, on days without a clock change.

    A pair of days that are both selected repeats within the Gregorian cycle; which distances between selected days
    occur is known from the fields alone, so nothing is sampled.
    """
    times = expression.minutes_of_day
    between_days = _shortest_day_distance(expression) * MINUTES_PER_DAY + times[0] - times[-1]
    within_day = min((later - earlier for earlier, later in pairwise(times)), default=between_days)
    return min(within_day, between_days) * 60


def slots(expression: Expression, zone: zoneinfo.ZoneInfo, *, start: datetime, end: datetime) -> Iterator[datetime]:
    """Yield the UTC instants at which the schedule is due, ``start <= slot < end``, ascending and distinct."""
    day = start.astimezone(zone).date() - timedelta(days=1)
    last_day = end.astimezone(zone).date() + timedelta(days=1)
    pending: list[datetime] = []
    previous: datetime | None = None
    while day <= last_day:
        # A later date's local times can come before an earlier date's where the clock is set back over midnight, so
        # an instant is only passed on once no later date can precede it. No zone is a day away from UTC.
        settled = bisect_left(pending, datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=1))
        for instant in pending[:settled]:
            if instant != previous and start <= instant < end:
                yield instant
            previous = instant
        del pending[:settled]
        if expression.matches_date(day):
            pending.extend(_instants_of_day(expression, zone, day))
            pending.sort()
        day = _next_candidate(expression, day)
    for instant in pending:
        if instant != previous and start <= instant < end:
            yield instant
        previous = instant


def slots_after(
    expression: Expression, zone: zoneinfo.ZoneInfo, *, after: datetime, until: datetime
) -> Iterator[datetime]:
    """Yield the slots with ``after < slot <= until``, ascending. Slots are whole seconds."""
    second = timedelta(seconds=1)
    start = after.replace(microsecond=0) + second
    return slots(expression, zone, start=start, end=until.replace(microsecond=0) + second)


def _next_candidate(expression: Expression, day: date) -> date:
    """The next date that may match: the day after, or the first of the next selected month."""
    following = day + timedelta(days=1)
    while following.month not in expression.months:
        following = (following.replace(day=1) + timedelta(days=32)).replace(day=1)
    return following


def is_slot(expression: Expression, zone: zoneinfo.ZoneInfo, instant: datetime) -> bool:
    """Whether the schedule is due at exactly this instant. Agrees with `slots`, and is fast."""
    local = instant.astimezone(zone)
    shown = (
        (local.second, local.microsecond) == (0, 0)
        and local.minute in expression.minutes
        and local.hour in expression.hours
        and expression.matches_date(local.date())
    )
    if expression.follows_elapsed_time:
        return shown
    if shown and not local.fold:
        return True
    ends_a_gap = _offset((instant - timedelta(seconds=1)).astimezone(zone)) < _offset(local)
    return ends_a_gap and instant in slots(expression, zone, start=instant, end=instant + timedelta(seconds=1))


def next_slots(expression: Expression, zone: zoneinfo.ZoneInfo, *, after: datetime, count: int) -> list[datetime]:
    """The first ``count`` slots strictly later than ``after``, as UTC instants."""
    found: list[datetime] = []
    for slot in slots(
        expression,
        zone,
        start=after,
        end=after + timedelta(days=SEARCH_HORIZON_DAYS * count),
    ):
        if slot > after:
            found.append(slot)
        if len(found) == count:
            break
    return found


def next_slot(expression: Expression, zone: zoneinfo.ZoneInfo, *, after: datetime) -> datetime | None:
    """The first slot strictly later than ``after``."""
    return next(iter(next_slots(expression, zone, after=after, count=1)), None)


def _split(text: str) -> list[str]:
    stripped = text.strip(_BLANKS + "\r\n")
    if not stripped:
        raise CronError("cron: write five fields: minute, hour, day of month, month, day of week")
    if not stripped.isascii():
        raise CronError("cron: use plain ASCII digits, letters and blanks only")
    if re.search(r"[^\S \t]", stripped):
        raise CronError("cron: separate the fields with plain blanks, on one line")
    if "#" in stripped and re.search(r"(^|[ \t])#", stripped):
        raise CronError("cron: a comment is not part of an expression, leave it out")
    if re.match(r"(CRON_)?TZ=", stripped, re.IGNORECASE):
        raise CronError("cron: set the time zone in the timezone field and leave the prefix out")
    if stripped.startswith("@"):
        instead = _MACROS.get(stripped.lower())
        raise CronError(
            f"cron: write {instead} instead of {stripped}"
            if instead
            else f"cron: {_quote(stripped)} is not supported, write the five fields"
        )
    members = re.split(f"[{_BLANKS}]+", stripped)
    if len(" ".join(members)) > MAX_EXPRESSION_LENGTH:
        raise CronError(f"cron: at most {MAX_EXPRESSION_LENGTH} characters")
    if len(members) != len(_FIELDS):
        raise CronError(
            f"cron: {len(members)} field{'s' if len(members) != 1 else ''} given, write exactly five: "
            "minute, hour, day of month, month, day of week (no seconds, no year)"
        )
    return members


def _canonical_field(field: _Field, text: str) -> str:
    """The field in the form that croniter expands as we mean it (it reads ``5-5`` as a whole cycle)."""
    members = text.split(",")
    if not all(members):
        raise CronError(f"{field.name}: {_quote(text)} has an empty list member, remove the comma")
    return ",".join(_canonical_member(field, member) for member in members)


def _canonical_member(field: _Field, text: str) -> str:
    base, slash, step_text = text.partition("/")
    step = _step(field, step_text) if slash else 1
    if base == "*":
        return f"*/{step}" if slash else "*"
    _refuse_dialect(field, base)
    first_text, dash, last_text = base.partition("-")
    first = field.number(first_text)
    if not dash:
        if slash:
            instead = str(first) if first == field.highest else f"a range such as {first}-{field.highest}/{step}"
            raise CronError(f"{field.name}: {_quote(text)} is read differently by cron programs, write {instead}")
        return str(first)
    last = field.number(last_text)
    if first > last:
        raise CronError(
            f"{field.name}: the range {_quote(base)} runs backwards, write a list of two ranges or values instead"
        )
    if first == last:
        if slash:
            raise CronError(f"{field.name}: {_quote(text)} is a single value with a step, write {first}")
        return str(first)
    return f"{first}-{last}/{step}" if slash else f"{first}-{last}"


def _step(field: _Field, text: str) -> int:
    if not (text.isdigit() and len(text) <= 4):
        raise CronError(f"{field.name}: the step {_quote(text)} is not a number, write 1 to {field.highest}")
    step = int(text)
    if not 1 <= step <= field.highest:
        raise CronError(f"{field.name}: the step {step} is outside 1-{field.highest}, write one of these")
    return step


def _refuse_dialect(field: _Field, text: str) -> None:
    upper = text.upper()
    if upper in field.names or all(part in field.names or part.isdigit() for part in upper.split("-")):
        return
    if "?" in text:
        raise CronError(f"{field.name}: ? is not supported, write *")
    if "#" in text:
        raise CronError(f"{field.name}: the n-th weekday ({_quote(text)}) is not supported, write a weekday")
    if re.search(r"L", upper):
        raise CronError(f"{field.name}: L (last) is not supported, write a number")
    if re.search(r"\dW|^W$|W\d", upper):
        raise CronError(f"{field.name}: W (nearest weekday) is not supported, write a number")
    if re.match(r"[RH](\(|$)", upper):
        raise CronError(f"{field.name}: {upper[0]} (a chosen value) is not supported, write a number")


def _refuse_day_conflict(members: list[str]) -> None:
    day, weekday = members[2], members[4]
    if day not in {"*", "*/1"} and weekday not in {"*", "*/1"}:
        raise CronError(
            "day of month: cron programs disagree on what day of month together with day of week means, "
            "restrict one of them and write * for the other"
        )


def _selected(field: _Field, values: Sequence[int | str]) -> tuple[int, ...]:
    if "*" in values:  # alone, or as a member of a list
        return tuple(range(field.lowest, 7 if field.names == _WEEKDAY_NAMES else field.highest + 1))
    return tuple(sorted({int(value) for value in values}))


def _ever_fires(expression: Expression) -> bool:
    longest = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
    return any(expression.days[0] <= longest.get(month, 31) for month in expression.months)


def _shortest_day_distance(expression: Expression) -> int:
    if len(expression.weekdays) < 7:
        # Every month has four weeks in a row, so each distance between neighbouring weekdays occurs in each month.
        following = (*expression.weekdays[1:], expression.weekdays[0] + 7)
        return min(later - earlier for earlier, later in zip(expression.weekdays, following, strict=True))
    # Days of months: nine years hold two leap years and every pair of neighbouring months that there is.
    first = date(2000, 1, 1)
    selected = [
        day
        for day in (first + timedelta(days=offset) for offset in range(SEARCH_HORIZON_DAYS))
        if day.month in expression.months and day.day in expression.days
    ] if len(expression.days) < 31 or len(expression.months) < 12 else [first, first + timedelta(days=1)]  # fmt: skip
    return min((later - earlier).days for earlier, later in pairwise(selected))


def _instants_of_day(expression: Expression, zone: zoneinfo.ZoneInfo, day: date) -> Iterator[datetime]:
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    for minute_of_day in expression.minutes_of_day:
        local = midnight.replace(hour=minute_of_day // 60, minute=minute_of_day % 60)
        before, after = _offset(local), _offset(local.replace(fold=1))
        if before == after:
            yield local.astimezone(UTC)
        elif before > after:  # the clock shows this time twice (PEP 495)
            yield local.astimezone(UTC)
            if expression.follows_elapsed_time:
                yield local.replace(fold=1).astimezone(UTC)
        elif not expression.follows_elapsed_time:  # the clock skips this time
            yield _end_of_gap(local, before, after)


def _end_of_gap(local: datetime, before: timedelta, after: timedelta) -> datetime:
    """The instant at which the offset changes from ``before`` to ``after`` around a local time that does not exist."""
    naive = local.replace(tzinfo=UTC)
    earlier, later = naive - after, naive - before
    zone = local.tzinfo
    while later - earlier > timedelta(seconds=1):
        middle = (earlier + (later - earlier) / 2).replace(microsecond=0)
        if _offset(middle.astimezone(zone)) == before:
            earlier = middle
        else:
            later = middle
    return later


def _offset(moment: datetime) -> timedelta:
    offset = moment.utcoffset()
    assert offset is not None  # every caller passes an aware datetime
    return offset


def _quote(text: str) -> str:
    return repr(text if len(text) <= 20 else text[:20] + "…")
