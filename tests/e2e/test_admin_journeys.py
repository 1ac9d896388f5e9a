"""What administrators do in the browser, step by step, on real services: each page on the way is looked at with axe."""

import json
import re
import uuid

import pytest

from tests.support import browsing
from tests.support.expressions import DAILY
from tests.support.stage import BROKEN, HEARTBEAT
from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e
SCHEDULES = "/admin/schedules/schedule/"


def unique(name):
    return f"{name} {uuid.uuid4().hex[:8]}"


def page_of(schedule_id):
    return f"{SCHEDULES}{schedule_id}/"


def choose_endpoint(page, text):
    page.get_by_role("combobox", name="Endpoint").fill(text)
    page.get_by_role("option", name=text).click()


def id_of(page):
    return re.search(r"schedule/([0-9a-f-]{36})/$", page.url).group(1)


def test_a_schedule_is_made_with_a_preview_and_wrong_input_is_told_at_its_field(stage, visit):
    name = unique("Made by hand")
    visitor = visit("anna", f"{SCHEDULES}add/").look()
    page = visitor.page

    # The endpoints that cannot be scheduled are there, with the reason, and cannot be chosen.
    page.get_by_role("combobox", name="Endpoint").fill("setup")
    refused = page.get_by_role("option", name="POST /api/setup")
    assert "manifest says" in refused.inner_text()
    assert refused.get_attribute("aria-disabled") == "true"
    # Nothing around the list cuts it off.
    assert refused.evaluate(
        """item => {
            const box = item.getBoundingClientRect();
            return item.contains(document.elementFromPoint(box.left + box.width / 2, box.bottom - 3));
        }"""
    )
    visitor.look()
    # By keyboard alone.
    page.get_by_role("combobox", name="Endpoint").fill("heart")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.get_by_role("combobox", name="Endpoint").input_value() == f"POST {HEARTBEAT}"
    page.get_by_label("Name:", exact=True).fill(name)

    preview = page.get_by_label("Preview")
    cron = page.get_by_label("Cron:")
    cron.fill("99 * * * *")
    preview.get_by_text("minute").first.wait_for()
    cron.fill("30 2 * * *")
    preview.get_by_text("At 02:30").wait_for()
    assert preview.locator("ol.slots li").count() == 5
    assert "02:30" in preview.locator("ol.slots").inner_text()
    # The tenant's zone is the default, and its clock changes touch 2:30.
    preview.get_by_text("Europe/Berlin skips").wait_for()
    page.get_by_label("Time zone:").fill("Asia/Kolkata")
    preview.get_by_text("in Asia/Kolkata").wait_for()
    assert preview.get_by_text("skips").count() == 0
    page.get_by_label("Payload:").fill('{"source": ')
    page.get_by_text("Not valid JSON yet").wait_for()
    visitor.look()

    cron.fill("* * * * *")
    page.get_by_role("button", name="Create schedule").click()
    visitor.look()
    assert "Cron too frequent" in page.locator(".field-cron").inner_text() or "valid JSON" in visitor.text
    page.get_by_label("Payload:").fill('{"source": "browser"}')
    page.get_by_role("button", name="Create schedule").click()
    assert "Cron too frequent" in page.locator(".field-cron").inner_text()
    assert stage.execute("SELECT count(*) FROM schedules_schedule WHERE name = %s", [name]) == [(0,)]

    cron.fill("30 2 * * *")
    page.get_by_role("button", name="Create schedule").click()
    page.get_by_role("heading", name=name, level=1).wait_for()
    visitor.look()
    row = stage.row(id_of(page), "cron, timezone, endpoint_path, payload, enabled")
    assert row == ("30 2 * * *", "Asia/Kolkata", HEARTBEAT, {"source": "browser"}, True)


