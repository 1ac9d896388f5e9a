"""What follows from a schedule's policies, without clock or database."""

from datetime import UTC, datetime, timedelta

import pytest

from schedules import cron, policies
from schedules.policies import RetryPolicy, plan_catch_up

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def slots(*minutes_ago):
    return [NOW - timedelta(minutes=minutes) for minutes in minutes_ago]


def plan(minutes_ago, policy, *, newest_claimed=None):
    planned = plan_catch_up(
        slots(*minutes_ago),
        policy=policy,
        now=NOW,
        newest_claimed=None if newest_claimed is None else NOW - timedelta(minutes=newest_claimed),
    )
    return [(int((NOW - slot.slot).total_seconds() // 60), str(slot.status), slot.catch_up) for slot in planned]


def test_none_misses_what_is_late_and_runs_what_is_not():
    assert plan([20, 10, 5, 1], "none") == [
        (20, "missed", False),
        (10, "missed", False),
        (5, "queued", False),
        (1, "queued", False),
    ]


def test_latest_runs_the_newest_alone():
    assert plan([30, 20, 10], "latest") == [
        (30, "superseded", False),
        (20, "superseded", False),
        (10, "queued", True),
    ]


def test_latest_is_satisfied_by_a_newer_slot_that_is_not_late():
    assert plan([30, 10, 1], "latest") == [(30, "superseded", False), (10, "superseded", False), (1, "queued", False)]


def test_latest_is_satisfied_by_a_newer_slot_that_has_run():
    assert plan([30, 10], "latest", newest_claimed=5) == [(30, "superseded", False), (10, "superseded", False)]
    assert plan([30, 10], "latest", newest_claimed=20) == [(30, "superseded", False), (10, "queued", True)]


def test_all_runs_everything_in_order():
    assert plan([10, 30, 20, 1], "all") == [
        (30, "queued", True),
        (20, "queued", True),
        (10, "queued", True),
        (1, "queued", False),
    ]


def test_all_makes_up_for_a_hundred_and_says_so_of_the_others():
    planned = plan_catch_up(slots(*range(6, 6 + 130)), policy="all", now=NOW, newest_claimed=None)

    assert [str(slot.status) for slot in planned] == ["missed"] * 30 + ["queued"] * 100
    assert "100" in planned[0].reason
    assert planned[-1].slot == NOW - timedelta(minutes=6)


@pytest.mark.parametrize("policy", ["none", "latest", "all"])
def test_every_slot_gets_exactly_one_fate(policy):
    everything = slots(*range(1, 200, 7))

    planned = plan_catch_up(everything, policy=policy, now=NOW, newest_claimed=None)

    assert [slot.slot for slot in planned] == sorted(everything)
    assert plan_catch_up([], policy=policy, now=NOW, newest_claimed=NOW) == []


def test_a_retry_ends_before_the_deadline():
    policy = RetryPolicy(max_attempts=10, first_delay_seconds=60, deadline_seconds=300)

    def delay(elapsed, recorded=1):
        return policy.delay_before_next(attempts_recorded=recorded, elapsed_seconds=elapsed, wanted_seconds=None)

    assert delay(239) == 60
    assert delay(240) is None


@pytest.mark.parametrize(
    ("explicit", "expression", "threshold"),
    [
        (None, "*/5 * * * *", 20),
        (None, "0,59 * * * *", 20),
        (None, "0 * * * *", 5),
        (None, "0 4 * * *", 5),
        (0, "*/5 * * * *", 0),
        (3, "0 4 * * *", 3),
    ],
)
def test_how_many_failures_pause_a_schedule(explicit, expression, threshold):
    assert policies.pause_threshold(explicit, cron.parse(expression)) == threshold


@pytest.mark.parametrize(
    ("member", "value", "fine"),
    [
        ("retry_max_attempts", 10, True),
        ("retry_max_attempts", 11, False),
        ("retry_max_attempts", 0, False),
        ("retry_max_attempts", None, False),
        ("retry_factor", float("nan"), False),
        ("retry_factor", float("inf"), False),
        ("retry_factor", 1.5, True),
        ("attempt_timeout_seconds", None, True),
        ("attempt_timeout_seconds", 30, True),
        ("attempt_timeout_seconds", 31, False),
        ("pause_after_failures", 0, True),
        ("pause_after_failures", None, True),
        ("pause_after_failures", -1, False),
        ("overlap_policy", "queue", True),
        ("overlap_policy", "QUEUE", False),
        ("catch_up_policy", "latest", True),
        ("catch_up_policy", "", False),
    ],
)
def test_the_values_that_a_policy_takes(member, value, fine):
    problem = policies.problem_with(member, value, platform_timeout_ms=30_000)

    assert (problem == "") is fine
