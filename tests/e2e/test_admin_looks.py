"""Every page at both widths, light and dark: no error, no violation of the content policy, no grave fault for axe."""

import re
import uuid

import httpx
import pytest
from django.urls import URLResolver, get_resolver, reverse

from tests.support.stage import furnish

pytestmark = pytest.mark.e2e
LISTS = ("schedule", "schedulerun", "extensioninstall", "notificationchannel", "apikey", "auditevent", "notification")
OPERATORS_LISTS = ("tenant", "tenantmembership", "extension", "extensionversion", "apiendpoint")


@pytest.fixture(scope="module")
def made(stage):
    made = furnish(stage)
    made["run"] = stage.run_to_show(made["heartbeat"])
    stage.publish_next()
    ((made["event"],),) = stage.execute(
        "SELECT max(id) FROM schedules_auditevent WHERE tenant_id = %s", [stage.acme.id]
    )
    made |= rows_of_acme(stage, made["heartbeat"])
    return made


def rows_of_acme(stage, schedule_id):
    """The ids of one row of each kind that has a stock page, some of them made here."""
    tenant = [stage.acme.id]
    found = {}
    for name, query, values in (
        (
            "notificationchannel",
            """
            INSERT INTO schedules_notificationchannel (id, tenant_id, kind, target, secret, events, is_active)
            VALUES (gen_random_uuid(), %s, 'email', 'team@example.com', '', '["failure"]', true) RETURNING id
            """,
            tenant,
        ),
        (
            "notification",
            """
            INSERT INTO schedules_notification (id, tenant_id, channel_id, event, schedule_id, body, next_attempt_at)
            SELECT gen_random_uuid(), tenant_id, id, 'failure', %s, '{}', NULL FROM schedules_notificationchannel
            WHERE tenant_id = %s RETURNING id
            """,
            [schedule_id, *tenant],
        ),
        ("apikey", "SELECT id FROM schedules_apikey WHERE tenant_id = %s LIMIT 1", tenant),
        ("tenantmembership", "SELECT id FROM schedules_tenantmembership WHERE tenant_id = %s LIMIT 1", tenant),
        ("extension", "SELECT id FROM schedules_extension WHERE id = %s", [stage.acme.registry_id]),
        ("extensionversion", "SELECT version_id FROM schedules_extensioninstall WHERE tenant_id = %s LIMIT 1", tenant),
        (
            "apiendpoint",
            """
            SELECT id FROM schedules_apiendpoint
            WHERE version_id IN (SELECT version_id FROM schedules_extensioninstall WHERE tenant_id = %s) LIMIT 1
            """,
            tenant,
        ),
    ):
        ((found[name],),) = stage.execute(query, values)
    return found


def addresses(stage, made):
    base = "/admin/schedules"
    schedule, held = f"{base}/schedule/{made['heartbeat']}", f"{base}/schedule/{made['held']}"
    install = f"{base}/extensioninstall/{stage.install_id}"
    return [
        "/admin/",
        *(f"{base}/{name}/" for name in LISTS),
        f"{base}/schedule/?attention=failing",
        f"{base}/schedule/?q=nothing-fits",
        f"{base}/schedule/add/",
        f"{schedule}/",
        f"{schedule}/change/",
        f"{schedule}/delete/",
        f"{schedule}/backfill/",
        f"{base}/schedule/{made['paused']}/",
        f"{held}/",
        f"{held}/lift-hold/",
        f"{base}/schedulerun/{made['run']}/change/",
        f"{install}/change/",
        f"{install}/act/disable/",
        f"{install}/act/uninstall/",
        f"{install}/upgrade/",
        f"{install}/upgrade/?version=2.0.0",
        f"{base}/notificationchannel/add/",
        f"{base}/notificationchannel/{made['notificationchannel']}/change/",
        f"{base}/notificationchannel/{made['notificationchannel']}/delete/",
        f"{base}/notificationchannel/{made['notificationchannel']}/history/",
        f"{base}/notification/{made['notification']}/change/",
        f"{base}/apikey/add/",
        f"{base}/apikey/{made['apikey']}/change/",
        f"{base}/tenant/{stage.acme.id}/change/",
        f"{base}/apiendpoint/{made['apiendpoint']}/change/",
        f"{schedule}/history/",
        f"{base}/auditevent/{made['event']}/change/",
        "/admin/password_change/",
    ]


