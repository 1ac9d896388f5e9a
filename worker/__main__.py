"""``python -m worker``: one worker process."""

from __future__ import annotations

import os
import sys

import django

from scheduler_project import embedded


def main() -> None:
    """Set Django up, work until a signal, and leave; never returns."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
    try:
        with embedded.database_if_none_is_given():
            django.setup()
            from worker import process  # needs the app registry

            status = process.main()
    except embedded.EmbeddedPartMissing as error:
        sys.exit(f"Configuration error: {error}")
    sys.stdout.flush()
    sys.stderr.flush()
    # The SDK's native threads can abort the interpreter while it tears down.
    os._exit(status)


if __name__ == "__main__":
    main()
