"""Who runs a command, for the audit trail."""

from __future__ import annotations

import getpass
import os

from schedules import audit


def operator() -> audit.Actor:
    """The user of the operating system, by name where there is one: a container's may be a mere number."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    return audit.Actor(audit.Source.COMMAND, name)
