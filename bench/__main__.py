"""``make bench``: run every scenario and hand on what they measured.

A whole call writes docs/benchmarks/latest.* and the README's table, and one of a scenario that it leaves out a page of
that one's name, so that the committed figures are always those of one call. One with ``QUICK=1``, or of other scenarios
that its command line names, or one whose sizes are not the full ones, as of a slow engine, or in which a scenario
failed, writes to var/benchmarks/ instead. There is also what a call has measured until it is interrupted.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from bench import plots, probe, scenarios, sizes, summary, surroundings
from bench.report import Outcome, Surroundings, as_json, render_page, slug
from scheduler_project import embedded

COMMITTED_DIRECTORY: Final = embedded.PROJECT_ROOT / "docs" / "benchmarks"
QUICK_AT_ONCE: Final = 3
OTHER_DIRECTORY: Final = embedded.VAR_DIRECTORY / "benchmarks"


def main() -> int:
    """Run the scenarios that the command line names, or all of them; 1 if any has no figures."""
    wanted = list(dict.fromkeys(sys.argv[1:])) or list(scenarios.SCENARIOS)
    known = scenarios.SCENARIOS | scenarios.ON_DEMAND
    if unknown := [name for name in wanted if name not in known]:
        print(f"Unknown scenario {unknown[0]!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end_scenarios)
    if not sizes.is_quick() and not sizes.is_share_known():
        _begin_anew_with_share()
    stem = slug(wanted[0]) if len(wanted) == 1 and wanted[0] in scenarios.ON_DEMAND else "latest"
    is_whole = (not sys.argv[1:] or stem != "latest") and not sizes.is_quick() and sizes.share() == 1
    around = surroundings.look_around()
    outcomes: list[Outcome] = []
    for outcome in _outcomes(wanted):
        outcomes.append(outcome)
        # Should the rest not come, this is there.
        _write(outcomes, around, OTHER_DIRECTORY, stem=stem, with_plots=False)
    has_failed = any(outcome.failure for outcome in outcomes)
    directory = COMMITTED_DIRECTORY if is_whole and not has_failed else OTHER_DIRECTORY
    print(_write(outcomes, around, directory, stem=stem))
    print(f"Written to {os.path.relpath(directory)}", file=sys.stderr)
    if directory == COMMITTED_DIRECTORY and stem == "latest":
        summary.write()
    for outcome in outcomes:
        print(f"{outcome.name}: {outcome.failure or f'{outcome.seconds:.0f} s'}", file=sys.stderr)
    return 1 if has_failed else 0


def _begin_anew_with_share() -> NoReturn:
    """Become a call that knows how much of the full sizes it takes, which all of its modules read once."""
    environment = dict(os.environ)
    rate = probe.runs_per_second()
    share = probe.share_for(rate)
    print(f"The engine brings {rate:.0f} runs a second: {share:g} of the full sizes", file=sys.stderr, flush=True)
    environment[sizes.SHARE_VARIABLE] = f"{share:g}"
    os.execve(sys.executable, [sys.executable, "-m", "bench", *sys.argv[1:]], environment)  # noqa: S606 - none is needed


def _end_scenarios(number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does, which reaches the scenarios' processes by itself."""
    for scenario in multiprocessing.active_children():
        scenario.terminate()
    raise SystemExit(128 + number)


def _outcomes(wanted: list[str]) -> Iterator[Outcome]:
    """What comes of the scenarios, each once it is there and in their order."""
    batches = scenarios.batches(wanted, apart=sizes.is_quick())
    if not sizes.is_quick():
        # In this thread, so that a signal ends the call and not one scenario.
        for batch in batches:
            yield from _run(batch)
        return
    # Small sizes compare nothing, so their scenarios may stand in each other's way.
    threads = ThreadPoolExecutor(QUICK_AT_ONCE)
    try:
        for found in threads.map(lambda batch: list(_run(batch)), batches):
            yield from found
    finally:
        # What has not begun when a signal ends the call is not to begin.
        threads.shutdown(cancel_futures=True)


def _run(names: list[str]) -> Iterator[Outcome]:
    print(f"Running {', '.join(names)} …", file=sys.stderr, flush=True)
    return scenarios.run(names)


def _write(
    outcomes: list[Outcome], around: Surroundings, directory: Path, *, stem: str, with_plots: bool = True
) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    numbers = as_json(outcomes)
    (directory / f"{stem}.json").write_text(json.dumps(numbers, indent=2) + "\n")
    drawn = plots.draw(numbers, directory, stem=stem) if with_plots else []
    page = render_page(outcomes, around, plots=drawn)
    (directory / f"{stem}.md").write_text(page)
    return page


if __name__ == "__main__":
    sys.exit(main())
