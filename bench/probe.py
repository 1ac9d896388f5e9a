"""How much of the full sizes a call takes: what the engine of this machine does in some twenty minutes.

Ratios travel between machines, and so do those of smaller sizes; a slow engine with the full ones takes three times as
long. Tried out with runs of the bare side, as the engine is what takes longest.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import tempfile
from pathlib import Path
from typing import Final

from bench import processes, sides, stage, turns

PROBING_RUNS: Final = 100
PROBES: Final = 3
# What an engine keeps of its rate beside all the other processes, by which bursts are laid out.
KEPT_BESIDE_ALL: Final = 0.7
# From so many runs a second on, the bursts of the full sizes fit between their minutes.
FULL_SIZES_FROM: Final = 90.0
# A slower engine keeps less of its rate in a burst, and its machine takes longer for all the rest, too: it gets its
# rate's share of this one.
RATE_OF_A_WHOLE_SHARE: Final = 160.0
LOWEST_SHARE: Final = 0.05


def runs_per_second() -> float:
    """What an engine with a bare worker and nothing beside it brings to the sink."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        engine = stack.enter_context(stage.running_engine(directory))
        port = stack.enter_context(stage.running_sink(0))
        bare = sides.Bare(engine, stack.enter_context(processes.running(turns.BARE_WORKER)))
        turns.flow_rate(port, bare, turns.WARMING_RUNS)
        return statistics.median(turns.flow_rate(port, bare, PROBING_RUNS) for _ in range(PROBES))


def share_for(rate: float) -> float:
    """How much of the full sizes an engine of that many runs a second gets, from `LOWEST_SHARE` to 1, in hundredths."""
    if rate >= FULL_SIZES_FROM:
        return 1.0
    return max(LOWEST_SHARE, math.floor(100 * rate / RATE_OF_A_WHOLE_SHARE) / 100)
