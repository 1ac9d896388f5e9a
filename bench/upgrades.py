"""What an upgrade costs: one install with fifty schedules, and many installs by the bulk command."""

from __future__ import annotations

import contextlib
import io
import statistics
import time
import uuid
from typing import Any, Final

from bench import stage
from bench.report import Figure, Spread
from bench.sizes import SIZES

SCHEDULES: Final = 50
ONE_INSTALL_MS: Final = 100.0
BULK_PER_SECOND: Final = 2000.0
STATEMENTS: Final = 12.0
ABOUT: Final = f"""
One install with {SCHEDULES} schedules goes to another version and back, by the service that the API calls; then
`manage.py upgrade_installs` takes {SIZES.upgraded_installs} installs with {SCHEDULES} schedules each, every one in a
transaction of its own, with an audit row for each schedule. PostgreSQL is a throw-away server with its usual
durability. No call to Temporal is among it, because none is made: mirrors carry ids only.
"""


def run() -> list[Figure]:
    """Measure both."""
    with stage.database_alone():
        world = _publish()
        _install(world, SIZES.upgraded_installs)
        times, statements = _one(world)
        rates = _bulk(world)
    one, bulk = f"an install with {SCHEDULES} schedules", f"{SIZES.upgraded_installs} installs by the command"
    wanted = "at most 1 is wanted"
    spread = Spread(min(times), max(times))
    rate = statistics.median(rates)
    return [
        Figure(one, "an upgrade", statistics.median(times), ONE_INSTALL_MS, "ms", wanted, spread=spread),
        Figure(one, "statements", statements, STATEMENTS, "SQL", wanted),
        Figure(
            bulk,
            "schedules per second",
            rate,
            BULK_PER_SECOND,
            "schedules/s",
            "at least 1 is wanted",
            spread=Spread(min(rates), max(rates)),
        ),
    ]


def _publish() -> dict[str, Any]:
    from schedules import audit, installs

    actor = audit.Actor(audit.Source.SYSTEM, "bench")
    registry_id = uuid.uuid4()
    installs.put_extension(registry_id=registry_id, publisher=f"bench-{registry_id}", name="x", actor=actor)
    endpoints = [{"method": "POST", "path": f"/api/{number}", "handler": "main"} for number in range(SCHEDULES)]
    for version in ("1", "2"):
        installs.put_version(
            registry_id=registry_id,
            version=version,
            version_id=None,
            content_hash=version * 64,
            manifest={"api": {"endpoints": endpoints}},
            actor=actor,
        )
    return {"registry_id": registry_id, "actor": actor}


def _install(world: dict[str, Any], count: int) -> None:
    """So many tenants with the extension, and its schedules as if they were in sync."""
    from schedules import installs
    from schedules.models import ApiEndpoint, Schedule

    endpoints = list(ApiEndpoint.objects.filter(version__extension_id=world["registry_id"], version__version="1"))
    state = installs.InstallState("1", is_enabled=True, config={}, granted_caps=[], secret_envelope=None)
    for number in range(count):
        tenant_id = uuid.uuid4()
        installs.put_tenant(tenant_id=tenant_id, name=f"t{number}", timezone="UTC", actor=world["actor"])
        install = installs.put_install(
            tenant_id=tenant_id, registry_id=world["registry_id"], state=state, actor=world["actor"]
        )
        Schedule.objects.bulk_create(stage.synced_schedule(install, endpoint) for endpoint in endpoints)
        world["install"] = install


def _one(world: dict[str, Any]) -> tuple[list[float], float]:
    """Milliseconds of each of several upgrades there and back, and how many statements one takes."""
    from django.db import connection

    from schedules import upgrades

    install, times, counted = world["install"], [], 0

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001 - Django's
        nonlocal counted
        counted += 1
        return execute(sql, params, many, context)

    for number in range(2 * SIZES.rounds + 2):
        counted = 0
        with connection.execute_wrapper(count):
            began = time.perf_counter()
            upgrades.upgrade(
                tenant_id=install.tenant_id,
                install_id=install.id,
                version="21"[number % 2],
                options=upgrades.Options(),
                actor=world["actor"],
            )
            times.append((time.perf_counter() - began) * 1000)
    return times[2:], float(counted)


def _bulk(world: dict[str, Any]) -> list[float]:
    from django.core.management import call_command

    rates = []
    for number in range(SIZES.rounds):
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            call_command("upgrade_installs", str(world["registry_id"]), "21"[number % 2])
        rates.append(SIZES.upgraded_installs * SCHEDULES / (time.perf_counter() - began))
    return rates
