"""Time zones as people type them: a part of the name will do where it means one zone."""

from __future__ import annotations

from typing import Final

from django.core.exceptions import ValidationError

from schedules import cron

_NAMED: Final = 5


def complete(text: str) -> str:
    """The zone's name for a part of it, whatever the case.

    A text that fits no zone comes back as it is, for the rules of zones to refuse. Raises ValidationError, with the
    candidates, where it fits several.
    """
    wanted = "_".join(text.split()).casefold()
    names = cron.zone_names()
    if not wanted or text in names:
        return text
    # A whole name goes before a whole last part, as Berlin is of Europe/Berlin, and that before any other part.
    found = (
        [name for name in names if name.casefold() == wanted]
        or [name for name in names if name.casefold().endswith(f"/{wanted}")]
        or [name for name in names if wanted in name.casefold()]
    )
    if len(found) > 1:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise ValidationError(f"Several zones fit: {', '.join(found[:_NAMED])}{more}. Type more of the name.")
    return found[0] if found else text
