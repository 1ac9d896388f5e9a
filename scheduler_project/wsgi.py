"""The WSGI entry point, e.g. ``gunicorn scheduler_project.wsgi``."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")

import django  # the settings must be named first

django.setup()

from django.conf import settings  # noqa: E402

from scheduler_project.bodies import ReadsBodies  # noqa: E402
from schedules import background, tracing  # noqa: E402 - the app registry must be complete first

tracing.configure(service="extension-scheduler-web")
tracing.instrument_web()
application = ReadsBodies(get_wsgi_application(), max_bytes=settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
background.announce_temporal()
