"""Taking an extension to another version in the browser: who may, what is asked, and what a page costs."""

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from schedules import upgrades
from schedules.errors import RemapFailed
from schedules.models import AuditEvent, ExtensionInstall, Schedule


def declare(*names):
    return [{"method": "POST", "path": name, "handler": "main"} for name in names]


@pytest.fixture
def upgrading(world):
    """Version 2 lacks what one schedule calls, and another one may not call what it does."""
    shut = {"method": "POST", "path": "/shut", "schedulable": False}
    world.publish("1.1.0", endpoints=declare("/kept", "/gone", "/shut"), content_hash="b" * 64)
    world.publish("2.0.0", endpoints=[*declare("/kept", "/gone-2"), shut], content_hash="c" * 64)
    world.put_install(version="1.1.0")
    world.kept, world.gone, world.shut = (
        world.create(name=name, endpoint=f"POST /{name}", sync=False) for name in ("kept", "gone", "shut")
    )
    return world


def address(world, version=""):
    found = reverse("admin:schedules_install_upgrade", args=[world.install_id])
    return f"{found}?version={version}" if version else found


def submit(client, world, version="2.0.0", *, token=None, picks=(), **more):
    if token is None:
        token = token_of(client, world, version)
    chosen = {f"pick-{schedule['id']}": pick for schedule, pick in picks}
    return client.post(address(world, version), {"plan_token": token} | chosen | more)


def token_of(client, world, version="2.0.0"):
    shown = client.get(address(world, version)).content.decode()
    return re.search(r'name="plan_token" value="(\w+)"', shown).group(1)


def version_of(world):
    return ExtensionInstall.objects.select_related("version").get(id=world.install_id).version.version


def state_of(schedule):
    row = Schedule.objects.get(id=schedule["id"])
    return row.enabled, row.endpoint_path


def test_every_other_version_is_offered_the_newest_first(administrator, upgrading):
    shown = administrator.get(address(upgrading)).content.decode()

    assert re.findall(r"<strong>(\d\.\d\.\d)</strong>", shown) == ["2.0.0", "1.0.0"]
    assert shown.count(">Back<") == 1
    assert administrator.get(address(upgrading, "1.1.0")).status_code == 302
    assert "any more" in administrator.get(address(upgrading, "9.9.9%00")).content.decode()


def test_it_is_asked_for_each_that_is_missing_and_then_done_as_chosen(administrator, upgrading):
    asked = submit(administrator, upgrading, picks=[(upgrading.gone, "POST /gone-2")])
    assert "1 schedule still needs a decision" in asked.content.decode()
    assert asked.content.decode().count("Choose what becomes of it") == 1
    assert 'value="POST /gone-2" selected' in asked.content.decode()

    picks = [(upgrading.gone, "POST /gone-2"), (upgrading.shut, "disable")]
    question = submit(administrator, upgrading, picks=picks).content.decode()
    assert "gone calls POST /gone-2 from now on" in question
    assert "shut is disabled" in question
    assert version_of(upgrading) == "1.1.0"

    done = submit(administrator, upgrading, picks=picks, confirmed="yes")
    assert done.status_code == 302
    result = administrator.get(done.url).content.decode()
    assert version_of(upgrading) == "2.0.0"
    assert (state_of(upgrading.gone), state_of(upgrading.shut)) == ((True, "/gone-2"), (False, "/shut"))
    assert reverse("admin:schedules_schedule_page", args=[upgrading.shut["id"]]) in result
    event = AuditEvent.objects.filter(subject_id=upgrading.install_id, action="install.upgraded").latest("id")
    assert (event.source, event.actor) == ("admin", administrator.user.username)
    assert event.after["remap"] == {upgrading.gone["id"]: "POST /gone-2"}

    repeated = administrator.post(address(upgrading, "2.0.0"), {"confirmed": "yes"}, follow=True)
    assert "installed already" in repeated.content.decode()


def test_the_way_back_enables_what_was_disabled(administrator, upgrading):
    picks = [(upgrading.gone, "disable"), (upgrading.shut, "disable")]
    submit(administrator, upgrading, picks=picks, confirmed="yes")

    plan = administrator.get(address(upgrading, "1.1.0")).content.decode()
    assert "Back to 1.1.0" in plan
    assert "Come back enabled" in plan
    done = submit(administrator, upgrading, "1.1.0", confirmed="yes")

    assert "Enabled again" in administrator.get(done.url).content.decode()
    assert [state_of(one)[0] for one in (upgrading.gone, upgrading.shut)] == [True, True]


def test_another_handler_and_what_stays_disabled_are_told_apart(administrator, upgrading):
    picks = [(upgrading.gone, "disable"), (upgrading.shut, "disable")]
    submit(administrator, upgrading, picks=picks, confirmed="yes")
    rewritten = [{"method": "POST", "path": "/kept", "handler": "rewritten"}]
    upgrading.publish("3.0.0", endpoints=rewritten, content_hash="d" * 64)

    plan = administrator.get(address(upgrading, "3.0.0"))
    shown = {group.name: [str(row.schedule) for row in group.rows] for group in plan.context["groups"]}
    assert shown == {"remapped": ["kept"], "detached": ["gone", "shut"]}
    assert "<code>main</code> → <code>rewritten</code>" in plan.content.decode()
    question = submit(administrator, upgrading, "3.0.0").content.decode()
    assert "1 schedule goes on with the same method and path." in question
    assert "2 schedules stay disabled, with nothing to call." in question


