"""What the pages' script does: a form is sent once, JSON keeps its values, pages follow along, long names fit."""

import re
import uuid

import pytest

from tests.support.waiting import eventually

pytestmark = pytest.mark.e2e
SCHEDULES = "/admin/schedules/schedule/"


def unique(name):
    return f"{name} {uuid.uuid4().hex[:8]}"


def fill_in(page, name):
    page.get_by_role("combobox", name="Endpoint").fill("heart")
    page.get_by_label("Name:", exact=True).fill(name)
    page.get_by_label("Cron:").fill("30 2 * * *")


def test_a_double_click_sends_a_form_once(stage, visit):
    name = unique("Clicked twice")
    page = visit("anna", f"{SCHEDULES}add/").page
    # What is typed means the only endpoint that it fits, once the field is left.
    fill_in(page, name)
    assert page.get_by_role("combobox", name="Endpoint").input_value() == "POST /api/heartbeat"
    # A part of a zone will do, in the preview as well.
    page.get_by_label("Time zone:").fill("kolkata")
    page.get_by_label("Preview").get_by_text("in Asia/Kolkata").wait_for()
    sent = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)

    page.get_by_role("button", name="Create schedule").dblclick()

    page.get_by_role("heading", name=name, level=1).wait_for()
    assert len(sent) == 1
    assert stage.execute("SELECT timezone FROM schedules_schedule WHERE name = %s", [name]) == [("Asia/Kolkata",)]


def test_json_is_formatted_without_a_change_of_its_values(visit):
    page = visit("anna", f"{SCHEDULES}add/").page
    area = page.get_by_label("Payload:")
    area.fill(r'{"n":12345678901234567890,"n":1.0,"far":1e400,"text":"{\"a\":[1,2]}","none":[],"deep":[{}, null]}')
    page.get_by_role("button", name="Format").click()
    assert area.input_value().splitlines() == [
        "{",
        '  "n": 12345678901234567890,',
        '  "n": 1.0,',
        '  "far": 1e400,',
        r'  "text": "{\"a\":[1,2]}",',
        '  "none": [],',
        '  "deep": [',
        "    {},",
        "    null",
        "  ]",
        "}",
    ]


def test_who_is_signed_out_while_a_form_is_open_is_told_so(stage, visit):
    name = unique("leaver").replace(" ", "-")
    stage.add_user(name, stage.acme, "administrator")
    page = visit(name, f"{SCHEDULES}add/").page
    fill_in(page, "Half way")
    page.get_by_label("Preview").get_by_text("At 02:30").wait_for()
    page.context.clear_cookies()
    page.get_by_label("Cron:").fill("30 3 * * *")
    page.get_by_label("Preview").get_by_text("You are signed out. Sign in in another tab, then go on here.").wait_for()


def test_a_page_follows_along_and_leaves_the_reader_in_peace(stage, visit):
    schedule_id = stage.schedule(name=unique("Watched"))
    stage.past_runs(schedule_id, count=3, every_minutes=60)
    # A change that nobody pushes.
    stage.set(schedule_id, "generation = generation + 1, push_after = now() + interval '1 hour'")
    page = visit("anna", f"{SCHEDULES}{schedule_id}/").page
    configuration = page.locator("#live-configuration")
    configuration.get_by_text("Pending").wait_for()
    page.get_by_label("Trigger").select_option("replay")
    page.evaluate("document.getElementById('live-runs').firstElementChild.dataset.mark = 'as it was'")
    again = page.get_by_role("button", name=re.compile("^Run again")).first
    again.focus()

    stage.set(schedule_id, "generation = generation - 1, push_after = NULL, enabled = false")

    configuration.get_by_text("Synced").wait_for()
    page.get_by_role("button", name="Enable").wait_for()
    page.locator("[data-live-active]").wait_for(state="detached")
    # What did not change is the same as before, with the focus in it and what was chosen.
    assert page.locator("[data-mark]").count() == 1
    assert again.evaluate("button => button === document.activeElement")
    assert page.get_by_label("Trigger").input_value() == "replay"
    stage.set(schedule_id, "enabled = true")


def test_the_focus_stays_where_a_part_is_replaced(stage, visit):
    schedule_id = stage.schedule(name=unique("Focused"))
    stage.past_runs(schedule_id, count=2, every_minutes=60)
    stage.set(schedule_id, "generation = generation + 1, push_after = now() + interval '1 hour'")
    page = visit("anna", f"{SCHEDULES}{schedule_id}/").page
    page.get_by_role("link", name="Edit").focus()
    page.evaluate("document.getElementById('live-buttons').dataset.mark = 'gone'")
    stage.set(schedule_id, "generation = generation - 1, push_after = NULL, enabled = false")
    page.locator("[data-mark]").wait_for(state="detached")
    assert page.evaluate("document.activeElement.textContent") == "Edit"
    stage.set(schedule_id, "enabled = true")


@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
def test_long_names_fit_and_the_filters_stand_above_a_narrow_list(stage, visit, narrow):
    name = f"{uuid.uuid4().hex}{'x' * 90}"
    schedule_id = stage.schedule(name=name, expect_sync=False)
    stage.past_runs(schedule_id, count=40, every_minutes=30, failing_each=3)
    page = f"{SCHEDULES}{schedule_id}/"
    visitor = visit("anna", "/admin/", narrow=narrow)
    for address in (page, f"{page}change/", f"{page}backfill/", f"{page}delete/", f"{SCHEDULES}?q={name[:30]}"):
        visitor.open(address).note()
    assert not visitor.faults, "\n".join(visitor.faults)
    # The list comes last. Its columns are wide enough for words.
    filters, rows = (visitor.page.locator(one).bounding_box() for one in ("#changelist-filter", "#result_list"))
    if narrow:
        assert filters["y"] + filters["height"] <= rows["y"]
        assert visitor.page.locator("#changelist-filter details[open]").count() == 0
        visitor.open(page)
        frame = visitor.page.locator("#live-chart .chart-frame")
        assert frame.evaluate(
            "frame => frame.scrollLeft > 0 && frame.scrollLeft + frame.clientWidth >= frame.scrollWidth - 1"
        )
    # A bar leads to its run.
    visitor.open(page)
    visitor.page.locator("#live-chart a").last.click()
    visitor.page.get_by_role("heading", name=re.compile("^Run ")).wait_for()
    eventually(lambda: stage.row(schedule_id, "synced_generation = generation"))
