"""The scenarios that all sides take part in, one after the other on one stage, so that it is built once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Final

from bench import burst, flow, kill, sides, stage, turns
from bench.report import Figure

# Each with the sides that take part.
MODULES: Final[dict[str, tuple[ModuleType, Sequence[str]]]] = {
    "steady flow": (flow, sides.IN_FLOWS),
    "burst": (burst, sides.ALL),
    "kill": (kill, sides.ALL),
}


def run(wanted: Sequence[str]) -> Iterator[list[Figure]]:
    """Measure some of `MODULES` one after the other; each one's figures as soon as they are there."""
    with stage.built(call_seconds=0, log_statements=False) as built, turns.all_sides(built) as all_sides:
        for name in wanted:
            module, taking_part = MODULES[name]
            yield module.measure(built, {side: all_sides[side] for side in taking_part if side in all_sides})