def test_two_who_edit_at_once_see_both_versions(stage, visit):
    schedule_id = stage.schedule(name=unique("Contested"), cron=DAILY)
    anna = visit("anna", f"{page_of(schedule_id)}change/")
    arno = visit("arno", f"{page_of(schedule_id)}change/")
    anna.page.get_by_label("Cron:").fill("0 5 * * *")
    anna.page.get_by_role("button", name="Save changes").click()
    anna.page.get_by_role("heading", name="Configuration").wait_for()

    arno.page.get_by_label("Cron:").fill("0 6 * * *")
    arno.page.get_by_role("button", name="Save changes").click()
    versions = arno.page.get_by_role("region", name="Both versions")
    versions.wait_for()
    assert versions.get_by_role("row", name=re.compile("Cron")).locator("td").all_inner_texts() == [
        "0 6 * * *",
        "0 5 * * *",
    ]
    arno.look()
    # Enter asks once more, and does not save over anything.
    with arno.page.expect_navigation():
        arno.page.get_by_label("Cron:").press("Enter")
    arno.page.get_by_text("Saved by anna").wait_for()
    assert stage.row(schedule_id, "cron") == "0 5 * * *"

    arno.page.get_by_role("button", name="Save mine over it").click()
    arno.page.get_by_role("heading", name="Configuration").wait_for()
    assert stage.row(schedule_id, "cron, revision") == ("0 6 * * *", 3)


def test_a_run_now_is_followed_to_its_end_and_repeated(stage, visit):
    schedule_id = stage.schedule(name=unique("Run me"), payload={"greeting": "O'Hara"})
    visitor = visit("anna", page_of(schedule_id))
    visitor.page.get_by_role("button", name="Run now").click()
    visitor.page.get_by_role("heading", name=re.compile("^Run ")).wait_for()
    result = visitor.page.locator("#live-run .result")
    result.get_by_text("Succeeded").wait_for(timeout=30_000)
    visitor.page.locator("[data-live-active]").wait_for(state="detached")
    visitor.look()

    visitor.page.get_by_text("As a curl command").click()
    command = visitor.page.locator("#curl").inner_text()
    assert "x-idempotency-key" in command
    assert "<left out>" in command
    assert "kept-from-every-page" not in visitor.page.content()
    assert visitor.page.get_by_role("link", name=re.compile("extsched:")).get_attribute("href").startswith("http")
    first = visitor.page.url
    visitor.page.get_by_role("button", name="Run again").click()
    visitor.page.get_by_text("This is the new run").wait_for()
    assert visitor.page.url != first
    eventually(lambda: stage.statuses(schedule_id) == ["succeeded", "succeeded"])
    visitor.open(page_of(schedule_id)).look()
    visitor.page.get_by_role("button", name=re.compile("^Run again")).first.click()
    visitor.page.get_by_text("This is the new run").wait_for()
    eventually(lambda: stage.statuses(schedule_id) == ["succeeded"] * 3)


def test_schedules_are_disabled_enabled_run_and_deleted_in_the_list_and_on_their_page(stage, visit):
    mark = uuid.uuid4().hex[:8]
    ids = [stage.schedule(name=f"Bulk {number} {mark}") for number in (1, 2)]
    visitor = visit("anna", f"{SCHEDULES}?q={mark}").look()
    page = visitor.page

    def act(what):
        page.get_by_role("checkbox", name=re.compile("select all", re.IGNORECASE)).check()
        page.get_by_label("Action:").select_option(what)
        page.get_by_role("button", name="Go").click()

    act("Disable")
    page.get_by_text("2 schedules disabled").wait_for()
    assert [stage.row(one, "enabled") for one in ids] == [False, False]
    act("Run now")
    page.get_by_text("2 schedules asked to run").wait_for()
    eventually(lambda: [stage.statuses(one) for one in ids] == [["succeeded"]] * 2)
    act("Delete")
    page.get_by_role("heading", name="Delete for good?").wait_for()
    visitor.look()
    page.get_by_role("link", name="Leave it as it is").click()
    assert stage.row(ids[0], "enabled") is False

    visitor.open(page_of(ids[0]))
    page.get_by_role("button", name="Enable").click()
    page.get_by_text("is enabled").wait_for()
    assert stage.row(ids[0], "enabled") is True
    page.get_by_role("link", name="Delete").click()
    page.get_by_text("cannot be undone").wait_for()
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("was deleted").wait_for()
    assert stage.row(ids[0], "enabled") is None
    visitor.open(f"{SCHEDULES}?q={mark}")
    act("Delete")
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("1 schedule deleted").wait_for()
    page.get_by_text("No schedule fits").wait_for()
    visitor.look()


