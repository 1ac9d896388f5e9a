"""Tenants that are deleted while a service is away, and deletions that are interrupted."""

import pytest

from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def rows_of(platform):
    """Every row of every table that names the tenant, but for what the platform remembers of the deletion."""
    tables = platform.execute(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'tenant_id'"
    )
    found = {}
    for table, column in [("schedules_tenant", "id"), *((name, "tenant_id") for (name,) in tables)]:
        ((number,),) = platform.execute(f"SELECT count(*) FROM {table} WHERE {column} = %s", [platform.tenant_id])
        if number:
            found[table] = number
    return found


def test_a_tenant_that_is_deleted_while_temporal_is_away_leaves_no_row_and_no_mirror(platform):
    platform.start_worker()
    for number in range(200):
        platform.create(name=str(number))
    platform.assert_equal()
    platform.run_now(platform.create(name="runs"))
    platform.stop_temporal()

    platform.registry("DELETE", f"tenants/{platform.tenant_id}", None)
    platform.registry("DELETE", f"tenants/{platform.tenant_id}", None)

    assert rows_of(platform) == {"schedules_mirrorremoval": 201}
    platform.start_temporal()
    eventually(lambda: rows_of(platform) == {}, seconds=100)
    platform.assert_equal()
    assert platform.mirrors() == {}
