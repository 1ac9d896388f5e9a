"""The plots beside the tables, drawn from the same numbers as the JSON document holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

Numbers = Mapping[str, Mapping[str, float]]

# Each side's part of a figure's name.
SIDES: Final = {
    "ours": "",
    "bare Temporal": "_bare_temporal",
    "bare Temporal, local activity": "_bare_temporal_local_activity",
    "Celery": "_celery",
}
COLOURS: Final = ("#2f6f9f", "#8fa3b3", "#c3ced6", "#7a9f4f")
SIZE: Final = (9.0, 4.5)


def draw(numbers: Numbers, directory: Path, *, stem: str) -> list[str]:
    """Draw what there are numbers for, growth in a file of the page's own name; returns the names of the files."""
    drawn = []
    for name, draw_one in (
        ("rates.png", _rates),
        ("lateness.png", _lateness),
        ("kill.png", _kill),
        ("growth.png" if stem == "latest" else f"{stem}.png", _growth),
        ("runs.png", _runs),
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
    """Each process's idle processor time and memory over the number of schedules."""
    sizes = {
        int(name.removesuffix("_idle_schedules").replace("_", "")): each
        for name, each in numbers.items()
        if name.endswith("_idle_schedules")
    }
    if not sizes:
        return None
    figure, both = plt.subplots(1, 2, figsize=SIZE)
    colours: dict[str, str] = {}
    for axes, prefix, suffix, label in zip(
        both, ("cpu_per_minute_", "memory_"), ("_s", "_pss_mb"), ("CPU seconds per minute", "memory in MB"), strict=True
    ):
        first = next(iter(sizes.values()))
        for key in [key for key in first if key.startswith(prefix) and key.endswith(suffix) and "schedules" not in key]:
            process = key.removeprefix(prefix).removesuffix(suffix).replace("_", " ")
            values = [each.get(key, float("nan")) for each in sizes.values()]
            colour = colours.setdefault(process, f"C{len(colours)}")
            axes.plot(list(sizes), values, marker="o", color=colour, label=process)
        axes.set_xscale("log")
        axes.set_xlabel("idle schedules")
        axes.set_ylabel(label)
        axes.legend(fontsize=7)
    return figure


def _runs(numbers: Numbers) -> Any:
    """How long each page takes with few rows of runs and with many."""
    found = next(((name, each) for name, each in numbers.items() if name.endswith("_000_runs")), None)
    if found is None:
        return None
    scenario, each = found
    prefix, few = "p95_of_", "_1_000_runs_ms"
    pages = [key.removeprefix(prefix).removesuffix(few) for key in each if key.endswith(few)]
    figure, axes = plt.subplots(figsize=SIZE)
    for place, (label, suffix) in enumerate((("1,000 runs", few), (f"{_thousands(scenario)} runs", "_ms"))):
        heights = [each[f"{prefix}{page}{suffix}"] for page in pages]
        axes.barh([number + (place - 0.5) * 0.4 for number in range(len(pages))], heights, 0.38, label=label)
    axes.set_yticks(range(len(pages)), [page.replace("_", " ") for page in pages], fontsize=7)
    axes.set_xlabel("p95 in milliseconds")
    axes.invert_yaxis()
    axes.legend()
    return figure


def _thousands(scenario: str) -> str:
    """The number that a scenario's name begins with."""
    return scenario.removesuffix("_runs").replace("_", ",")


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
                number + (place - 1.5) * 0.21,
                height,
                0.19,
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
    return " ".join(words[:3]).removesuffix(" of") + "\n" + name.replace("_", " ")
