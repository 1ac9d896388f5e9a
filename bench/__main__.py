"""``make bench``: run every scenario and hand on what they measured.

A whole call writes docs/benchmarks/latest.* and the README's table, and one of `tuning` alone
docs/benchmarks/tuning.*, so that the committed figures are always those of one call. One with ``QUICK=1``, or of other
scenarios that its command line names, writes to var/benchmarks/ instead.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Final

from bench import plots, scenarios, sizes, summary, surroundings
from bench.report import Outcome, Surroundings, as_json, render_page
from scheduler_project import embedded

COMMITTED_DIRECTORY: Final = embedded.PROJECT_ROOT / "docs" / "benchmarks"
QUICK_AT_ONCE: Final = 3
OTHER_DIRECTORY: Final = embedded.VAR_DIRECTORY / "benchmarks"


def main() -> int:
    """Run the scenarios that the command line names, or all of them; 1 if any has no figures."""
    wanted = sys.argv[1:] or list(scenarios.SCENARIOS)
    known = scenarios.SCENARIOS | scenarios.ON_DEMAND
    if unknown := [name for name in wanted if name not in known]:
        print(f"Unknown scenario {unknown[0]!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    stem = wanted[0] if wanted == list(scenarios.ON_DEMAND) else "latest"
    is_whole = (not sys.argv[1:] or stem != "latest") and not sizes.is_quick()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end_scenarios)
    around = surroundings.look_around(quick=sizes.is_quick())
    # Small sizes compare nothing, so their scenarios may stand in each other's way.
    with ThreadPoolExecutor(QUICK_AT_ONCE if sizes.is_quick() else 1) as threads:
        outcomes = list(threads.map(_run, wanted))
    print(_write(outcomes, around, COMMITTED_DIRECTORY if is_whole else OTHER_DIRECTORY, stem=stem))
    if is_whole and stem == "latest" and not any(outcome.failure for outcome in outcomes):
        summary.write()
    for outcome in outcomes:
        print(f"{outcome.name}: {outcome.failure or f'{outcome.seconds:.0f} s'}", file=sys.stderr)
    return 1 if any(outcome.failure for outcome in outcomes) else 0


def _end_scenarios(number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, which reaches the scenarios' processes by itself."""
    for scenario in multiprocessing.active_children():
        scenario.terminate()
    raise SystemExit(128 + number)


def _run(name: str) -> Outcome:
    print(f"Running {name} …", file=sys.stderr, flush=True)
    return scenarios.run(name)


def _write(outcomes: list[Outcome], around: Surroundings, directory: Path, *, stem: str) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    numbers = as_json(outcomes)
    (directory / f"{stem}.json").write_text(json.dumps(numbers, indent=2) + "\n")
    drawn = plots.draw(numbers, directory) if stem == "latest" else []
    page = render_page(outcomes, around, plots=drawn)
    (directory / f"{stem}.md").write_text(page)
    print(f"Written to {os.path.relpath(directory)}", file=sys.stderr)
    return page


if __name__ == "__main__":
    sys.exit(main())
