"""Figures, and the table that shows them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number beside what it is held against; their ratio is what travels between machines."""

    scenario: str
    name: str
    measured: float
    against: float
    unit: str
    meaning: str

    @property
    def ratio(self) -> float:
        """Measured over what it is held against."""
        return self.measured / self.against if self.against else float("nan")


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The value that so many percent of them stay at or below (nearest rank)."""
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def render_table(figures: Iterable[Figure]) -> str:
    """A Markdown table, one row a figure."""
    rows = [
        "| scenario | figure | measured | against | ratio | what the ratio says |",
        "|---|---|---:|---:|---:|---|",
    ]
    rows += [
        f"| {figure.scenario} | {figure.name} | {figure.measured:,.4g} {figure.unit} "
        f"| {figure.against:,.4g} {figure.unit} | {figure.ratio:.2f} | {figure.meaning} |"
        for figure in figures
    ]
    return "\n".join(rows)
