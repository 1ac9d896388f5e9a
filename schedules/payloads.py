"""What a payload may be, and how it and times are written down as JSON."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from django.conf import settings

MAX_DEPTH: Final = 100
# An escaped NUL and not an escaped backslash before "u0000": jsonb cannot hold the former.
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_NUL_ESCAPE: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def problem_with_payload(payload: Any) -> str:
    """What is wrong with a payload, or an empty text. None is no payload and fine."""
    if payload is None:
        return ""
    if not isinstance(payload, dict | list):
        return "payload must be a JSON object or array"
    if problem := problem_with_json(payload):
        return f"payload {problem}"
    size, limit = stored_size(payload), int(settings.SCHEDULER_MAX_PAYLOAD_BYTES)
    if size > limit:
        return f"payload is {size} bytes as compact JSON, at most {limit} are allowed"
    return ""


def problem_with_json(value: Any) -> str:
    """Why a decoded JSON value cannot be stored or sent on, or an empty text."""
    if _depth(value) > MAX_DEPTH:
        return f"is nested deeper than {MAX_DEPTH} levels"
    try:
        encoded = encode_payload(value)
    except ValueError:
        return "holds a number or a text that JSON cannot carry"
    if _NUL_ESCAPE.search(encoded):
        return "holds a NUL character, which cannot be stored"
    return ""


def stored_size(payload: Any) -> int:
    """Bytes of a payload as compact JSON once it has been stored: jsonb writes 1e300 as a one with 300 zeros."""
    size, level = len(encode_payload(payload)), [payload]
    while level:
        size += sum(len(f"{Decimal(repr(item)):f}") - len(repr(item)) for item in level if isinstance(item, float))
        level = _children(level)
    return size


def encode_payload(payload: Any) -> bytes:
    """A payload as compact UTF-8 JSON: what is counted against the limit and what the runner is sent."""
    return json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def moment_text(moment: datetime) -> str:
    """A time as RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_moment(text: str) -> datetime | None:
    """The time that a text of RFC 3339, section 5.6, spells, in UTC; None for any other text."""
    if not _MOMENT.fullmatch(text):
        return None  # Python would read much more than that
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _depth(value: Any) -> int:
    """How deep objects and arrays are nested."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = _children(level)
    return depth


def _children(level: list[Any]) -> list[Any]:
    """What the objects and arrays of one level hold."""
    containers = [item for item in level if isinstance(item, dict | list)]
    return [child for item in containers for child in (item.values() if isinstance(item, dict) else item)]
