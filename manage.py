#!/usr/bin/env python
"""Django's command line, e.g. ``python manage.py migrate``.

Where DATABASE_URL is not set, the embedded PostgreSQL under var/ runs for as long as the command does.
"""

from __future__ import annotations

import contextlib
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

    with _database():
        execute_from_command_line(sys.argv)


def _database() -> contextlib.AbstractContextManager[object]:
    command = sys.argv[1] if len(sys.argv) > 1 else "help"
    if os.environ.get("DATABASE_URL") or command in WITHOUT_DATABASE:
        return contextlib.nullcontext()
    from scheduler_project import embedded

    return embedded.running_postgres(embedded.POSTGRES_DIRECTORY)


if __name__ == "__main__":
    main()
