"""Where an install's schedules go when it takes another version. Pure: no database, so that a plan can be tried freely.

A schedule keeps calling the method and path that it calls. Where the target version does not offer them any more, the
plan says so and suggests what may be meant instead; who upgrades decides.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from schedules import manifests

# How alike two paths must be for one to be suggested for the other, as `difflib` measures it, from 0 to 1.
NEAR_ENOUGH: Final = 0.6


class Fate(StrEnum):
    """What the target version has for a schedule's endpoint."""

    UNCHANGED = "unchanged"
    # Another handler answers the same method and path, or somebody chose another endpoint.
    REMAPPED = "remapped"
    MISSING = "missing"
    NOT_SCHEDULABLE = "not_schedulable"


class Change(StrEnum):
    """What the upgrade does to the schedule besides pointing it at the target version's endpoint."""

    KEEP = "keep"
    ENABLE = "enable"
    DISABLE = "disable"
    # It was disabled and stays so, and what it called is only remembered.
    DETACH = "detach"
    BLOCK = "block"


class Ground(StrEnum):
    """Why an endpoint is suggested for one that is gone."""

    SAME_HANDLER = "same handler"
    SAME_PATH = "same path with another method"
    NEAR_PATH = "similar path"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of the target version; ``unschedulable_reason`` is empty where a schedule may call it."""

    id: UUID
    method: str
    path: str
    handler: str = ""
    unschedulable_reason: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One schedule as the plan sees it. ``endpoint_id`` is None where it points at nothing since an upgrade.

    ``awaits_return`` says that an upgrade disabled it and that nobody has touched it since.
    """

    id: UUID
    method: str
    path: str
    endpoint_id: UUID | None
    handler: str = ""
    name: str = ""
    enabled: bool = True
    awaits_return: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What may be meant instead of an endpoint that is gone, and on what ground."""

    endpoint: Endpoint
    ground: Ground


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one schedule. ``target`` is what it will call, None where that is nothing."""

    schedule: Scheduled
    fate: Fate
    change: Change
    target: Endpoint | None
    reason: str = ""
    suggestions: tuple[Suggestion, ...] = ()


class RemapInvalidError(ValueError):
    """A remap names something that there is not; the message says what."""


def plan(
    *,
    schedules: Iterable[Scheduled],
    endpoints: Sequence[Endpoint],
    choices: Mapping[UUID, Endpoint] | None = None,
    disable_missing: bool = False,
) -> tuple[Step, ...]:
    """What becomes of each schedule, in the order given.

    ``choices`` says where some of them are to go, whatever they call now; ``disable_missing`` disables those that have
    nowhere to go instead of blocking the upgrade.
    """
    offered = {(endpoint.method, endpoint.path): endpoint for endpoint in endpoints}
    return tuple(
        _step(schedule, offered, endpoints, chosen=(choices or {}).get(schedule.id), disable_missing=disable_missing)
        for schedule in schedules
    )


def read_choices(
    remap: Mapping[str, str],
    *,
    schedules: Sequence[Scheduled],
    endpoints: Sequence[Endpoint],
    ignore_unknown: bool = False,
) -> dict[UUID, Endpoint]:
    """Where each schedule is to go by a remap: ``{"POST /old" or a schedule's id: "POST /new"}``.

    An id goes before an endpoint. Raises RemapInvalidError for a target that is not there or cannot be scheduled, and
    for a schedule that is not there unless ``ignore_unknown``.
    """
    offered = {str(endpoint): endpoint for endpoint in endpoints}
    by_endpoint: dict[str, list[UUID]] = {}
    for schedule in schedules:
        by_endpoint.setdefault(str(schedule), []).append(schedule.id)
    known = {str(schedule.id) for schedule in schedules}
    of_endpoints: dict[UUID, Endpoint] = {}
    of_ids: dict[UUID, Endpoint] = {}
    for source, name in remap.items():
        target = offered.get(_normal(name))
        if target is None:
            raise RemapInvalidError(f'the target version has no {name[:200]}; write "METHOD /path"')
        if target.unschedulable_reason:
            raise RemapInvalidError(f"{target} cannot be scheduled: {target.unschedulable_reason}")
        if source.lower() in known:
            of_ids[UUID(source)] = target
        elif _normal(source) in by_endpoint:
            of_endpoints |= dict.fromkeys(by_endpoint[_normal(source)], target)
        elif not ignore_unknown:
            raise RemapInvalidError(f"no schedule of the install calls, or is, {source[:200]}")
    return of_endpoints | of_ids


