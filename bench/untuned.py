"""A worker or a web app as it would be without one of the things that make it faster.

``python -m bench.untuned <without what> worker`` or ``… gunicorn <its arguments>``; the names are those of `WITHOUT`.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final, cast


def _without_prepared_statements() -> None:
    from schedules import prepared

    cast("Any", prepared).PREPARED_AFTER = None


def _with_sandbox() -> None:
    import temporalio.worker
    from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

    # Whoever imports it from here on, which the worker does once Django is set up.
    cast("Any", temporalio.worker).UnsandboxedWorkflowRunner = SandboxedWorkflowRunner


class _Missing(MetaPathFinder):
    """Finds that a module is not there, after looking everywhere, which is what that takes."""

    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raise ModuleNotFoundError for the module, and leave the others to the other finders."""
        if fullname != self._module:
            return None
        PathFinder.find_spec(f"{fullname}_that_is_not_there", path, target)
        raise ModuleNotFoundError(name=fullname)


def _without_sniffio() -> None:
    sys.meta_path.insert(0, _Missing("sniffio"))


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
