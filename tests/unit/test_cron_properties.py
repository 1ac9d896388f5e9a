"""Generated expressions, honest and hostile: right slots, or a refusal that names a field. Never a crash."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from schedules import calendars, cron, preview
from tests.support.time_cases import NOW, ZONES, calendar_fires, windows
from tests.support.time_oracle import BOUNDS, Oracle, expand

HOSTILE_CASES = 100_000
NAMED_FIELDS = ("cron", "minute", "hour", "day of month", "month", "day of week", "timezone")
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
# Pieces that expressions are made of, and pieces that they are broken with.
PIECES = ["*", "*/", "/", "-", ",", "0", "1", "5", "7", "15", "23", "24", "31", "32", "59", "60", "99", "007", "-1"]
PIECES += ["JAN", "mon", "Sun", "FOO", "L", "W", "#", "?", "H", "R", "@daily", "TZ=UTC", "# x", "\t", "\n", "\x00"]
PIECES += ["\u00a0", "\u0661", "\u200b", "é", "💥", "1e3", "0x10", "+5", " ", "  ", "*", "*", "*/5", "0-59/7", "1,2"]


def some_field(pick, lowest, highest, names):
    """A field that the grammar allows."""

    def value(number):
        return names[number - (1 if names is MONTHS else 0)] if names and pick.random() < 0.3 else str(number)

    def member():
        kind = pick.random()
        if kind < 0.3:
            return value(pick.randint(lowest, highest - (1 if names is WEEKDAYS else 0)))
        first = pick.randint(lowest, highest - 1)
        last = pick.randint(first, highest)
        if kind < 0.6:
            return f"{first}-{last}"
        if kind < 0.8 and first < last:
            return f"{first}-{last}/{pick.randint(1, highest)}"
        return f"*/{pick.randint(1, highest)}"

    return "*" if pick.random() < 0.4 else ",".join(member() for _ in range(pick.randint(1, 3)))


def some_expression(pick):
    fields = [
        some_field(pick, *bounds, names)
        for bounds, names in zip(BOUNDS, (None, None, None, MONTHS, WEEKDAYS), strict=True)
    ]
    fields[pick.choice((2, 4))] = "*"
    return " ".join(fields)


def parsed(text):
    try:
        return cron.parse(text)
    except cron.CronError as error:
        refusal = str(error)
    assert refusal.split(":", maxsplit=1)[0] in NAMED_FIELDS, (text, refusal)
    return None


@pytest.mark.parametrize("seed", range(8))
def test_slots_equal_a_second_opinion_around_clock_changes(seed):
    pick = random.Random(seed)
    compared = 0
    while compared < 25:
        text, zone = some_expression(pick), cron.parse_zone(pick.choice(ZONES))
        expression = parsed(text)
        if expression is None:
            continue
        changes = calendars.clock_changes(zone, start=NOW, end=NOW + timedelta(days=550))
        around = pick.choice(changes).at if changes else NOW
        start, end = around - timedelta(hours=30), around + timedelta(hours=30)

        assert list(cron.slots(expression, zone, start=start, end=end)) == Oracle(text).slots(zone, start, end), (
            text,
            zone.key,
        )
        compared += 1


@pytest.mark.parametrize("seed", range(4))
def test_text_goes_in_and_calendars_come_out_with_the_same_meaning(seed):
    pick = random.Random(seed)
    utc = cron.parse_zone("UTC")
    for _ in range(150):
        text = some_expression(pick)
        expression = parsed(text)
        if expression is None:
            continue
        compiled = calendars.compile_calendars(expression, utc, now=NOW)
        oracle = Oracle(text)
        day = NOW + timedelta(days=pick.randint(0, 700))
        start, end = day, day + timedelta(days=2)
        walked = [start + timedelta(minutes=number) for number in range(2 * 24 * 60)]
        assert calendar_fires(compiled.calendars, start=start, end=end) == [at for at in walked if oracle.shows(at)]


@pytest.mark.parametrize("seed", range(4))
def test_generated_expressions_compile_to_their_slots_in_zones_with_clock_changes(seed):
    pick = random.Random(100 + seed)
    compared = 0
    while compared < 25:
        text, zone = some_expression(pick), cron.parse_zone(pick.choice(ZONES))
        expression = parsed(text)
        if expression is None:
            continue
        compiled = calendars.compile_calendars(expression, zone, now=NOW)
        for start, end in windows(zone):
            due = list(cron.slots(expression, zone, start=start, end=end))
            assert calendar_fires(compiled.calendars, start=start, end=end) == due, (text, zone.key)
        compared += 1


def test_every_accepted_expression_can_be_told_in_words():
    pick = random.Random(5)
    for _ in range(5000):
        expression = parsed(some_expression(pick))
        if expression is not None:
            assert preview.describe(expression)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("*/5 * * * *", "Every 5 minutes"),
        ("0 */6 * * *", "Every 6 hours"),
        ("0 */5 * * *", "At 00:00, 05:00, 10:00, 15:00 and 20:00"),
        ("0 9 * * MON-FRI", "At 09:00, Monday through Friday"),
        ("0 0 */31 * *", "At 00:00, on day 1 of the month"),
        ("0 0 * * 0,7", "At 00:00, only on Sunday"),
        ("0 0 * * 0-7", "At 00:00"),
        ("5 */2,3 * * *", ""),
    ],
)
def test_words_tell_what_is_selected(text, words):
    assert preview.describe(cron.parse(text)).startswith(words)


def test_the_fields_expand_as_a_second_opinion_has_it():
    pick = random.Random(7)
    for _ in range(2000):
        text = some_expression(pick)
        expression = parsed(text)
        if expression is None:
            continue
        fields = [expand(field, *bounds) for field, bounds in zip(text.split(), BOUNDS, strict=True)]
        fields[4] = {weekday % 7 for weekday in fields[4]}
        selected = (expression.minutes, expression.hours, expression.days, expression.months, expression.weekdays)
        assert [set(values) for values in selected] == fields, text


def test_hostile_strings_are_understood_or_refused_and_nothing_else():
    pick = random.Random(20261121)
    accepted = []
    for _ in range(HOSTILE_CASES):
        if pick.random() < 0.5:
            text = "".join(pick.choice(PIECES) for _ in range(pick.randint(0, 12)))
        else:
            text = list(some_expression(pick))
            for _ in range(pick.randint(1, 3)):
                text.insert(pick.randint(0, len(text)), pick.choice(PIECES))
            text = "".join(text)
        expression = parsed(text)
        if expression is not None:
            accepted.append(expression)
    assert len(accepted) > 500
    start = datetime(2027, 3, 27, tzinfo=UTC)
    for expression in pick.sample(accepted, 60):
        zone = cron.parse_zone(pick.choice(ZONES))
        end = start + timedelta(hours=40)
        expected = Oracle(expression.text).slots(zone, start, end)
        assert list(cron.slots(expression, zone, start=start, end=end)) == expected, (expression.text, zone.key)
        assert cron.shortest_gap_seconds(expression) >= 60
        assert cron.next_slot(expression, zone, after=start) is not None


def test_the_shortest_gap_is_the_shortest_of_all_gaps():
    pick = random.Random(3)
    utc = cron.parse_zone("UTC")
    compared = 0
    while compared < 60:
        text = some_expression(pick)
        expression = parsed(text)
        if expression is None:
            continue
        found = []
        for slot in cron.slots(expression, utc, start=NOW, end=NOW + timedelta(days=366 * 9)):
            found.append(slot)
            if len(found) == 3000:
                break
        gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(found)]
        # Never longer than what is seen; and seen, where the cycle is short enough to be walked.
        assert cron.shortest_gap_seconds(expression) <= min(gaps, default=10**9), text
        if len(found) < 3000 or (expression.days == calendars.ALL_DAYS and len(expression.months) == 12):
            assert cron.shortest_gap_seconds(expression) == min(gaps), text
        compared += 1
