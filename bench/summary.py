"""``python -m bench.summary``: the README's table of figures, written anew from docs/benchmarks/latest.json.

A whole call of the benchmarks writes it, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.plots import SIDES, Numbers
from scheduler_project import embedded

README: Final = embedded.PROJECT_ROOT / "README.md"
FIGURES: Final = embedded.PROJECT_ROOT / "docs" / "benchmarks" / "latest.json"
BEGIN: Final = "<!-- figures: begin -->\n"
END: Final = "<!-- figures: end -->\n"
# What a row says, the scenario by the beginning of its name, and the figure with its unit apart.
ROWS: Final = (
    ("300 due in one second: runs per second", "burst_of_300_", "runs_per_second", ""),
    ("1,000 due in one second: runs per second", "burst_of_1000_", "runs_per_second", ""),
    ("the same: 95 of 100 have started after, s", "burst_of_1000_", "start_lateness_p95", "_s"),
    ("steady flow: runs per second", "steady_flow_", "runs_per_second", ""),
    ("the same: processor time of a run, ms", "steady_flow_", "cpu_per_run_all_processes", "_ms"),
    (
        "three times 300 due, workers, engine, beat and broker killed meanwhile: calls lost",
        "killed_in_a_burst_",
        "calls_lost",
        "",
    ),
    ("the same: calls that came twice", "killed_in_a_burst_", "calls_doubled", ""),
    ("the same: calls that came after more than ten seconds", "killed_in_a_burst_", "calls_late", ""),
    (
        "the same: last of the calls that came after, s (median)",
        "killed_in_a_burst_",
        "last_of_the_calls_that_came_after",
        "_s",
    ),
    ("a new schedule is in force after, p95, ms", "control_plane", "from_a_create_until_it_is_in_force_p95", "_ms"),
)


def render(numbers: Numbers) -> str:
    """The table, in Markdown."""
    head = [f"| | {' | '.join(SIDES)} |", f"|---|{'---:|' * len(SIDES)}"]
    return "\n".join([*head, *_rows(numbers)]) + "\n"


def write(*, readme: Path = README, figures: Path = FIGURES) -> None:
    """Put the table where the README has the old one."""
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + BEGIN + render(json.loads(figures.read_text())) + END + after)


def _rows(numbers: Numbers) -> Iterator[str]:
    for words, scenario, figure, unit in ROWS:
        found = next((each for name, each in numbers.items() if name.startswith(scenario)), {})
        cells = [_cell(found.get(f"{figure}{suffix}{unit}")) for suffix in SIDES.values()]
        yield f"| {words} | {' | '.join(cells)} |"


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    write()
