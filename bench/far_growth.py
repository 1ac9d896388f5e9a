"""What ten thousand idle schedules cost, and what their number does; `bench.growth` with a larger one."""

from __future__ import annotations

from typing import Final

from bench import growth
from bench.report import Figure
from bench.sizes import SIZES

ABOUT: Final = f"""
{", ".join(f"{count:,}" for count in SIZES.far_schedules)} {growth.WHAT_IS_MEASURED.strip()}
"""


def run() -> list[Figure]:
    """Measure."""
    return growth.measure(SIZES.far_schedules)
