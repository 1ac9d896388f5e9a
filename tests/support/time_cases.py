"""Expressions and zones that between them meet every way in which time goes wrong, and a plain reading of calendars."""

from datetime import UTC, datetime, timedelta

from schedules import calendars as compiler

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
FAR = NOW + timedelta(days=18 * 31)
# Around a clock change; not more, because the engine lists at most a thousand times in one answer.
AROUND = timedelta(hours=36)

EXPRESSIONS = (
    # Elapsed time: the same in UTC, or not.
    "*/5 * * * *",
    "*/15 * * * *",
    "*/30 * * * *",
    "0 * * * *",
    "7 * * * *",
    "*/20 9-17 * * MON-FRI",
    "*/30 * * * MON",
    "0 */2 * * *",
    "30 */6 * * *",
    "15 */8 1 * *",
    "*/10 0-3 * * *",
    "*/45 22,23 * * SUN",
    "*/25 * 31 * *",
    "7 */2 * 3,10 *",
    # Fixed times around the hours in which clocks change.
    "0 0 * * *",
    "30 0 * * *",
    "0 1 * * *",
    "30 1 * * *",
    "59 1 * * *",
    "0 2 * * *",
    "30 2 * * *",
    "45 2 * * *",
    "0 3 * * *",
    "30 3 * * *",
    "0,30 0-23 * * *",
    "0,20,40 2 * * *",
    "15,45 0-3 1,15 * *",
    "45 23 * * *",
    "59 23 * * *",
    "0 12 * * *",
    # By weekday, day of month, month, and rarely.
    "0 9 * * SUN",
    "0 0 * * SAT",
    "30 23 * * FRI",
    "30 2 * * SUN",
    "0 0 1 * *",
    "30 2 28-31 3,10 *",
    "59 23 31 12 *",
    "0 0 31 * *",
    "0 0 29 2 *",
    "5 0 1 1 *",
    "0 1 1 4,11 *",
    "0 9 * JAN,JUL MON-FRI",
)

ZONES = (
    "UTC",
    "Europe/London",
    "Europe/Dublin",
    "Europe/Lisbon",
    "Europe/Berlin",
    "Europe/Kyiv",
    "Europe/Chisinau",
    "Atlantic/Azores",
    "America/New_York",
    "America/Los_Angeles",
    "America/St_Johns",
    "America/Havana",
    "America/Santiago",
    "America/Asuncion",
    "America/Sao_Paulo",
    "America/Nuuk",
    "America/Miquelon",
    "America/Port-au-Prince",
    "Pacific/Easter",
    "Pacific/Apia",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Norfolk",
    "Pacific/Kiritimati",
    "Pacific/Marquesas",
    "Australia/Sydney",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Australia/Eucla",
    "Africa/Casablanca",
    "Africa/El_Aaiun",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Jerusalem",
    "Asia/Gaza",
    "Asia/Tehran",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Antarctica/Troll",
    "Etc/GMT+12",
    "Etc/GMT-14",
)


def windows(zone, *, start=NOW, end=FAR):
    """Where it gets interesting: around every clock change, at the beginning, and around each New Year."""
    moments = [change.at for change in compiler.clock_changes(zone, start=start, end=end)]
    moments += [datetime(year, 1, 1, tzinfo=UTC) for year in range(start.year + 1, end.year + 1)]
    found = [(start, start + 2 * AROUND)] + [(moment - AROUND, moment + AROUND) for moment in sorted(moments)]
    return [(first, last) for first, last in found if start <= first and last <= end]


def calendar_fires(calendars, *, start, end):
    """The instants that the calendars select, date by date and value by value, ascending."""
    found = set()
    day = start.replace(hour=0, minute=0, second=0, microsecond=0)
    while day < end:
        for calendar in calendars:
            if (
                (not calendar.years or day.year in calendar.years)
                and day.month in calendar.months
                and day.day in calendar.days
                and day.isoweekday() % 7 in calendar.weekdays
            ):
                found |= {
                    day.replace(hour=hour, minute=minute) for hour in calendar.hours for minute in calendar.minutes
                }
        day += timedelta(days=1)
    return sorted(instant for instant in found if start <= instant < end)
