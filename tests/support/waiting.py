"""Wait for a condition with a deadline; the one place of the suite that lets time pass."""

import time


def eventually(check, *, seconds=20, every=0.05):
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
