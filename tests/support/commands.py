"""Our commands, called in the test's own process."""

import io

from django.core.management import call_command

from tests.support.waiting import eventually

# What the command says where it has compared nothing, as somebody else was at it.
SOMEBODY_ELSE_COMPARES = "Somebody else compares"


def reconcile():
    """The exit status, and what was said, once nobody else compares: a test's own worker does so each quarter."""

    def alone():
        out, status = io.StringIO(), 0
        try:
            call_command("reconcile", stdout=out, stderr=out)
        except SystemExit as exit_:
            status = exit_.code
        return SOMEBODY_ELSE_COMPARES not in out.getvalue() and (status, out.getvalue())

    return eventually(alone)
