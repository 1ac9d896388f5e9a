#!/usr/bin/env python
"""Django's command line, e.g. ``python manage.py migrate``.

Where DATABASE_URL is not set, the embedded PostgreSQL under var/ runs for as long as the command does.
"""

from __future__ import annotations

import os
import sys

# These commands read no table, so they do not start a server for it.
WITHOUT_DATABASE = frozenset(
    {
        "check",
        "makemigrations",
        "help",
        "version",
        "--version",
        "--help",
        "-h",
        "collectstatic",
    }
)


def main() -> None:
    """Run one management command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
    from django.core.management import execute_from_command_line

    from scheduler_project import embedded

    status: object = None
    try:
        with embedded.database_if_none_is_given(needed=_command() not in WITHOUT_DATABASE):
            execute_from_command_line(sys.argv)
    except embedded.EmbeddedPartMissing as error:
        sys.exit(f"Configuration error: {error}")
    except SystemExit as exit_:
        if isinstance(exit_.code, str):
            raise
        status = exit_.code
    _leave(int(str(status or 0)))


def _command() -> str:
    return sys.argv[1] if len(sys.argv) > 1 else "help"


def _leave(status: int) -> None:
    """Exit; at once where the process has used Temporal, whose native threads can abort an interpreter's end."""
    temporal = sys.modules.get("schedules.temporal_bridge")
    if temporal is not None and temporal.was_used():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