def test_a_schedule_that_fails_is_paused_and_stands_on_the_home_page(stage, visit):
    name = unique("Fails")
    schedule_id = stage.schedule(name=name, endpoint=f"POST {BROKEN}")
    stage.set(schedule_id, "pause_after_failures = 2")
    visitor = visit("anna", page_of(schedule_id))
    for count in (1, 2):
        visitor.page.get_by_role("button", name="Run now").click()
        visitor.page.locator("#live-run").get_by_text("Failed").first.wait_for(timeout=30_000)
        eventually(lambda count=count: stage.statuses(schedule_id) == ["failed"] * count)
        visitor.open(page_of(schedule_id))
    eventually(lambda: stage.row(schedule_id, "enabled") is False)

    visitor.open(page_of(schedule_id)).look()
    assert "Auto-paused: paused after 2 runs in a row failed" in visitor.text
    assert "404" in visitor.page.locator("#last-error").inner_text()
    visitor.open("/admin/").look()
    assert name in visitor.page.get_by_role("listitem").filter(has_text="Auto-paused").first.inner_text()
    visitor.page.get_by_role("link", name="Auto-paused").click()
    visitor.page.get_by_role("heading", name="Schedules", level=1).wait_for()
    visitor.page.get_by_role("link", name=name).wait_for()


def test_an_operators_hold_is_shown_kept_by_edits_and_lifted_after_a_question(stage, visit):
    schedule_id = stage.schedule(name=unique("Held"))
    mirror = f"extsched:{stage.install_id}:{schedule_id}"
    stage.cli("schedule", "toggle", "--pause", "--reason", "Storage is being moved", "--schedule-id", mirror)
    stage.manage("reconcile", check=False)
    visitor = visit("anna", page_of(schedule_id)).look()
    assert "Storage is being moved" in visitor.text
    assert "Slots are missed until the hold is lifted" in visitor.text

    visitor.page.get_by_role("link", name="Edit").click()
    visitor.page.get_by_text("the hold stays").wait_for()
    visitor.page.get_by_label("Cron:").fill("10 5 * * *")
    visitor.page.get_by_role("button", name="Save changes").click()
    visitor.page.get_by_role("heading", name="Configuration").wait_for()
    assert stage.row(schedule_id, "cron, held_note") == ("10 5 * * *", "Storage is being moved")

    visitor.page.get_by_role("link", name="Lift the hold…").click()
    visitor.page.get_by_role("heading", name="Lift the operator's hold?").wait_for()
    visitor.look()
    assert stage.row(schedule_id, "held_since") is not None
    visitor.page.get_by_role("button", name="Lift the hold").click()
    visitor.page.get_by_text("The hold is lifted").wait_for()
    eventually(lambda: stage.row(schedule_id, "held_since IS NULL AND synced_generation = generation"))


def test_a_past_range_is_run_once_more_after_a_preview(stage, visit):
    schedule_id = stage.schedule(name=unique("Backfilled"), cron="0 */6 * * *", timezone="UTC", enabled=False)
    visitor = visit("anna", f"{page_of(schedule_id)}backfill/").look()
    page = visitor.page
    page.get_by_label("From:").fill("2026-01-01T00:00")
    page.get_by_label("Until, not included:").fill("2025-12-01T00:00")
    page.get_by_role("button", name="Preview").click()
    page.get_by_text("must lie before the end").wait_for()
    page.get_by_label("Until, not included:").fill("2026-01-02T06:00")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("heading", name="5 slots would run").wait_for()
    page.get_by_label("Until, not included:").fill("2026-01-02T00:00")
    page.get_by_label("Until, not included:").press("Enter")
    page.get_by_role("heading", name="4 slots would run").wait_for()
    visitor.look()
    assert stage.statuses(schedule_id) == []
    page.get_by_role("button", name="Run 4 slots").click()
    page.get_by_text("4 runs queued").wait_for()
    eventually(lambda: stage.statuses(schedule_id) == ["succeeded"] * 4)
    page.locator("[data-live-active]").wait_for(state="detached")
    assert page.locator("#runs tbody tr").count() == 4


