"""Looks at mirrors as Temporal holds them: one, many at once, or all that carry a deployment's mark.

What a mirror says is compared by a digest of its normalised spec, policy and action, because the engine gives back
other shapes than it was sent, and a hand edit keeps the stamps that would tell it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleCalendarSpec,
    ScheduleDescription,
    ScheduleListDescription,
    ScheduleRange,
)
from temporalio.common import SearchAttributeKey, TypedSearchAttributes
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from schedules.temporal_bridge import CALL_TIMEOUT, RPC_TIMEOUT, is_missing, run
from workflows import names

log = structlog.get_logger(__name__)

PAGE_SIZE: Final = 200
# How many mirrors are asked for at once: a busy server answers each of so few in time.
AT_ONCE: Final = 10
# What a server may take for each of many before the whole is given up.
LOOK_TIMEOUT: Final = timedelta(seconds=0.2)
# What the engine writes where none is given.
DEFAULT_TASK_TIMEOUT: Final = timedelta(seconds=10)
_FIELDS: Final = ("second", "minute", "hour", "day_of_month", "month", "year", "day_of_week")


@dataclass(frozen=True, slots=True)
class SeenMirror:
    """One mirror: what it says, whether it is paused and why, which generation it shows and whose it is.

    ``names`` is what operators find it by. A mirror that cannot be read, as a hand edit can make it, has no digest.
    """

    digest: str
    names: dict[str, str]
    paused: bool
    note: str
    generation: str
    deployment: str


def describe_many(mirrors: Sequence[tuple[UUID, UUID]]) -> list[SeenMirror | Exception | None]:
    """What Temporal holds for each (install id, schedule id), in order; None where it holds nothing.

    One that cannot be asked for is its error. Raises DependencyUnavailable or MirrorRefused where that goes for all.
    """

    async def all_of_them(client: Client) -> list[SeenMirror | Exception | None]:
        ids = [names.mirror_id(install_id=install_id, schedule_id=schedule_id) for install_id, schedule_id in mirrors]
        answers: list[SeenMirror | Exception | None] = []
        for first in range(0, len(ids), AT_ONCE):
            looks = (_see(client, mirror_id) for mirror_id in ids[first : first + AT_ONCE])
            for answer in await asyncio.gather(*looks, return_exceptions=True):
                if isinstance(answer, BaseException) and not isinstance(answer, Exception):
                    raise answer
                answers.append(answer)
            if isinstance(answers[0], Exception) and all(isinstance(answer, Exception) for answer in answers):
                raise answers[0]
        return answers

    return run(all_of_them, timeout=CALL_TIMEOUT + len(mirrors) * LOOK_TIMEOUT)


def describe_by_id(mirror_id: str) -> SeenMirror | None:
    """What Temporal holds under an id, or None. Raises DependencyUnavailable."""
    return run(lambda client: _see(client, mirror_id))


def list_marked(*, deployment: UUID, page: bytes | None = None) -> tuple[list[str], bytes | None]:
    """A page of the ids of all mirrors that carry the mark, and where the next page begins, None after the last.

    What it shows lags behind writes by a moment. Raises DependencyUnavailable.
    """
    query = f'{names.DEPLOYMENT.name} = "{deployment}"'
    entries, following = run(lambda client: _list(client, query, page))
    return [entry.id for entry in entries], following


def list_paused(*, deployment: UUID, page: bytes | None = None) -> tuple[dict[str, str], bytes | None]:
    """A page of the paused mirrors that carry the mark, with their notes; the rest is as in `list_marked`."""
    query = f'{names.DEPLOYMENT.name} = "{deployment}" AND TemporalSchedulePaused = true'
    entries, following = run(lambda client: _list(client, query, page))
    return {entry.id: _note(entry.schedule.state.note if entry.schedule else None) for entry in entries}, following


def digest_of(schedule: Schedule) -> str:
    """A digest of what a schedule says: when, under which policy, and what is started. Pause and note are not in it."""
    action = schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    spec, policy = schedule.spec, schedule.policy
    content = {
        "calendars": sorted(_calendar(calendar) for calendar in spec.calendars),
        "intervals": [[str(interval.every), str(interval.offset or timedelta())] for interval in spec.intervals],
        "cron": list(spec.cron_expressions),
        "skip": sorted(_calendar(calendar) for calendar in spec.skip),
        "zone": spec.time_zone_name or "UTC",
        "bounds": [str(spec.start_at), str(spec.end_at), str(spec.jitter or timedelta())],
        "policy": [int(policy.overlap), str(policy.catchup_window), policy.pause_on_failure],
        "limited": schedule.state.limited_actions,
        "action": [action.workflow, action.id, action.task_queue, [_argument(argument) for argument in action.args]],
        "limits": [
            str(limit or timedelta())
            for limit in (action.execution_timeout, action.run_timeout, action.task_timeout or DEFAULT_TASK_TIMEOUT)
        ],
        "attributes": sorted([pair.key.name, str(pair.value)] for pair in action.typed_search_attributes),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _calendar(calendar: ScheduleCalendarSpec) -> list[Any]:
    return [[_range(piece) for piece in getattr(calendar, name)] for name in _FIELDS] + [calendar.comment or ""]


def _range(piece: ScheduleRange) -> list[int]:
    return [piece.start, max(piece.start, piece.end), piece.step or 1]


def _argument(argument: Any) -> Any:
    """An argument of the workflow as JSON, whether it is still ours or came back as it went."""
    payload = argument
    if not isinstance(argument, Payload):
        (payload,) = DataConverter.default.payload_converter.to_payloads([argument])
    try:
        return json.loads(payload.data)
    except ValueError:
        return payload.data.hex()


async def _list(client: Client, query: str, page: bytes | None) -> tuple[list[ScheduleListDescription], bytes | None]:
    found = await client.list_schedules(query, page_size=PAGE_SIZE, next_page_token=page, rpc_timeout=RPC_TIMEOUT)
    try:
        await found.fetch_next_page()
    except RPCError as error:
        if error.status != RPCStatusCode.INVALID_ARGUMENT:
            raise
        return [], None  # a namespace that has never seen our attribute holds no mirror with it
    entries = [entry for entry in found.current_page or [] if entry.id.startswith(names.MIRROR_PREFIX)]
    return entries, found.next_page_token or None


async def _see(client: Client, mirror_id: str) -> SeenMirror | None:
    try:
        found: ScheduleDescription = await client.get_schedule_handle(mirror_id).describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if not is_missing(error):
            raise
        return None
    attributes = found.typed_search_attributes
    return SeenMirror(
        digest=_digest(found),
        names={key.name: _text(attributes, key) for key in names.RUN_ATTRIBUTES},
        paused=found.schedule.state.paused,
        note=_note(found.schedule.state.note),
        generation=_text(attributes, names.GENERATION),
        deployment=_text(attributes, names.DEPLOYMENT),
    )


def _digest(found: ScheduleDescription) -> str:
    """The digest of what was found, and an empty one, which differs from every row's, of what cannot be read."""
    try:
        return digest_of(found.schedule)
    except Exception:
        log.exception("mirror.unreadable", mirror_id=found.id)
        return ""


def _note(note: str | None) -> str:
    """A note as a row can keep it: PostgreSQL's text takes no NUL."""
    return (note or "").replace("\x00", "")


def _text(attributes: TypedSearchAttributes, key: SearchAttributeKey[str]) -> str:
    value = attributes.get(key)
    return value if isinstance(value, str) else ""
