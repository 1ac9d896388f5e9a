"""Wait for a condition with a deadline; the one place of the suite that lets time pass."""

import time

# What need not wait for the minute's pass does not take so long, also where four processes share two slow processors.
PATIENCE_SECONDS = 60


def eventually(check, *, seconds=PATIENCE_SECONDS, every=0.05):
    """Return the first true value of ``check()``; an assertion error or a false value is tried again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            value = check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        else:
            if value:
                return value
            assert time.monotonic() < deadline, f"{check} was not true within {seconds} s"
        time.sleep(every)
