"""Django's settings for the Celery side. No pages, no users: beat's tables and the table of results."""

from __future__ import annotations

import os
from typing import Any

SECRET_KEY = "throw-away"  # noqa: S105 - nothing is signed with it
INSTALLED_APPS = ["django_celery_beat", "bench.celery_side"]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["CELERY_SIDE_DATABASE"],
        "HOST": os.environ["CELERY_SIDE_HOST"],
        "USER": "postgres",
        # Celery gives a connection back after each task; without a pool that would be a new one for each run.
        "OPTIONS": {"pool": {"min_size": 0, "max_size": 16, "timeout": 30}},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
DJANGO_CELERY_BEAT_TZ_AWARE = True

CELERY_BROKER_URL = os.environ["CELERY_SIDE_BROKER"]
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": int(os.environ["CELERY_SIDE_VISIBILITY_SECONDS"]),
    # With a gevent pool the worker looks for abandoned tasks only where its wait of 2 s brings nothing at all. By
    # default a blocking pop ends each second, and they would never come back; with this it ends when a task comes, and
    # there is no pause between two waits.
    "polling_interval": 0,
    # Look then at each such turn, and not at every tenth.
    "unacked_restore_throttle": 1,
    # One that dies while it looks keeps every other from looking for this long.
    "unacked_mutex_expire": 10,
    # Each task acknowledges over a connection of its own. With the usual ten, a burst now and then finds none, and the
    # worker loses its connection with all that it had.
    "max_connections": 1000,
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# As many as send at the same time.
CELERY_BROKER_POOL_LIMIT = 32
CELERY_TIMEZONE = "UTC"
CELERY_ENABLE_UTC = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
# Each send is written down at once, or a beat that dies sends again whatever it sent in the last three minutes.
CELERY_BEAT_SYNC_EVERY = 1
