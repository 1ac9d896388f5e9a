"""The plots beside the tables, drawn from the same numbers as the JSON document holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

Numbers = Mapping[str, Mapping[str, float]]

SIDES: Final = {"ours": "", "bare Temporal": "_bare_temporal", "Celery": "_celery"}
COLOURS: Final = ("#2f6f9f", "#8fa3b3", "#7a9f4f")
SIZE: Final = (9.0, 4.5)


def draw(numbers: Numbers, directory: Path) -> list[str]:
    """Draw what there are numbers for; returns the names of the files."""
    drawn = []
    for name, draw_one in (
        ("rates.png", _rates),
        ("lateness.png", _lateness),
        ("kill.png", _kill),
        ("growth.png", _growth),
    ):
        figure = draw_one(numbers)
        if figure is not None:
            figure.tight_layout()
            # Without the date and version that matplotlib adds: the same numbers are to give the same file.
            figure.savefig(directory / name, dpi=110, metadata={"Software": None})
            plt.close(figure)
            drawn.append(name)
    return drawn


def _rates(numbers: Numbers) -> Any:
    scenarios = [name for name in numbers if name.startswith(("burst_", "steady_flow_"))]
    return _bars(numbers, [(name, "runs_per_second", "") for name in scenarios], "runs per second")


def _lateness(numbers: Numbers) -> Any:
    scenarios = [name for name in numbers if name.startswith("burst_")]
    bars = [(name, f"start_lateness_{which}", "_s") for name in scenarios for which in ("p50", "p95", "max")]
    return _bars(numbers, bars, "start lateness in seconds")


def _kill(numbers: Numbers) -> Any:
    scenarios = [name for name in numbers if name.startswith("killed_")]
    bars = [(name, f"calls_{which}", "") for name in scenarios for which in ("lost", "doubled", "late")]
    return _bars(numbers, bars, "calls")


def _growth(numbers: Numbers) -> Any:
    """Each process's idle processor time over the number of schedules."""
    sizes = {
        int(name.removesuffix("_idle_schedules").replace("_", "")): each
        for name, each in numbers.items()
        if name.endswith("_idle_schedules")
    }
    if not sizes:
        return None
    figure, axes = plt.subplots(figsize=SIZE)
    prefix, suffix = "cpu_per_minute_", "_s"
    first = next(iter(sizes.values()))
    for key in [key for key in first if key.startswith(prefix) and key.endswith(suffix) and "schedules" not in key]:
        axes.plot(
            list(sizes),
            [each.get(key, float("nan")) for each in sizes.values()],
            marker="o",
            label=key.removeprefix(prefix).removesuffix(suffix).replace("_", " "),
        )
    axes.set_xscale("log")
    axes.set_xlabel("idle schedules")
    axes.set_ylabel("CPU seconds per minute")
    axes.legend()
    return figure


def _bars(numbers: Numbers, wanted: Sequence[tuple[str, str, str]], label: str) -> Any:
    """A group of bars for each (scenario, figure, unit), one bar a side, with the spread of its repeats."""
    groups = [(scenario, name, unit) for scenario, name, unit in wanted if f"{name}{unit}" in numbers[scenario]]
    if not groups:
        return None
    figure, axes = plt.subplots(figsize=SIZE)
    for place, ((side, suffix), colour) in enumerate(zip(SIDES.items(), COLOURS, strict=True)):
        for number, (scenario, name, unit) in enumerate(groups):
            key = f"{name}{suffix}{unit}"
            height = numbers[scenario].get(key)
            if height is None:
                continue
            lowest, highest = numbers[scenario].get(f"{key}_min", height), numbers[scenario].get(f"{key}_max", height)
            axes.bar(
                number + (place - 1) * 0.27,
                height,
                0.25,
                color=colour,
                label=side if number == 0 else None,
                yerr=[[height - lowest], [highest - height]],
                capsize=3,
            )
    axes.set_xticks(range(len(groups)), [_group_label(*group[:2]) for group in groups], fontsize=7)
    axes.set_ylabel(label)
    axes.legend()
    return figure


def _group_label(scenario: str, name: str) -> str:
    """A group's name below it: "burst of 300", and which figure."""
    words = scenario.replace("killed_in_a_burst", "killed").replace("_", " ").split()
    return " ".join(words[:3]) + "\n" + name.replace("_", " ")
