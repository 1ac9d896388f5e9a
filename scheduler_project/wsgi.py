"""The WSGI entry point, e.g. ``gunicorn scheduler_project.wsgi``."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")

application = get_wsgi_application()

from schedules import convergence  # noqa: E402 - the app registry must be complete first

convergence.announce_temporal()