def test_an_extension_is_disabled_enabled_and_uninstalled_with_what_happens_spelled_out(stage, visit):
    registry_id, install_id = str(uuid.uuid4()), str(uuid.uuid4())
    stage.install(stage.acme, "acme", f"extra-{uuid.uuid4().hex[:6]}", registry_id=registry_id, install_id=install_id)
    address = f"/admin/schedules/extensioninstall/{install_id}/change/"
    visitor = visit("anna", address).look()
    page = visitor.page
    assert "kept-from-every-page" not in page.content()
    page.get_by_role("link", name="Disable…").first.click()
    page.get_by_text("enabled schedules stop").wait_for()
    visitor.look()
    page.get_by_role("button", name="Disable").click()
    page.get_by_text("Disabled: nothing of it runs").wait_for()
    page.get_by_role("link", name="Enable…").click()
    page.get_by_role("button", name="Enable").click()
    page.get_by_role("link", name="Disable…").wait_for()
    page.get_by_role("link", name="Uninstall…").click()
    page.get_by_role("button", name="Uninstall").click()
    page.get_by_text("is uninstalled").wait_for()
    found = stage.execute("SELECT count(*) FROM schedules_extensioninstall WHERE id = %s", [install_id])
    assert found == [(0,)]


def test_a_viewer_sees_no_button_that_would_be_refused(stage, visit):
    schedule_id = stage.schedule(name=unique("Only to look at"))
    for address in (
        "/admin/",
        SCHEDULES,
        page_of(schedule_id),
        f"/admin/schedules/extensioninstall/{stage.install_id}/change/",
    ):
        visitor = visit("vera", address).look()
        shown = visitor.page.locator("#content-start").get_by_role("button").all_inner_texts()
        assert not {"Run now", "Disable", "Enable", "Go", "Cancel", "Cancel…", "Run again"} & set(shown), address
        links = visitor.page.locator("#content-start a").evaluate_all("links => links.map(link => link.href)")
        for link in links:
            assert not re.search(r"/(add|delete|backfill|lift-hold|act|upgrade)/", link), (address, link)
    visitor = visit("vera", f"{page_of(schedule_id)}change/").look()
    assert visitor.page.get_by_role("button", name="Save changes").count() == 0
    for address in ("delete/", "backfill/", "lift-hold/"):
        visit("vera", f"{page_of(schedule_id)}{address}", expect=403)


def test_a_login_is_closed_for_a_while_after_wrong_passwords(stage, visit):
    name = unique("locked").replace(" ", "-")
    stage.add_user(name, stage.acme, "viewer")
    page = visit(None, "/admin/login/").look().page
    for _ in range(5):
        browsing.sign_in(page, stage, name, "not the password")
    assert page.get_by_text("Too many attempts").first.is_visible()
    browsing.sign_in(page, stage, name)
    assert page.get_by_text("Too many attempts").first.is_visible()
    # Nobody else is locked out.
    assert "Needs attention" in visit("anna").text


def test_times_are_in_the_readers_zone_with_utc_in_the_hint(stage, visit):
    schedule_id = stage.schedule(name=unique("Tokyo"), cron="0 3 * * *", timezone="UTC")
    slot = visit("anna", page_of(schedule_id)).page.locator("ol.slots time").first
    assert slot.get_attribute("title").endswith("03:00:00 UTC")
    assert slot.inner_text().endswith("12:00")


def test_the_page_of_the_api_works_under_a_policy_of_its_own(stage, visit):
    visitor = visit("anna", "/api/docs/")
    visitor.page.get_by_text("Extension scheduler").first.wait_for()
    visitor.page.locator(".opblock").first.wait_for()
    assert not visitor.faults, visitor.faults
    policies = {path: stage.get(path).headers["content-security-policy"] for path in ("/api/docs/", "/admin/login/")}
    assert "unsafe-inline" in policies["/api/docs/"]
    assert "unsafe" not in policies["/admin/login/"]
    assert json.dumps(policies).count("unsafe-eval") == 0