@pytest.mark.timeout(600)  # axe takes a second for each of some forty pages
@pytest.mark.parametrize(("narrow", "look"), [(False, "light"), (True, "dark")], ids=["wide-light", "narrow-dark"])
def test_every_page_of_an_administrator(stage, visit, made, narrow, look):
    visitor = visit("anna", narrow=narrow)
    visitor.page.emulate_media(color_scheme=look, reduced_motion="reduce")
    for address in addresses(stage, made):
        visitor.open(address).note()
    assert not visitor.faults, "\n".join(visitor.faults)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("narrow", [False, True], ids=["wide", "narrow"])
def test_every_page_of_an_operator(stage, visit, made, narrow):
    visitor = visit("olga", narrow=narrow)
    visitor.page.emulate_media(color_scheme="dark" if narrow else "light", reduced_motion="reduce")
    lists = [f"/admin/schedules/{name}/" for name in OPERATORS_LISTS]
    member = f"/admin/schedules/tenantmembership/{made['tenantmembership']}"
    ((user,),) = stage.execute("SELECT id FROM auth_user WHERE username = 'vera'")
    for address in (
        "/admin/",
        "/admin/operations/",
        "/admin/operations/kill-switch/?scope=tenant",
        f"/admin/operations/kill-switch/?scope=tenant&target={stage.acme.id}",
        "/admin/operations/kill-switch/?scope=version",
        "/admin/operations/kill-switch/?scope=platform",
        "/admin/load/",
        "/admin/auth/user/",
        "/admin/auth/user/add/",
        f"/admin/auth/user/{user}/change/",
        f"/admin/auth/user/{user}/delete/",
        f"/admin/auth/user/{user}/history/",
        f"/admin/schedules/tenantmembership/add/?user={user}",
        *(f"/admin/schedules/{name}/{made[name]}/change/" for name in ("extension", "extensionversion", "apiendpoint")),
        *(f"{member}/{do}/" for do in ("change", "delete", "history")),
        *lists,
    ):
        visitor.open(address).note()
    assert not visitor.faults, "\n".join(visitor.faults)
    visitor.open("/admin/load/")
    assert re.search("acme.scheduler-demo, Acme|borealis.scheduler-demo, Borealis", visitor.text)
    visitor.open("/admin/operations/")
    assert "Nightly clean-up" in visitor.text


def test_an_api_key_is_shown_in_the_answer_and_nowhere_else(stage, visit):
    visitor = visit("anna", "/admin/schedules/apikey/add/")
    page = visitor.page
    page.get_by_label("Name:", exact=True).fill("For the backup")
    page.get_by_role("button", name="Save").click()
    secret = page.locator("#secret")
    secret.wait_for()
    visitor.look()
    text = secret.inner_text()
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name=re.compile("Copied|Selected")).wait_for()
    assert not any(text in cookie["value"] for cookie in page.context.cookies())
    page.reload()
    page.get_by_text("was made when the form was sent first").wait_for()
    assert text not in visitor.text
    assert stage.execute("SELECT count(*) FROM schedules_apikey WHERE name = 'For the backup'") == [(1,)]

    page.get_by_role("row", name=re.compile("For the backup")).get_by_role("checkbox").check()
    page.get_by_label("Action:").select_option("revoke")
    page.get_by_role("button", name="Go").click()
    page.get_by_role("button", name="Revoke").wait_for()
    visitor.look()
    page.get_by_role("button", name="Revoke").click()
    page.get_by_text("is revoked").wait_for()


def test_a_page_that_is_not_there_and_one_that_is_not_theirs_look_the_same(stage, visit, made):
    theirs = visit("anna", f"/admin/schedules/schedule/{made['theirs']}/", expect=404).look().text
    nobodys = visit("anna", f"/admin/schedules/schedule/{uuid.uuid4()}/", expect=404).text
    assert theirs == nobodys
    assert "There is nothing here" in theirs
    visit("anna", "/admin/operations/", expect=403).look()
    visit("anna", "/admin/operations/kill-switch/?scope=platform", expect=403)


def test_the_menu_of_a_narrow_screen_opens_by_keyboard(visit):
    page = visit("anna", narrow=True).page
    link = page.get_by_role("link", name="Extensions")
    assert not link.is_visible()
    page.get_by_role("button", name="Menu").focus()
    page.keyboard.press("Enter")
    assert link.is_visible()
    assert page.get_by_role("button", name="Menu").get_attribute("aria-expanded") == "true"


