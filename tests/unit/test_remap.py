"""Where schedules go with another version. Pure, so tried with whatever comes to mind."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedules import remap
from schedules.remap import Change, Endpoint, Fate, Ground, RemapInvalidError, Scheduled


def endpoint(name, *, handler="", reason=""):
    method, path = name.split(" ")
    return Endpoint(uuid.uuid4(), method, path, handler, reason)


def scheduled(calls, **more):
    method, path = calls.split(" ")
    return Scheduled(uuid.uuid4(), method, path, **({"endpoint_id": uuid.uuid4()} | more))


def only_step(schedule, *endpoints, **options):
    (step,) = remap.plan(schedules=[schedule], endpoints=endpoints, **options)
    return step


def test_the_same_endpoint_by_the_same_handler_is_unchanged():
    target = endpoint("POST /sync", handler="main")
    step = only_step(scheduled("POST /sync", handler="main"), endpoint("GET /sync"), target)
    assert (step.fate, step.change, step.target) == (Fate.UNCHANGED, Change.KEEP, target)


def test_another_handler_behind_the_same_endpoint_is_remapped():
    step = only_step(scheduled("POST /sync", handler="main"), endpoint("POST /sync", handler="other"))
    assert (step.fate, step.change) == (Fate.REMAPPED, Change.KEEP)


@pytest.mark.parametrize(
    ("enabled", "disable_missing", "change"),
    [
        (True, False, Change.BLOCK),
        (False, False, Change.BLOCK),
        (True, True, Change.DISABLE),
        (False, True, Change.DETACH),
    ],
)
def test_what_is_missing_blocks_or_is_disabled(enabled, disable_missing, change):
    step = only_step(scheduled("POST /gone", enabled=enabled), endpoint("POST /x"), disable_missing=disable_missing)
    assert (step.fate, step.change, step.target) == (Fate.MISSING, change, None)


def test_what_can_no_longer_be_scheduled_says_why():
    step = only_step(scheduled("POST /sync"), endpoint("POST /sync", reason="the manifest says so"))
    assert (step.fate, step.change, step.reason) == (Fate.NOT_SCHEDULABLE, Change.BLOCK, "the manifest says so")


def test_what_points_at_nothing_since_an_earlier_upgrade_blocks_nobody():
    step = only_step(scheduled("POST /gone", enabled=False, endpoint_id=None, awaits_return=True))
    assert (step.fate, step.change) == (Fate.MISSING, Change.KEEP)


def test_what_an_upgrade_disabled_comes_back_with_its_endpoint_and_what_a_person_disabled_does_not():
    back = endpoint("POST /sync")
    parked = only_step(scheduled("POST /sync", enabled=False, endpoint_id=None, awaits_return=True), back)
    touched = only_step(scheduled("POST /sync", enabled=False, endpoint_id=None), back)
    assert (parked.change, parked.target) == (Change.ENABLE, back)
    assert (touched.change, touched.target) == (Change.KEEP, back)


def test_suggestions_come_with_their_grounds_the_best_first_and_only_what_can_be_scheduled():
    offered = [
        endpoint("POST /reports/dayly"),
        endpoint("GET /reports/daily"),
        endpoint("POST /elsewhere", handler="daily"),
        endpoint("POST /reports/weekly-and-daily"),
        endpoint("PUT /reports/daily", reason="only GET and POST"),
        endpoint("POST /zzz"),
    ]
    step = only_step(scheduled("POST /reports/daily", handler="daily"), *offered)
    assert [(str(found.endpoint), found.ground) for found in step.suggestions] == [
        ("POST /elsewhere", Ground.SAME_HANDLER),
        ("GET /reports/daily", Ground.SAME_PATH),
        ("POST /reports/dayly", Ground.NEAR_PATH),
    ]


def test_of_similar_paths_one_with_the_same_method_is_suggested():
    offered = [endpoint("GET /reports/daily2"), endpoint("POST /reports/daily-new")]
    step = only_step(scheduled("POST /reports/daily"), *offered)
    assert [str(found.endpoint) for found in step.suggestions] == ["POST /reports/daily-new"]


def test_one_program_behind_all_endpoints_suggests_nothing():
    offered = [endpoint("POST /billing/purge", handler="main"), endpoint("POST /zzz", handler="main")]
    assert only_step(scheduled("POST /reports/daily", handler="main"), *offered).suggestions == ()


def test_choices_are_read_by_endpoint_and_by_id_and_the_id_goes_first():
    one, two = scheduled("POST /a"), scheduled("POST /a")
    new, newer = endpoint("POST /b"), endpoint("GET /c")
    read = remap.read_choices(
        {"post  /a": "POST //b", str(two.id).upper(): "get /c"}, schedules=[one, two], endpoints=[new, newer]
    )
    assert read == {one.id: new, two.id: newer}


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"POST /a": "POST /nowhere"}, "has no POST /nowhere"),
        ({"POST /a": "/b"}, 'write "METHOD /path"'),
        ({"POST /a": "PUT /b"}, "cannot be scheduled: only GET and POST"),
        ({"POST /unknown": "POST /b"}, "no schedule of the install calls, or is, POST /unknown"),
        ({str(uuid.uuid4()): "POST /b"}, "no schedule of the install"),
    ],
)
def test_a_choice_of_what_is_not_there_is_refused(choices, said):
    offered = [endpoint("POST /b"), endpoint("PUT /b", reason="only GET and POST")]
    with pytest.raises(RemapInvalidError, match=said):
        remap.read_choices(choices, schedules=[scheduled("POST /a")], endpoints=offered)


def test_what_not_every_install_has_can_be_passed_over():
    offered = [endpoint("POST /b")]
    assert remap.read_choices({"POST /x": "POST /b"}, schedules=[], endpoints=offered, ignore_unknown=True) == {}


def test_the_token_depends_on_everything_and_not_on_the_order():
    schedules = [scheduled("POST /a"), scheduled("POST /b", name="b")]
    offered = [endpoint("POST /a"), endpoint("POST /b")]

    def token(these, *, endpoints=offered, **facts):
        return remap.token_of(remap.plan(schedules=these, endpoints=endpoints), facts={"version": "1"} | facts)

    assert token(schedules) == token(schedules[::-1])
    others = [
        token(schedules[:1]),
        token([schedules[0], Scheduled(**_members(schedules[1]) | {"enabled": False})]),
        *(
            token([schedules[0], Scheduled(**_members(schedules[1]) | {member: other})])
            for member, other in [
                ("name", "c"),
                ("path", "/a"),
                ("method", "GET"),
                ("endpoint_id", None),
                ("handler", "other"),
                ("awaits_return", True),
            ]
        ),
        token(schedules, endpoints=offered[:1]),
        token(schedules, version="2"),
    ]
    assert len({token(schedules), *others}) == 1 + len(others)


def _members(schedule):
    return {name: getattr(schedule, name) for name in schedule.__slots__}


NAMES = st.builds(lambda method, path: f"{method} /{path}", st.sampled_from(["GET", "POST"]), st.sampled_from("abcde"))


@given(
    schedules=st.lists(st.tuples(NAMES, st.booleans(), st.booleans(), st.booleans()), max_size=8),
    offered=st.dictionaries(NAMES, st.booleans(), max_size=6),
    disable_missing=st.booleans(),
)
def test_every_schedule_has_one_step_that_leads_somewhere_or_says_why_not(schedules, offered, disable_missing):
    made = [
        scheduled(
            name,
            enabled=enabled and linked,
            endpoint_id=uuid.uuid4() if linked else None,
            awaits_return=parked and not linked,
        )
        for name, enabled, linked, parked in schedules
    ]
    endpoints = [endpoint(name, reason="" if usable else "no") for name, usable in offered.items()]

    steps = remap.plan(schedules=made, endpoints=endpoints, disable_missing=disable_missing)

    assert [step.schedule for step in steps] == made
    for step in steps:
        usable = offered.get(str(step.schedule), False)
        assert (step.target is not None) == usable
        if usable:
            assert str(step.target) == str(step.schedule)
            assert step.change is (Change.ENABLE if step.schedule.awaits_return else Change.KEEP)
        else:
            assert step.reason
            assert step.change is not Change.ENABLE
            assert (step.change is Change.BLOCK) == (not disable_missing and step.schedule.endpoint_id is not None)
        assert not any(found.endpoint.unschedulable_reason for found in step.suggestions)
    counted = remap.count(steps)
    assert sum(counted[str(fate)] for fate in Fate) == len(made)
