"""``python -m worker``: one worker process."""

from __future__ import annotations

import os

import django


def main() -> None:
    """Set Django up, then work."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
    django.setup()
    from worker import process  # needs the app registry

    process.main()


if __name__ == "__main__":
    main()