def token_of(steps: Iterable[Step], *, facts: Mapping[str, Any]) -> str:
    """A digest of everything that a plan depends on: the steps, and ``facts`` about install and versions."""
    content = {
        "facts": dict(facts),
        "steps": sorted(
            [
                str(step.schedule.id),
                str(step.schedule),
                step.schedule.name,
                step.schedule.enabled,
                step.schedule.awaits_return,
                str(step.schedule.endpoint_id or ""),
                step.schedule.handler,
                step.fate,
                step.change,
                str(step.target.id) if step.target else "",
            ]
            for step in steps
        ),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def count(steps: Iterable[Step]) -> dict[str, int]:
    """How many schedules have each fate, and how many of them are disabled, enabled again, or in the way."""
    steps = list(steps)
    fates, changes = Counter(step.fate for step in steps), Counter(step.change for step in steps)
    counted = {str(fate): fates[fate] for fate in Fate}
    return counted | {
        "disabled": changes[Change.DISABLE],
        "detached": changes[Change.DETACH],
        "enabled": changes[Change.ENABLE],
        "blocking": changes[Change.BLOCK],
    }


def _step(
    schedule: Scheduled,
    offered: Mapping[tuple[str, str], Endpoint],
    endpoints: Sequence[Endpoint],
    *,
    chosen: Endpoint | None,
    disable_missing: bool,
) -> Step:
    found = chosen or offered.get((schedule.method, schedule.path))
    if found is not None and not found.unschedulable_reason:
        same = str(found) == str(schedule) and (found.handler == schedule.handler or schedule.endpoint_id is None)
        change = Change.ENABLE if schedule.awaits_return else Change.KEEP
        return Step(schedule, Fate.UNCHANGED if same else Fate.REMAPPED, change, found)
    if schedule.endpoint_id is None and not schedule.enabled:
        change = Change.KEEP  # it has pointed at nothing since an earlier upgrade, and blocks nobody
    elif not disable_missing:
        change = Change.BLOCK
    else:
        change = Change.DISABLE if schedule.enabled else Change.DETACH
    if found is not None:
        fate, reason = Fate.NOT_SCHEDULABLE, found.unschedulable_reason
    else:
        fate, reason = Fate.MISSING, "the version does not declare it"
    return Step(schedule, fate, change, None, reason, _suggest(schedule, endpoints))


def _suggest(schedule: Scheduled, endpoints: Sequence[Endpoint]) -> tuple[Suggestion, ...]:
    """What may be meant instead: for each ground, the best first, one endpoint.

    One with the same method goes first, then one with the most similar path.
    """
    usable = [endpoint for endpoint in endpoints if not endpoint.unschedulable_reason]
    likeness = {endpoint.id: difflib.SequenceMatcher(None, schedule.path, endpoint.path).ratio() for endpoint in usable}
    # One program behind all endpoints, as most extensions have, says nothing about any of them.
    by_handler = [endpoint for endpoint in usable if schedule.handler and endpoint.handler == schedule.handler]
    grounds = {
        Ground.SAME_HANDLER: by_handler if len(by_handler) == 1 else [],
        Ground.SAME_PATH: [endpoint for endpoint in usable if endpoint.path == schedule.path],
        Ground.NEAR_PATH: [endpoint for endpoint in usable if likeness[endpoint.id] >= NEAR_ENOUGH],
    }
    found: dict[UUID, Suggestion] = {}
    for ground, candidates in grounds.items():
        left = [endpoint for endpoint in candidates if endpoint.id not in found]
        if left:
            best = min(left, key=lambda one: (one.method != schedule.method, -likeness[one.id], str(one)))
            found[best.id] = Suggestion(best, ground)
    return tuple(found.values())


def _normal(text: str) -> str:
    """An endpoint's name as a manifest's reading would write it, or as it is where that cannot be."""
    method, _, path = text.strip().partition(" ")
    try:
        return f"{manifests.normalise_method(method)} {manifests.normalise_path(path)}"
    except ValueError:
        return text.strip()
