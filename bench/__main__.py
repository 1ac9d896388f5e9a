"""``make bench``: run every scenario and print one table of ratios."""

from __future__ import annotations

import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from multiprocessing import get_context

from bench import control_plane, cron_meaning, million_runs, run_path, waiting_calls
from bench.report import Figure, render_table

SCENARIOS = {
    "cron meaning": cron_meaning.run,
    "run path": run_path.run,
    "control plane": control_plane.run,
    "million runs": million_runs.run,
    "waiting calls": waiting_calls.run,
}


def main() -> int:
    """Run the scenarios that the command line names, or all of them."""
    wanted = sys.argv[1:] or list(SCENARIOS)
    if unknown := [name for name in wanted if name not in SCENARIOS]:
        print(f"Unknown scenario {unknown[0]!r}; there are: {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    for name in wanted:
        print(f"Running {name} …", file=sys.stderr, flush=True)
        # A process of its own for each: Django is set up once in a process, and every scenario has its own database.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            figures += process.submit(SCENARIOS[name]).result()
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("django", "temporalio", "psycopg", "httpx"))
    print(f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {packages}\n")
    print(render_table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
