"""The grammar of cron expressions, their gaps, and their slots around clock changes."""

from datetime import UTC, datetime, timedelta

import pytest
from croniter import croniter

from schedules import cron


def next_slots(text, zone, after, count):
    found = cron.next_slots(cron.parse(text), cron.parse_zone(zone), after=datetime.fromisoformat(after), count=count)
    return [slot.isoformat().replace("+00:00", "Z") for slot in found]


def slots_on(text, zone, day):
    where = cron.parse_zone(zone)
    start = datetime.fromisoformat(day).replace(tzinfo=where)
    end = (start.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=where)
    return list(cron.slots(cron.parse(text), where, start=start.astimezone(UTC), end=end.astimezone(UTC)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write five fields"),
        ("* * * *", "4 fields given"),
        ("0 0 0 * * *", "6 fields given"),
        ("0 0 * * * * 2027", "7 fields given"),
        ("@daily", "write 0 0 * * * instead"),
        ("@reboot", "not supported"),
        ("99 * * * *", "minute: 99 is outside 0-59"),
        ("0 24 * * *", "hour: 24 is outside 0-23"),
        ("0 0 0 * *", "day of month: 0 is outside 1-31"),
        ("0 0 1 13 *", "month: 13 is outside 1-12"),
        ("0 0 * * 8", "day of week: 8 is outside 0-7"),
        ("*/0 * * * *", "minute: the step 0"),
        ("*/x * * * *", "minute: the step 'x'"),
        ("*/60 * * * *", "minute: the step 60"),
        ("5-5/2 * * * *", "minute: '5-5/2' is a single value"),
        ("5/15 * * * *", "write a range such as 5-59/15"),
        ("22-2 * * * *", "runs backwards"),
        ("0 0 * * FRI-MON", "runs backwards"),
        ("1,,2 * * * *", "empty list member"),
        (",1 * * * *", "empty list member"),
        ("0 0 L * *", "L (last) is not supported"),
        ("0 0 15W * *", "W (nearest weekday) is not supported"),
        ("0 0 * * 5#3", "n-th weekday"),
        ("0 0 ? * MON", "write *"),
        ("H * * * *", "H (a chosen value) is not supported"),
        ("R * * * *", "R (a chosen value) is not supported"),
        ("0 0 1 * MON", "cron programs disagree"),
        ("0 0 1-31 * 0-6", "cron programs disagree"),
        ("TZ=UTC 0 0 * * *", "timezone field"),
        ("CRON_TZ=Europe/Berlin 0 0 * * *", "timezone field"),
        ("0 0 * * * # nightly", "comment"),
        ("0\u00a00 * * *", "ASCII"),
        ("\u0660 0 * * *", "ASCII"),
        ("0 0 30 2 *", "would never fire"),
        ("0 0 31 4,6,9,11 *", "would never fire"),
        ("0" * 129 + " 0 * * *", "at most 128"),
        ("-1 * * * *", "minute: a number is missing"),
        ("1- * * * *", "minute: a number is missing"),
        ("a * * * *", "minute: 'a' is not a number 0-59"),
        ("0 0 * FOO *", "or a name JAN-DEC"),
        ("0 0\n* * *", "plain blanks"),
        ("0\v0 * * *", "plain blanks"),
        ("59/5 * * * *", "write 59"),
        ("0 0 1-15W * *", "W (nearest weekday) is not supported"),
        ("0 0 * * " + ",".join(["1"] * 70), "at most 128"),
    ],
)
def test_what_is_refused_says_why(text, message):
    with pytest.raises(cron.CronError) as refusal:
        cron.parse(text)

    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    ["*/5 * * * *", "0 9-17 * * MON-FRI", "5,35 */2 1,15 JAN,jul *", "0 0 * * 0,7", "0 0 29 2 *", "10-40/10 3 * * 5-7"],
)
def test_what_is_accepted_selects_what_croniter_selects_where_both_agree(text):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    reference = croniter(text, start)

    assert cron.next_slots(cron.parse(text), cron.parse_zone("UTC"), after=start, count=30) == [
        reference.get_next(datetime) for _ in range(30)
    ]


def test_a_range_of_one_value_is_that_value():
    assert cron.parse("5-5 3-3 * * *").minutes == (5,)
    assert cron.parse("5-5 3-3 * * *").hours == (3,)


def test_the_stored_text_is_normalised_by_its_blanks_only():
    assert cron.parse(" \t05  4\t* *  mon \n").text == "05 4 * * mon"
    assert cron.parse("0" + " " * 200 + "4 * * *").text == "0 4 * * *"


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("*/5 * * * *", 5),
        ("*/7 * * * *", 4),
        ("0,3 4 1 1 *", 3),
        ("0-59 * * * *", 1),
        ("* 9 * * *", 1),
        ("1-59/2 * * * *", 2),
        ("0 * * * *", 60),
        ("58 23 * * *", 24 * 60),
        ("0,59 0,23 * * *", 1),
        ("0,59 0,23 29 2 *", 59),
        ("0 0 * * MON", 7 * 24 * 60),
        ("0 0 * * SAT,SUN", 24 * 60),
        ("0 0 1,31 * *", 24 * 60),
        ("0 0 31 * *", 31 * 24 * 60),
        ("0 0 28 2 *", 365 * 24 * 60),
        ("0 0 29 2 *", 1461 * 24 * 60),
    ],
)
def test_the_shortest_gap_is_that_of_the_whole_cycle(text, minutes):
    assert cron.shortest_gap_seconds(cron.parse(text)) == minutes * 60


def test_london_midnight_comes_once_on_the_autumn_day():
    assert next_slots("0 0 * * *", "Europe/London", "2026-10-24T12:00:00Z", 2) == [
        "2026-10-24T23:00:00Z",
        "2026-10-26T00:00:00Z",
    ]


def test_berlin_one_o_clock_comes_once_on_the_autumn_day():
    assert len(slots_on("0 1 * * *", "Europe/Berlin", "2026-10-25")) == 1


def test_a_repeated_local_time_runs_in_the_first_pass():
    assert next_slots("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2) == [
        "2026-10-25T00:30:00Z",
        "2026-10-26T01:30:00Z",
    ]


def test_elapsed_time_schedules_run_in_both_passes():
    assert len(slots_on("*/15 * * * *", "Europe/London", "2026-10-25")) == 100
    assert len(slots_on("*/15 * * * *", "Europe/London", "2026-03-29")) == 92


def test_a_time_in_the_gap_runs_at_the_first_instant_after_it():
    assert next_slots("30 2 * * *", "America/New_York", "2027-03-13T12:00:00Z", 2) == [
        "2027-03-14T07:00:00Z",
        "2027-03-15T06:30:00Z",
    ]


def test_several_times_in_one_gap_run_once():
    assert len(slots_on("0,20,40 2 * * *", "America/New_York", "2027-03-14")) == 1


def test_havana_keeps_its_sunday():
    assert next_slots("0 9 * * SUN", "America/Havana", "2025-10-28T12:00:00Z", 1) == ["2025-11-02T14:00:00Z"]


def test_the_next_slot_is_strictly_later():
    assert next_slots("0 4 * * *", "UTC", "2026-01-01T04:00:00Z", 1) == ["2026-01-02T04:00:00Z"]


def test_the_leap_day_is_found_eight_years_ahead():
    assert next_slots("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1) == ["2104-02-29T00:00:00Z"]


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "utc ", "../etc/passwd", "Europe", "Factory", "X" * 65, "\x00"])
def test_an_unknown_zone_is_refused(name):
    with pytest.raises(cron.CronError, match="timezone"):
        cron.parse_zone(name)
