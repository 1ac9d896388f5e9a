"""What the real engine fires, after the check at the claim, is what `cron.slots` says. No exceptions.

One paused schedule for each distinct set of calendars; the engine lists when it would fire around every clock change
of the next 18 months. ``make time-differential`` does the same for every IANA zone.
"""

import asyncio
import os
import uuid
from datetime import timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.workflowservice.v1 import ListScheduleMatchingTimesRequest
from temporalio.client import Client

from schedules import calendars, cron, system_schedules, temporal
from tests.support.time_cases import EXPRESSIONS, NOW, ZONES, windows

ALL_ZONES = os.environ.get("TIME_DIFFERENTIAL") == "all"
AT_ONCE = 16


def cases():
    """Expression and zone by the calendars they compile to; zones with the same rules share theirs."""
    found = {}
    for zone_name in cron.zone_names() if ALL_ZONES else ZONES:
        zone = cron.parse_zone(zone_name)
        for text in EXPRESSIONS:
            expression = cron.parse(text)
            compiled = calendars.compile_calendars(expression, zone, now=NOW)
            spans = tuple(windows(zone))
            key = (compiled.calendars, spans, expression)
            found.setdefault(key, (zone_name, zone, []))[2].append(zone_name)
    return found


async def listed(client, schedule_id, start, end):
    request = ListScheduleMatchingTimesRequest(namespace=client.namespace, schedule_id=schedule_id)
    # The engine leaves the start itself out.
    request.start_time.FromDatetime((start - timedelta(seconds=1)).replace(tzinfo=None))
    request.end_time.FromDatetime(end.replace(tzinfo=None))
    answer = await client.workflow_service.list_schedule_matching_times(request)
    return [as_datetime(moment) for moment in answer.start_time]


def as_datetime(moment: Timestamp):
    return moment.ToDatetime(tzinfo=NOW.tzinfo)


async def differences(address, found):
    client = await Client.connect(address)
    gate, wrong, compared = asyncio.Semaphore(AT_ONCE), [], 0

    async def check(compiled, spans, expression, zone_name, zone):
        nonlocal compared
        state = temporal.MirrorState(
            tenant_id=uuid.uuid4(),
            install_id=uuid.uuid4(),
            extension_id=uuid.uuid4(),
            schedule_id=uuid.uuid4(),
            cron=expression.text,
            timezone=zone_name,
            calendars=compiled,
            active=False,
            generation=1,
            deployment=uuid.UUID(int=1),
        )
        async with gate:
            handle = await client.create_schedule(state.id, temporal.build_schedule(state))
            try:
                for start, end in spans:
                    fired = [at for at in await listed(client, state.id, start, end) if start <= at < end]
                    claimed = [at for at in fired if cron.is_slot(expression, zone, at)]
                    due = list(cron.slots(expression, zone, start=start, end=end))
                    compared += len(due)
                    if claimed != due:
                        missing, extra = sorted(set(due) - set(claimed)), sorted(set(claimed) - set(due))
                        wrong.append((expression.text, zone_name, start, missing[:3], extra[:3]))
            finally:
                await handle.delete()

    await asyncio.gather(
        *(
            check(compiled, spans, expression, zone_name, zone)
            for (compiled, spans, expression), (zone_name, zone, _) in found.items()
        )
    )
    return wrong, compared


@pytest.mark.timeout(3600)
def test_the_engine_fires_at_the_slots_in_every_zone(temporal_server, temporal_proxy, capsys):
    system_schedules.install()  # registers the search attributes
    found = cases()

    wrong, compared = asyncio.run(differences(temporal_server, found))

    pairs = sum(len(names) for _, _, names in found.values())
    with capsys.disabled():
        print(f"\n{pairs} pairs of expression and zone, {len(found)} distinct, {compared} slots: {len(wrong)} differ")
    assert pairs == len(EXPRESSIONS) * (len(cron.zone_names()) if ALL_ZONES else len(ZONES))
    assert not wrong, wrong[:10]
