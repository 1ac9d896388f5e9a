"""The scenarios that all sides take part in, one after the other on one stage, so that it is built once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Final

from bench import burst, flow, kill, stage, turns
from bench.report import Figure

MODULES: Final[dict[str, ModuleType]] = {"steady flow": flow, "burst": burst, "kill": kill}


def run(wanted: Sequence[str]) -> Iterator[list[Figure]]:
    """Measure some of `MODULES` one after the other; each one's figures as soon as they are there."""
    with stage.built(call_seconds=0, log_statements=False) as built, turns.all_sides(built) as all_sides:
        for name in wanted:
            yield MODULES[name].measure(built, all_sides)
