"""A worker or a web app as it would be without one of the things that make it faster.

``python -m bench.untuned <without what> worker`` or ``… gunicorn <its arguments>``; the names are those of `WITHOUT`.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from typing import Any, Final, cast


def _without_prepared_statements() -> None:
    from schedules import prepared

    cast("Any", prepared).PREPARED_AFTER = None


def _with_sandbox() -> None:
    import temporalio.worker
    from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

    # Whoever imports it from here on, which the worker does once Django is set up.
    cast("Any", temporalio.worker).UnsandboxedWorkflowRunner = SandboxedWorkflowRunner


def _without_sniffio() -> None:
    # An import of it fails from here on, as where it is not installed; the HTTP client then looks for its event loop.
    cast("Any", sys.modules)["sniffio"] = None


def _without_patience() -> None:
    from schedules import background

    cast("Any", background).CALLERS_FIRST_SECONDS = 0.0


def _without_pool() -> None:
    from scheduler_project import settings

    del settings.DATABASES["default"]["OPTIONS"]["pool"]


WITHOUT: Final[dict[str, Callable[[], None]]] = {
    "prepared-statements": _without_prepared_statements,
    "no-sandbox": _with_sandbox,
    "sniffio": _without_sniffio,
    "patience": _without_patience,
    "pool": _without_pool,
}


def main() -> None:
    """Take it away, and become the program."""
    _, without, program, *arguments = sys.argv
    WITHOUT[without]()
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
