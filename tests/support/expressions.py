"""The expression of schedules that are in force and not to be due while the suite runs, whatever the time of day."""

from datetime import UTC, datetime

# Hours away in every zone from New York to Berlin, and at no time that a clock change moves: four o'clock is from 02 to
# 09 UTC there, and sixteen o'clock from 14 to 21 UTC.
DAILY = "0 4 * * *" if 9 < datetime.now(UTC).hour < 22 else "0 16 * * *"
