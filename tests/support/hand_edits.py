"""What people do to Temporal Schedules by hand."""

import uuid
from datetime import timedelta

from temporalio.client import Client, ScheduleIntervalSpec, ScheduleSpec, ScheduleUpdate
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode


async def make(address, schedule_id, what):
    """Make the edit, by its name below; one of a schedule that is not there is fine."""
    client = await Client.connect(address)
    try:
        await EDITS[what](client, client.get_schedule_handle(schedule_id))
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise


async def delete(_client, handle):
    await handle.delete()


async def pause(_client, handle):
    await handle.pause(note="by hand")


async def unpause(_client, handle):
    await handle.unpause()


async def duplicate(client, handle):
    seen = await handle.describe()
    copy = f"{handle.id}-{uuid.uuid4()}"
    await client.create_schedule(copy, seen.schedule, search_attributes=seen.typed_search_attributes)


async def edit(_client, handle):
    """Another time than the row's."""

    def spoil(update):
        schedule = update.description.schedule
        schedule.spec = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(days=300))])
        return ScheduleUpdate(schedule=schedule)

    await handle.update(spoil)


async def limit(_client, handle):
    """A limit on what it starts."""

    def shorten(update):
        update.description.schedule.action.run_timeout = timedelta(seconds=1)
        return ScheduleUpdate(schedule=update.description.schedule)

    await handle.update(shorten)


async def fire_once(_client, handle):
    """As somebody does who wants it to fire once more and then no more."""

    def count_down(update):
        state = update.description.schedule.state
        state.limited_actions, state.remaining_actions = True, 1
        return ScheduleUpdate(schedule=update.description.schedule)

    await handle.update(count_down)


async def rename(_client, handle):
    """As if it were another tenant's."""
    key = SearchAttributeKey.for_keyword("TenantId")

    def change(update):
        kept = [pair for pair in update.description.typed_search_attributes if pair.key.name != key.name]
        # What the engine itself puts there cannot be given.
        kept = [pair for pair in kept if not pair.key.name.startswith("Temporal")]
        attributes = TypedSearchAttributes([*kept, SearchAttributePair(key, str(uuid.uuid4()))])
        return ScheduleUpdate(schedule=update.description.schedule, search_attributes=attributes)

    await handle.update(change)


EDITS = {each.__name__: each for each in (delete, pause, unpause, duplicate, edit, limit, fire_once, rename)}
