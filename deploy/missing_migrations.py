"""``python -m deploy.missing_migrations``: fail if the models have changed and no migration says so.

``makemigrations --check`` also looks into the database, and without one it warns and waits; this needs none.
"""

from __future__ import annotations

import os
import sys

import django


def main() -> int:
    """Return 1 and name what is missing, or 0."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
    django.setup()
    from django.apps import apps
    from django.db.migrations.autodetector import MigrationAutodetector
    from django.db.migrations.loader import MigrationLoader
    from django.db.migrations.state import ProjectState

    loader = MigrationLoader(None)
    autodetector = MigrationAutodetector(loader.project_state(), ProjectState.from_apps(apps))
    changes = autodetector.changes(graph=loader.graph)
    for label, migrations in changes.items():
        for migration in migrations:
            for operation in migration.operations:
                print(f"{label}: {operation.describe()}", file=sys.stderr)
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
