"""Calendars in UTC fire at exactly the slots, around every clock change."""

from datetime import UTC, datetime, timedelta

import pytest

from schedules import calendars, cron
from tests.support.time_cases import EXPRESSIONS, FAR, NOW, ZONES, calendar_fires, windows


@pytest.mark.parametrize("zone_name", ZONES)
def test_the_calendars_fire_at_the_slots_and_at_nothing_else(zone_name):
    zone = cron.parse_zone(zone_name)
    for text in EXPRESSIONS:
        expression = cron.parse(text)
        compiled = calendars.compile_calendars(expression, zone, now=NOW)

        for start, end in windows(zone):
            expected = list(cron.slots(expression, zone, start=start, end=end))
            assert calendar_fires(compiled.calendars, start=start, end=end) == expected, (text, start)
        assert compiled.exact_until - NOW >= timedelta(days=24 * 31 - 31), text


@pytest.mark.parametrize("zone_name", ["Europe/London", "Australia/Lord_Howe", "Pacific/Chatham", "Africa/Casablanca"])
def test_beyond_the_exact_part_only_moved_slots_can_be_lost(zone_name):
    zone = cron.parse_zone(zone_name)
    for text in EXPRESSIONS:
        expression = cron.parse(text)
        compiled = calendars.compile_calendars(expression, zone, now=NOW)
        year_after = compiled.exact_until + timedelta(days=366)
        changes = {change.at for change in calendars.clock_changes(zone, start=compiled.exact_until, end=year_after)}
        for start, end in windows(zone, start=compiled.exact_until, end=year_after):
            due = set(cron.slots(expression, zone, start=start, end=end))
            assert due - set(calendar_fires(compiled.calendars, start=start, end=end)) <= changes, text


def test_a_pattern_that_is_the_same_in_utc_is_one_calendar_for_good():
    compiled = calendars.compile_calendars(cron.parse("*/15 * * * *"), cron.parse_zone("Europe/Berlin"), now=NOW)

    assert compiled.calendars == (calendars.UtcCalendar((0, 15, 30, 45), tuple(range(24))),)


def test_compiling_again_within_the_month_changes_nothing():
    expression, zone = cron.parse("30 2 * * *"), cron.parse_zone("Europe/Berlin")
    first, last = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 30, 23, 59, tzinfo=UTC)

    assert calendars.compile_calendars(expression, zone, now=first) == calendars.compile_calendars(
        expression, zone, now=last
    )


def test_the_clock_changes_of_a_year_are_found_to_the_second():
    berlin = cron.parse_zone("Europe/Berlin")
    changes = calendars.clock_changes(
        berlin, start=datetime(2027, 1, 1, tzinfo=UTC), end=datetime(2028, 1, 1, tzinfo=UTC)
    )

    assert [change.at for change in changes] == [
        datetime(2027, 3, 28, 1, tzinfo=UTC),
        datetime(2027, 10, 31, 1, tzinfo=UTC),
    ]


@pytest.mark.parametrize("zone_name", ZONES)
def test_the_check_at_the_claim_agrees_with_the_slots(zone_name):
    zone = cron.parse_zone(zone_name)
    changes = calendars.clock_changes(zone, start=NOW, end=FAR)
    for text in EXPRESSIONS:
        expression = cron.parse(text)
        for change in changes:
            start, end = change.at - timedelta(hours=3), change.at + timedelta(hours=3)
            due = set(cron.slots(expression, zone, start=start, end=end))
            minutes = [start + timedelta(minutes=number) for number in range(360)]
            assert {minute for minute in minutes if cron.is_slot(expression, zone, minute)} == due, (text, change)