def test_the_colours_are_chosen_and_kept(visit):
    page = visit("anna").page
    page.emulate_media(color_scheme="light")
    seen = set()
    for _ in range(3):
        page.get_by_role("button", name="Colours").click()
        seen.add(
            page.evaluate("[document.documentElement.dataset.theme, getComputedStyle(document.body).color].join()")
        )
    assert {colours.split(",")[0] for colours in seen} == {"auto", "light", "dark"}
    assert len({colours.split(",", 1)[1] for colours in seen}) == 2
    while page.evaluate("document.documentElement.dataset.theme") != "auto":
        page.get_by_role("button", name="Colours").click()


def test_what_has_the_focus_can_be_seen(visit, made):
    page = visit("anna", f"/admin/schedules/schedule/{made['heartbeat']}/").page
    seen = set()
    for _ in range(18):
        page.keyboard.press("Tab")
        outline = page.evaluate(
            "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
        )
        seen.add(outline[0])
        assert outline[1] != "none", page.evaluate("document.activeElement.outerHTML")
    assert {"A", "BUTTON"} <= seen


def test_somebody_without_a_tenant_is_told_so(stage, visit):
    stage.add_user("nils")
    visitor = visit("nils").look()
    assert "not a member of any tenant" in visitor.text


def admin_addresses(stage, made):
    """Every address of the admin that names something of Acme's."""
    values = {
        "schedule": made["heartbeat"],
        "schedulerun": made["run"],
        "extensioninstall": stage.install_id,
        "tenant": stage.acme.id,
        "auditevent": made["event"],
    }
    extra = {"schedule_id": made["heartbeat"], "run_id": made["run"], "install_id": stage.install_id, "do": "uninstall"}
    extra |= {"event_id": made["event"]}
    for entry in walk(get_resolver()):
        name = entry.name or ""
        model = name.split("_")[1] if name.startswith("schedules_") else ""
        arguments = {
            argument: values.get(model) if argument == "object_id" else extra.get(argument)
            for argument in entry.pattern.converters
        }
        if arguments and all(arguments.values()):
            yield reverse(f"admin:{name}", kwargs=arguments)


def walk(resolver, inside=False):
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            yield from walk(entry, inside or entry.namespace == "admin")
        elif inside:
            yield entry


def test_another_tenants_administrator_opens_none_of_the_addresses(stage, visit, made):
    """By GET and by POST with a form's token, each is answered as if there were nothing."""
    context = visit("boris").page.context
    cookies = {cookie["name"]: cookie["value"] for cookie in context.cookies()}
    before = stage.execute("SELECT count(*), sum(revision) FROM schedules_schedule")
    found = list(admin_addresses(stage, made))
    assert len(found) > 12
    with httpx.Client(base_url=stage.url, cookies=cookies, headers={"x-csrftoken": cookies["csrftoken"]}) as client:
        for address in found:
            for answer in (
                client.get(address),
                client.post(address, data={"confirmed": "yes", "post": "yes", "do": "run_now"}),
            ):
                assert answer.status_code in {302, 403, 404, 405}, (address, answer.status_code)
                if answer.status_code == 302:
                    # Django sends on from an object that it does not show, to the home page or along.
                    assert re.search(r"^/admin/($|schedules/\w+/[0-9a-f-]+/change/$)", answer.headers["location"])
        seen = client.get(f"/admin/schedules/schedule/preview/?install={stage.install_id}&cron=0+4+*+*+*")
        assert seen.status_code == 404
    assert stage.execute("SELECT count(*), sum(revision) FROM schedules_schedule") == before
    text = visit("boris", "/admin/schedules/schedule/").text + visit("boris").text
    assert "Heartbeat" not in text
    assert "Northern lights" in text


def test_a_wrong_csrf_token_changes_nothing(stage, visit, made):
    cookies = {cookie["name"]: cookie["value"] for cookie in visit("anna").page.context.cookies()}
    with httpx.Client(base_url=stage.url, cookies=cookies) as client:
        answer = client.post(f"/admin/schedules/schedule/{made['heartbeat']}/act/", data={"do": "disable"})
    assert answer.status_code == 403
    assert "Nothing was changed" in answer.text
    assert stage.row(made["heartbeat"], "enabled") is True


def test_the_pages_send_a_policy_without_inline_code(stage):
    policy = httpx.get(f"{stage.url}/admin/login/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
