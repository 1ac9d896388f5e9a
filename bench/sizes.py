"""How much each scenario does: all of it, or as much as a few minutes allow (``QUICK=1``)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of one call of the benchmarks."""

    rounds: int
    bursts: tuple[int, ...]
    flow: int
    killed: int
    kill_rounds: int
    calls_of_each: int
    beat_changes: int
    waiting_calls: int
    waiting_seconds: float
    runs: int
    requests: int
    expressions: int
    upgraded_installs: int
    idle_schedules: tuple[int, ...]
    idle_seconds: float


FULL: Final = Sizes(
    rounds=3,
    bursts=(300, 1000),
    flow=400,
    killed=300,
    kill_rounds=3,
    calls_of_each=20,
    beat_changes=20,
    waiting_calls=500,
    waiting_seconds=20.0,
    runs=1_000_000,
    requests=60,
    expressions=3000,
    upgraded_installs=200,
    idle_schedules=(100, 1_000, 10_000),
    idle_seconds=60.0,
)
# Too small to say anything of speed; it shows that every scenario still runs.
SMALL: Final = Sizes(
    rounds=1,
    bursts=(60,),
    flow=100,
    killed=40,
    kill_rounds=1,
    calls_of_each=5,
    beat_changes=2,
    waiting_calls=50,
    waiting_seconds=3.0,
    runs=20_000,
    requests=10,
    expressions=300,
    upgraded_installs=10,
    idle_schedules=(60, 150),
    idle_seconds=5.0,
)


def is_quick() -> bool:
    """Whether small sizes were asked for."""
    return os.environ.get("QUICK", "") not in {"", "0"}


SIZES: Final = SMALL if is_quick() else FULL
