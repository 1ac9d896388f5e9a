"""How long it takes to say what an expression means, accepted or refused, honest or hostile; nothing remembered."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from bench.report import Figure, percentile
from bench.sizes import SIZES
from schedules import calendars, cron

CASES: Final = SIZES.expressions
LIMIT_MS: Final = 20.0
NAME: Final = "meaning of an expression"
ABOUT: Final = """
How long it takes to accept or refuse an expression and to know its shortest gap, over thousands of generated ones,
the time zone data warm and nothing else remembered. In one process, without database or engine.
"""
ZONES: Final = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca")
PIECES: Final = (
    "*",
    "*/",
    "/",
    "-",
    ",",
    "0",
    "5",
    "59",
    "60",
    "99",
    "JAN",
    "mon",
    "L",
    "?",
    "#",
    "\x00",
    " ",
    "é",
    "1-5",
)
REMEMBERING: Final = (cron.parse, calendars._compile_from, calendars._shapes)  # noqa: SLF001 - to make them forget
RARE: Final = ("0 0 29 2 *", "59 23 31 12 *", "0 0 31 1,3 *", "5 4 29 2 *", "0 0 30,31 11,12 *")


def run() -> list[Figure]:
    """The 99th percentiles in milliseconds, against the 20 that saving a schedule may take for it."""
    pick = random.Random(1)
    honest = [_honest(pick) for _ in range(CASES)] + list(RARE) * 20
    hostile = ["".join(pick.choice(PIECES) for _ in range(pick.randint(1, 40))) for _ in range(CASES)]
    hostile += ["*," * 60 + "*", "1" * 100_000, "* " * 50_000, ",".join(["*/1"] * 30) + " * * * *"]
    now = datetime.now(UTC)
    figures = [
        _figure("honest: accept or refuse, gap", honest, _check, "at most 1 is allowed", limit=LIMIT_MS),
        _figure("hostile: accept or refuse, gap", hostile, _check, "at most 1 is allowed", limit=LIMIT_MS),
    ]
    accepted = [text for text in honest if _check(text)]
    for what, act in (
        ("next five slots", lambda text, zone: cron.next_slots(cron.parse(text), zone, after=now, count=5)),
        ("calendars of the mirror", lambda text, zone: calendars.compile_calendars(cron.parse(text), zone, now=now)),
    ):
        figures.append(_figure(what, accepted, _in_some_zone(pick, act)))
    return figures


def _check(text: str) -> bool:
    try:
        cron.shortest_gap_seconds(cron.parse(text))
    except cron.CronError:
        return False
    return True


def _in_some_zone(pick: random.Random, act: Callable[..., object]) -> Callable[[str], object]:
    zones = [cron.parse_zone(name) for name in ZONES]
    return lambda text: act(text, pick.choice(zones))


def _figure(
    what: str, texts: list[str], act: Callable[[str], object], meaning: str = "", *, limit: float | None = None
) -> Figure:
    durations = []
    for text in texts:
        for remembers in REMEMBERING:
            remembers.cache_clear()
        started = time.perf_counter()
        act(text)
        durations.append((time.perf_counter() - started) * 1000)
    return Figure(NAME, f"p99, {what}", percentile(sorted(durations), 99), limit, "ms", meaning)


def _honest(pick: random.Random) -> str:
    def field(lowest: int, highest: int) -> str:
        first = pick.randint(lowest, highest - 1)
        return pick.choice(
            ("*", str(first), f"{first}-{highest}", f"*/{pick.randint(1, highest)}", f"{first},{highest}")
        )

    day, weekday = pick.choice(((field(1, 31), "*"), ("*", pick.choice(("MON-FRI", "SUN", "1,3,5-7", "*/2")))))
    return " ".join((field(0, 59), field(0, 23), day, field(1, 12), weekday))
