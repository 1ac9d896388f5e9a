"""Reads an extension's manifest: which endpoints it declares, and which of them a schedule may call.

Pure: no database. A malformed member is skipped and reported, never fatal, because a manifest is written by a third
party and one bad line must not take the others with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from schedules.models import MAX_PATH_LENGTH, HttpMethod

SCHEDULABLE_METHODS: Final = frozenset({HttpMethod.GET, HttpMethod.POST})
MAX_ENDPOINTS: Final = 1000
_MAX_CAPABILITIES: Final = 200


@dataclass(frozen=True, slots=True)
class DeclaredEndpoint:
    """One endpoint of a manifest, normalised. ``unschedulable_reason`` is empty where a schedule may call it."""

    method: str
    path: str
    handler: str
    unschedulable_reason: str

    @property
    def schedulable(self) -> bool:
        """Whether a schedule may call it."""
        return not self.unschedulable_reason


@dataclass(frozen=True, slots=True)
class SkippedMember:
    """A member of ``api.endpoints`` that was left out. ``index`` counts from 0."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReadManifest:
    """What a manifest says that matters here."""

    endpoints: tuple[DeclaredEndpoint, ...]
    skipped: tuple[SkippedMember, ...]
    capabilities: tuple[str, ...]


def read_manifest(manifest: Mapping[str, Any]) -> ReadManifest:
    """Return the endpoints and capabilities of a manifest; never raises for what the manifest holds."""
    api = manifest.get("api")
    members = api.get("endpoints") if isinstance(api, Mapping) else None
    found: dict[tuple[str, str], DeclaredEndpoint] = {}
    skipped: list[SkippedMember] = []
    if api is not None and not isinstance(api, Mapping):
        skipped.append(SkippedMember(0, "api is not an object"))
    if members is not None and not isinstance(members, list):
        skipped.append(SkippedMember(0, "api.endpoints is not a list"))
        members = None
    for index, member in enumerate(members or []):
        if index >= MAX_ENDPOINTS:
            skipped.append(SkippedMember(index, f"only the first {MAX_ENDPOINTS} endpoints are taken"))
            break
        try:
            endpoint = _read_endpoint(member)
        except ValueError as error:
            skipped.append(SkippedMember(index, str(error)))
            continue
        # The first declaration counts: a duplicate must not turn an endpoint unschedulable behind its back.
        found.setdefault((endpoint.method, endpoint.path), endpoint)
    return ReadManifest(
        tuple(found.values()),
        tuple(skipped),
        normalise_capabilities(manifest.get("capabilities")),
    )


def normalise_method(method: str) -> str:
    """The method in upper case; raises ValueError for one that is not an HTTP method we know."""
    upper = method.strip().upper()
    if upper not in HttpMethod.values:
        raise ValueError(f"method {method[:20]!r} is not one of {', '.join(HttpMethod.values)}")
    return upper


def normalise_path(path: str) -> str:
    """The path with exactly one leading slash and no repeated ones; raises ValueError for an unusable one.

    A trailing slash is kept, because ``/a`` and ``/a/`` are different resources (RFC 3986, section 6.2.3). A query
    or fragment has no place in an endpoint's path.
    """
    folded = re.sub(r"/{2,}", "/", "/" + path.strip())
    if len(folded) > MAX_PATH_LENGTH:
        raise ValueError(f"path is longer than {MAX_PATH_LENGTH} characters")
    if re.search(r"[\s?#\x00-\x1f\x7f\ud800-\udfff]", folded):
        raise ValueError("path has a blank, a control character, ? or #")
    if any(segment in {".", ".."} for segment in folded.split("/")):
        raise ValueError("path has a . or .. segment")
    return folded


def path_matches(declared: str, path: str) -> bool:
    """Whether a concrete path is one of a declared path, whose segments ``:name`` and ``{name}`` stand for anything."""
    parameter = re.compile(r":[^/]+|\{[^/{}]+\}")
    segments = ["[^/]+" if parameter.fullmatch(part) else re.escape(part) for part in declared.split("/")]
    return re.fullmatch("/".join(segments), path) is not None


def normalise_capabilities(capabilities: object) -> tuple[str, ...]:
    """Capability names trimmed, lower-cased, distinct and sorted; anything that is not a name is left out."""
    if not isinstance(capabilities, Sequence) or isinstance(capabilities, str):
        return ()
    names = {name.strip().lower() for name in capabilities[:_MAX_CAPABILITIES] if isinstance(name, str)}
    return tuple(sorted(name for name in names if name and "\x00" not in name))


def _read_endpoint(member: object) -> DeclaredEndpoint:
    if not isinstance(member, Mapping):
        raise ValueError("not an object")
    method, path = member.get("method"), member.get("path")
    if not isinstance(method, str) or not method.strip():
        raise ValueError("method is missing or not a text")
    if not isinstance(path, str) or not path.strip():
        raise ValueError("path is missing or not a text")
    flag = member.get("schedulable", True)
    if not isinstance(flag, bool):
        raise ValueError("schedulable is not true or false")
    handler = member.get("handler", "")
    if not isinstance(handler, str) or len(handler) > MAX_PATH_LENGTH or "\x00" in handler:
        raise ValueError("handler is not a usable text")
    method, path = normalise_method(method), normalise_path(path)
    return DeclaredEndpoint(method, path, handler, _unschedulable_reason(method, path, flagged=flag))


def _unschedulable_reason(method: str, path: str, *, flagged: bool) -> str:
    if not flagged:
        return "the manifest says that it is not schedulable"
    if method not in SCHEDULABLE_METHODS:
        return f"only GET and POST can be scheduled, not {method}"
    if re.search(r"[:{}]", path):
        return "the path has a parameter"
    return ""
