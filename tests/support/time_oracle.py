"""A second opinion on slots: walks minute by minute with a clock on the wall, and expands fields in its own way.

Slow and plain on purpose, and written without a look at the product's code.
"""

from datetime import UTC, timedelta

MINUTE = timedelta(minutes=1)
NAMES = {
    name: number
    for number, name in enumerate(
        ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], start=1
    )
}
NAMES |= {name: number for number, name in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])}
BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def expand(field, lowest, highest):
    """The numbers that a field selects, by trying each number against each list member."""

    def number(text):
        return NAMES.get(text.upper()) if text.upper() in NAMES else int(text)

    def selects(member, value):
        base, _, step = member.partition("/")
        if base == "*":
            first, last = lowest, highest
        elif "-" in base:
            first, last = (number(part) for part in base.split("-"))
        else:
            first = last = number(base)
        return first <= value <= last and (value - first) % int(step or 1) == 0

    return {value for value in range(lowest, highest + 1) if any(selects(member, value) for member in field.split(","))}


class Oracle:
    def __init__(self, text):
        self.fields = text.split()
        self.minutes, self.hours, self.days, self.months, weekdays = (
            expand(field, *bounds) for field, bounds in zip(self.fields, BOUNDS, strict=True)
        )
        self.weekdays = {weekday % 7 for weekday in weekdays}
        self.elapsed = self.fields[0][0] == "*" or self.fields[1][0] == "*"

    def shows(self, wall):
        """Whether a wall clock that shows this is one of the selected times."""
        return (
            wall.minute in self.minutes
            and wall.hour in self.hours
            and wall.day in self.days
            and wall.month in self.months
            and int(wall.strftime("%w")) in self.weekdays
        )

    def slots(self, zone, start, end):
        """Walk from a day before the start, looking at the wall clock each minute."""
        seen, found = set(), []
        now = start - timedelta(days=2)
        before = now.astimezone(zone).replace(tzinfo=None) - MINUTE
        while now < end:
            wall = now.astimezone(zone).replace(tzinfo=None)
            due = self.shows(wall) and (self.elapsed or wall not in seen)
            if not self.elapsed:
                skipped = before + MINUTE
                while skipped < wall:
                    due = due or self.shows(skipped)
                    skipped += MINUTE
                seen.add(wall)
            if due and now >= start:
                found.append(now.astimezone(UTC))
            before, now = wall, now + MINUTE
        return found
