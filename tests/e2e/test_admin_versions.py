"""Upgrades and kill switches in the browser, step by step, on real services."""

import re
import uuid
from dataclasses import replace

import pytest

from tests.support.stage import HEARTBEAT, STATUS
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e
TIDY = "/api/tidy-up"


@pytest.fixture
def own_install(stage):
    """An install of Acme's that no other test looks at; its kill switches go with the test."""
    registry_id, install_id = str(uuid.uuid4()), str(uuid.uuid4())
    name = f"versions-{uuid.uuid4().hex[:6]}"
    stage.install(stage.acme, "acme", name, registry_id=registry_id, install_id=install_id)
    stage.publish(registry_id, "2.0.0", [f"POST {HEARTBEAT}/v2", f"POST {TIDY}"], content_hash="b")
    yield Install(stage, registry_id, install_id, f"acme.{name}")
    stage.execute("DELETE FROM schedules_killswitch WHERE target_id = %s", [registry_id])
    # With two extensions, a new schedule begins with the question which one.
    stage.registry("DELETE", f"tenants/{stage.acme.id}/installs/{registry_id}", None)


class Install:
    """What the tests say about the install."""

    def __init__(self, stage, registry_id, install_id, slug):
        self.stage, self.registry_id, self.id, self.slug = stage, registry_id, install_id, slug
        self.page = f"/admin/schedules/extensioninstall/{install_id}/change/"

    def schedule(self, name, endpoint=f"POST {HEARTBEAT}"):
        tenant = replace(self.stage.acme, install_id=self.id)
        return self.stage.schedule(tenant, name=name, endpoint=endpoint)

    def version(self):
        of_install = "SELECT version_id FROM schedules_extensioninstall WHERE id = %s"
        query = f"SELECT version FROM schedules_extensionversion WHERE id = ({of_install})"
        ((version,),) = self.stage.execute(query, [self.id])
        return version


def test_an_upgrade_is_blocked_resolved_applied_and_taken_back(stage, visit, own_install):
    moved = own_install.schedule("Moves on")
    stopped = own_install.schedule("Has no place", endpoint=f"GET {STATUS}")
    visitor = visit("anna", own_install.page)
    page = visitor.page
    page.get_by_role("link", name="Upgrade…").click()
    visitor.look()
    page.get_by_role("link", name="2.0.0").click()
    page.get_by_role("heading", name="Upgrade to 2.0.0").wait_for()
    visitor.look()

    page.get_by_role("button", name="Continue…").click()
    page.get_by_text("2 schedules still need a decision").wait_for()
    assert page.get_by_text("Choose what becomes of it").count() == 2
    visitor.look()
    page.get_by_label("Instead, for Moves on").select_option(f"POST {HEARTBEAT}/v2")
    page.get_by_role("button", name="Continue…").click()
    page.get_by_text("1 schedule still needs a decision").wait_for()
    assert page.get_by_label("Instead, for Moves on").input_value() == f"POST {HEARTBEAT}/v2"
    page.get_by_label("Instead, for Has no place").select_option("disable")
    page.get_by_role("button", name="Continue…").click()
    page.get_by_role("heading", name="Upgrade from 1.0.0 to 2.0.0?").wait_for()
    visitor.look()
    assert f"Moves on calls POST {HEARTBEAT}/v2 from now on" in visitor.text
    page.get_by_role("button", name="Look at the plan again").click()
    page.get_by_role("button", name="Continue…").click()
    assert own_install.version() == "1.0.0"
    page.get_by_role("button", name="Upgrade to 2.0.0").click()
    page.get_by_role("heading", name="from 1.0.0 to 2.0.0").wait_for()
    visitor.look()
    assert own_install.version() == "2.0.0"
    assert stage.row(moved, "enabled, endpoint_path") == (True, f"{HEARTBEAT}/v2")
    assert stage.row(stopped, "enabled, endpoint_path") == (False, STATUS)

    page.get_by_role("link", name="Has no place").click()
    page.get_by_text("version 2.0.0 does not offer its endpoint").wait_for()
    visitor.look()
    page.go_back()
    page.get_by_role("link", name="Back to 1.0.0…").click()
    page.get_by_role("heading", name="Come back enabled").wait_for()
    visitor.look()
    # What moved has nothing by its new name there, and its old one is suggested.
    page.get_by_label("Instead, for Moves on").select_option(f"POST {HEARTBEAT}")
    page.get_by_role("button", name="Continue…").click()
    page.get_by_role("button", name="Go back to 1.0.0").click()
    page.get_by_role("heading", name="Enabled again").wait_for()
    visitor.look()
    assert own_install.version() == "1.0.0"
    assert stage.row(stopped, "enabled") is True
    assert stage.row(moved, "endpoint_path") == HEARTBEAT
    eventually(lambda: stage.row(stopped, "synced_generation = generation"))


def test_a_plan_that_changes_meanwhile_is_shown_anew(stage, visit, own_install):
    own_install.schedule("First")
    visitor = visit("anna", f"/admin/schedules/extensioninstall/{own_install.id}/upgrade/?version=2.0.0")
    page = visitor.page
    page.get_by_label("Instead, for First").select_option(f"POST {TIDY}")
    own_install.schedule("Second")
    page.get_by_role("button", name="Continue…").click()
    page.get_by_text("The plan has changed since it was shown").wait_for()
    visitor.look()
    assert page.get_by_label("Instead, for First").input_value() == f"POST {TIDY}"

    page.get_by_role("button", name="Disable the rest").click()
    assert page.get_by_label("Instead, for First").input_value() == f"POST {TIDY}"
    assert page.get_by_label("Instead, for Second").input_value() == "disable"
    assert own_install.version() == "1.0.0"


def test_an_operator_stops_an_extension_which_is_told_and_released(stage, visit, own_install):
    schedule_id = own_install.schedule("To be stopped")
    operator = visit("olga", "/admin/operations/")
    page = operator.page
    page.get_by_role("link", name="Stop an extension…").click()
    page.get_by_label("Name or id").fill(own_install.slug)
    page.get_by_role("button", name="Search").click()
    operator.look()
    page.get_by_role("link", name=own_install.slug).click()
    page.get_by_text("1 enabled schedule of 1 install in 1 tenant").wait_for()
    operator.look()
    page.get_by_label("Reason").fill("It floods the ledger")
    page.get_by_role("button", name="Stop it").click()
    page.get_by_text(f"Stopped: extension {own_install.slug}").wait_for()
    operator.look()

    schedule = f"/admin/schedules/schedule/{schedule_id}/"
    member = visit("anna", schedule).look()
    assert "It floods the ledger" in member.text
    for name in ("Run now", "Backfill"):
        button = member.page.get_by_role("button", name=name)
        assert button.is_disabled()
        assert button.get_attribute("title") == "An operator has stopped it: It floods the ledger"
    for address in ("/admin/", own_install.page):
        text = member.open(address).look().text
        assert "It floods the ledger" in text
        assert "by olga" not in text
    assert "by olga" in visit("olga", schedule).look().text

    page.get_by_role("link", name=re.compile(f"Release extension {own_install.slug}")).click()
    page.get_by_role("heading", name=re.compile("^Release ")).wait_for()
    operator.look()
    page.get_by_role("button", name="Release").click()
    page.get_by_text(f"Released: extension {own_install.slug}").wait_for()
    assert "It floods the ledger" not in member.open(schedule).text
    member.page.get_by_role("button", name="Run now").click()
    eventually(lambda: stage.statuses(schedule_id) == ["succeeded"])
