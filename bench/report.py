"""Figures, and the forms they are handed on in: a Markdown page for readers and a JSON document for programs."""

from __future__ import annotations

import math
import re
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from bench import sizes

# Units that a name in the JSON document ends with; the others are words of the figure's name already.
_UNITS_IN_NAMES: Final = {"s", "ms", "MB", "bytes"}


@dataclass(frozen=True, slots=True)
class Spread:
    """The lowest and the highest of the repeats that a median was taken from."""

    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, most often beside what it is held against; their ratio is what travels between machines.

    ``beside`` names what it is held against where that is another side and not a limit.
    """

    scenario: str
    name: str
    measured: float
    against: float | None
    unit: str
    meaning: str
    beside: str = ""
    spread: Spread | None = None
    against_spread: Spread | None = None

    @property
    def ratio(self) -> float | None:
        """Measured over what it is held against; None where that is nothing, or where one of them is less than that."""
        if self.against is None or self.against <= 0 or self.measured < 0:
            return None
        return self.measured / self.against


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one scenario: its figures, or why there are none.

    ``together`` are those that were measured on one stage one after the other, itself among them.
    """

    name: str
    about: str
    seconds: float
    figures: Sequence[Figure] = ()
    failure: str = ""
    together: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where, when and on what figures were taken."""

    facts: dict[str, str] = field(default_factory=dict)


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The value that so many percent of them stay at or below (nearest rank)."""
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def compared(
    scenario: str,
    name: str,
    unit: str,
    sides: Mapping[str, Sequence[float]],
    wanted: Mapping[str, str],
) -> list[Figure]:
    """The first side's repeats beside each other side's, where there are others: medians with their spread."""
    (_, ours), *others = sides.items()
    if not others:
        return [alone(scenario, name, unit, ours)]
    return [
        Figure(
            scenario,
            name,
            statistics.median(ours),
            statistics.median(repeats),
            unit,
            wanted.get(side, ""),
            beside=side,
            spread=_spread(ours),
            against_spread=_spread(repeats),
        )
        for side, repeats in others
    ]


def alone(
    scenario: str, name: str, unit: str, repeats: Sequence[float], meaning: str = "", *, against: float | None = None
) -> Figure:
    """One side's repeats, held against nothing or against a limit."""
    return Figure(scenario, name, statistics.median(repeats), against, unit, meaning, spread=_spread(repeats))


def as_json(outcomes: Iterable[Outcome]) -> dict[str, dict[str, float]]:
    """``{scenario: {figure: number}}``; every ratio's name ends in ``_ratio``."""
    document: dict[str, dict[str, float]] = {}
    for figure in (figure for outcome in outcomes for figure in outcome.figures):
        numbers = document.setdefault(slug(figure.scenario), {})
        base = slug(figure.name)
        unit = f"_{slug(figure.unit)}" if figure.unit in _UNITS_IN_NAMES else ""
        beside = slug(figure.beside) or "limit"
        numbers[f"{base}{unit}"] = figure.measured
        if figure.spread is not None:
            numbers[f"{base}{unit}_min"] = figure.spread.lowest
            numbers[f"{base}{unit}_max"] = figure.spread.highest
        if figure.against is not None:
            numbers[f"{base}_{beside}{unit}"] = figure.against
        if figure.against_spread is not None:
            numbers[f"{base}_{beside}{unit}_min"] = figure.against_spread.lowest
            numbers[f"{base}_{beside}{unit}_max"] = figure.against_spread.highest
        if figure.ratio is not None:
            numbers[f"{base}_to_{beside}_ratio"] = figure.ratio
    return document


def slug(text: str) -> str:
    """A name as programs like it: lower case, words joined by underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def render_page(outcomes: Sequence[Outcome], surroundings: Surroundings, *, plots: Sequence[str] = ()) -> str:
    """A Markdown page: where it was taken, then for each scenario its command, what it does, and its tables."""
    lines = ["# Figures", "", "Written by `make bench`; what the scenarios are about is in [the guide](README.md).", ""]
    lines += [f"- {name}: {fact}" for name, fact in surroundings.facts.items()]
    for outcome in outcomes:
        lines += ["", *_render_outcome(outcome)]
    if plots:
        lines += ["", "## Plots", "", *(f"![{name.removesuffix('.png')}]({name})" for name in plots)]
    return "\n".join(lines) + "\n"


def _render_outcome(outcome: Outcome) -> list[str]:
    command = shlex.join([".venv/bin/python", "-m", "bench", *(outcome.together or [outcome.name])])
    lines = [f"## {outcome.name.capitalize()}", "", f"`{_size()}{command}`", ""]
    lines += [outcome.about.strip(), ""]
    if outcome.failure:
        return [*lines, f"**No figures:** {outcome.failure}"]
    for scenario, figures in groupby(outcome.figures, key=lambda figure: figure.scenario):
        lines += [f"### {scenario[0].upper()}{scenario[1:]}", "", *_render_table(list(figures)), ""]
    return [*lines, f"Took {outcome.seconds:.0f} s."]


def _size() -> str:
    """What the line that repeats a figure begins with, as other sizes measure something else."""
    return "QUICK=1 " if sizes.is_quick() else f"{sizes.SHARE_VARIABLE}={sizes.share():g} "


def _render_table(figures: Sequence[Figure]) -> list[str]:
    rows = ["| figure | measured | against | | ratio | what the ratio says |", "|---|---:|---:|---|---:|---|"]
    for figure in figures:
        against = "" if figure.against is None else _number(figure.against, figure.against_spread, figure.unit)
        beside = figure.beside or ("" if figure.against is None else "limit")
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        measured = _number(figure.measured, figure.spread, figure.unit)
        rows.append(f"| {figure.name} | {measured} | {against} | {beside} | {ratio} | {figure.meaning} |")
    return rows


def _number(value: float, spread: Spread | None, unit: str) -> str:
    around = ""
    if spread is not None and spread.lowest != spread.highest:
        around = f" ({spread.lowest:,.4g}-{spread.highest:,.4g})"
    return f"{value:,.4g}{around} {unit}".rstrip()


def _spread(repeats: Sequence[float]) -> Spread:
    return Spread(min(repeats), max(repeats))