def test_choices_are_filled_in_at_once(administrator, upgrading):
    filled = submit(administrator, upgrading, picks=[(upgrading.shut, "POST /kept")], fill="disable").content.decode()

    assert filled.count('value="disable" selected') == 1
    assert filled.count('value="POST /kept" selected') == 1
    suggested = submit(administrator, upgrading, fill="suggested").content.decode()
    assert 'value="POST /gone-2" selected' in suggested


def test_a_similar_path_with_another_method_is_suggested_and_not_filled_in(administrator, upgrading):
    turned = {"method": "GET", "path": "/gone-2", "handler": "other"}
    upgrading.publish("3.0.0", endpoints=[*declare("/kept", "/shut-2"), turned], content_hash="e" * 64)

    filled = submit(administrator, upgrading, "3.0.0", fill="suggested").content.decode()

    assert 'value="POST /shut-2" selected' in filled
    assert 'value="GET /gone-2"' in filled
    assert 'value="GET /gone-2" selected' not in filled


def test_a_plan_that_has_changed_is_shown_anew_with_the_choices_that_fit(administrator, upgrading):
    token = token_of(administrator, upgrading)
    upgrading.create(name="late", endpoint="POST /gone", sync=False)
    picks = [(upgrading.gone, "POST /gone-2"), (upgrading.shut, "POST /nowhere")]

    shown = submit(administrator, upgrading, token=token, picks=picks, confirmed="yes").content.decode()

    assert "The plan has changed since it was shown" in shown
    assert shown.count(" selected") == 1
    assert 'value="POST /gone-2" selected' in shown
    assert "late" in shown
    assert version_of(upgrading) == "1.1.0"


@pytest.mark.parametrize("kind", ["changed", "missing", "other"])
def test_what_happens_between_the_look_and_the_lock_is_told_in_words(administrator, upgrading, monkeypatch, kind):
    install = ExtensionInstall.objects.select_related("version", "extension").get(id=upgrading.install_id)
    plan = upgrades.preview(install=install, version="2.0.0")
    missing = [{"scheduleId": upgrading.gone["id"], "method": "POST", "path": "/gone"}]
    errors = {
        "changed": upgrades.PlanChanged(plan),
        "missing": RemapFailed("1 schedule", data={"missing": missing}),
        "other": upgrades.NotFound("The extension has no version 2.0.0"),
    }
    picks = [(upgrading.gone, "POST /gone-2"), (upgrading.shut, "disable")]
    token = token_of(administrator, upgrading)

    def refuse(**_):
        raise errors[kind]

    monkeypatch.setattr(upgrades, "upgrade", refuse)
    data = {"plan_token": token, "confirmed": "yes"} | {f"pick-{one['id']}": pick for one, pick in picks}
    shown = administrator.post(address(upgrading, "2.0.0"), data, follow=True).content.decode()

    said = {"changed": "The plan has changed", "missing": "Choose what becomes of it", "other": "has no version 2.0.0"}
    assert said[kind] in shown
    assert version_of(upgrading) == "1.1.0"


def test_a_viewer_has_no_button_and_may_not_and_others_find_nothing(viewer, administrator, upgrading, other_world):
    other_world.publish("2.0.0", content_hash="c" * 64)
    page_of = reverse("admin:schedules_extensioninstall_change", args=[upgrading.install_id])
    assert address(upgrading) in administrator.get(page_of).content.decode()
    assert address(upgrading) not in viewer.get(page_of).content.decode()
    token = token_of(administrator, upgrading)
    picks = [(upgrading.gone, "disable"), (upgrading.shut, "disable")]
    assert viewer.get(address(upgrading, "2.0.0")).status_code == 403
    assert submit(viewer, upgrading, token=token, picks=picks, confirmed="yes").status_code == 403
    assert administrator.get(address(other_world, "2.0.0")).status_code == 404
    assert administrator.post(address(other_world, "2.0.0"), {"confirmed": "yes"}).status_code == 404
    assert (version_of(upgrading), version_of(other_world)) == ("1.1.0", "1.0.0")

    done = submit(administrator, upgrading, picks=picks, confirmed="yes").url
    assert viewer.get(done).status_code == 200
    assert viewer.get(done.replace(str(upgrading.install_id), str(other_world.install_id))).status_code == 404
    assert viewer.get(re.sub(r"/\d+/$", f"/{10**30}/", done)).status_code == 404


def test_the_pages_cost_the_same_with_three_schedules_and_with_thirty(administrator, operator, upgrading):
    def cost(call):
        with CaptureQueriesContext(connection) as captured:
            call()
        return len(captured)

    picks = [(upgrading.gone, "disable"), (upgrading.shut, "disable")]
    administrator.get(address(upgrading, "2.0.0"))
    few = cost(lambda: administrator.get(address(upgrading, "2.0.0")))
    for number in range(27):
        one = upgrading.create(name=f"Number {number}", endpoint="POST /gone", cron=f"{number} * * * *", sync=False)
        picks.append((one, "disable"))

    assert cost(lambda: administrator.get(address(upgrading, "2.0.0"))) == few <= 15
    done = submit(administrator, upgrading, picks=picks, confirmed="yes").url
    assert cost(lambda: administrator.get(done)) <= 10
