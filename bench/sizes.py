"""How much each scenario does: all of it, the share of it that a slow engine does in the same time, or very little.

``BENCH_SHARE=1`` takes the full sizes and ``QUICK=1`` the small ones, whatever the engine; where neither is given, a
call tries out how fast the engine is and takes that share (see `bench.probe`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Final

SHARE_VARIABLE: Final = "BENCH_SHARE"


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of one call of the benchmarks."""

    rounds: int
    bursts: tuple[int, ...]
    warming_runs: int
    flow: int
    killed: int
    kill_rounds: int
    calls_alone: int
    calls_of_each: int
    changes: int
    waiting_calls: int
    waiting_seconds: float
    runs: int
    requests: int
    expressions: int
    upgraded_installs: int
    idle_schedules: tuple[int, ...]
    far_schedules: tuple[int, ...]
    idle_seconds: float


FULL: Final = Sizes(
    rounds=3,
    bursts=(300, 1000),
    warming_runs=50,
    flow=300,
    killed=300,
    kill_rounds=3,
    calls_alone=30,
    calls_of_each=12,
    changes=24,
    waiting_calls=500,
    waiting_seconds=20.0,
    runs=1_000_000,
    requests=30,
    expressions=1500,
    upgraded_installs=200,
    idle_schedules=(100, 1_000),
    far_schedules=(100, 1_000, 10_000),
    idle_seconds=60.0,
)
# Too small to say anything of speed; it shows that every scenario still runs.
SMALL: Final = Sizes(
    rounds=1,
    bursts=(40,),
    warming_runs=10,
    flow=40,
    killed=40,
    kill_rounds=1,
    calls_alone=5,
    calls_of_each=5,
    changes=2,
    waiting_calls=50,
    waiting_seconds=3.0,
    runs=20_000,
    requests=10,
    expressions=300,
    upgraded_installs=10,
    idle_schedules=(60, 150),
    far_schedules=(60, 150, 300),
    idle_seconds=5.0,
)


def is_quick() -> bool:
    """Whether small sizes were asked for."""
    return os.environ.get("QUICK", "") not in {"", "0"}


def is_share_known() -> bool:
    """Whether it was said how much of the full sizes is to be taken."""
    return SHARE_VARIABLE in os.environ


def share() -> float:
    """How much of the full sizes is taken, up to 1, which is all. Raises ValueError where what was given is none."""
    text = os.environ.get(SHARE_VARIABLE, "1")
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise ValueError(f"{SHARE_VARIABLE} must be above 0 and at most 1, not {text[:20]!r}")
    return number


def scaled(sizes: Sizes, part: float) -> Sizes:
    """That part of what costs the engine or the database time, in tens; how often all is repeated stays."""

    def of(number: int) -> int:
        return max(10, 10 * round(number * part / 10)) if part < 1 else number

    def of_idle(numbers: tuple[int, ...]) -> tuple[int, ...]:
        # With the smallest the others are compared, and each has one tenant with fifty schedules.
        return (numbers[0], *(max(2 * numbers[0], of(number)) for number in numbers[1:]))

    return replace(
        sizes,
        bursts=tuple(of(number) for number in sizes.bursts),
        flow=of(sizes.flow),
        killed=of(sizes.killed),
        calls_of_each=of(sizes.calls_of_each),
        waiting_calls=of(sizes.waiting_calls),
        runs=of(sizes.runs),
        expressions=of(sizes.expressions),
        upgraded_installs=of(sizes.upgraded_installs),
        idle_schedules=of_idle(sizes.idle_schedules),
        far_schedules=of_idle(sizes.far_schedules),
    )


try:
    SIZES: Final = SMALL if is_quick() else scaled(FULL, share())
except ValueError as error:
    raise SystemExit(str(error)) from None
