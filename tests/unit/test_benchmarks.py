"""The benchmarks' own rules: what a figure becomes on paper, whose turn it is, and which calls count as lost."""

import itertools
import json
import math

import psutil
import pytest

from bench import burst, kill, probe, scenarios, sides, sizes, summary
from bench.report import Figure, Outcome, Surroundings, as_json, compared, percentile, render_page
from bench.sizes import SIZES
from tests.support.waiting import eventually


def test_a_percentile_is_a_value_that_was_measured():
    assert percentile([1, 2, 3, 4], 50) == 2
    assert percentile([1, 2, 3, 4], 95) == 4
    assert percentile([7], 50) == 7


def test_sides_are_compared_by_their_medians_and_keep_their_spread():
    (figure,) = compared("burst", "rate", "runs/s", {"ours": [4, 1, 2], "bare": [4, 8, 5]}, {"bare": "more is better"})
    assert (figure.measured, figure.against, figure.ratio) == (2, 5, 0.4)
    assert (figure.spread.lowest, figure.spread.highest) == (1, 4)
    assert (figure.against_spread.lowest, figure.against_spread.highest) == (4, 8)
    assert (figure.beside, figure.meaning) == ("bare", "more is better")


def test_a_side_that_has_none_beside_it_keeps_its_figure():
    (figure,) = compared("burst", "rate", "runs/s", {"ours": [4, 1, 2]}, {})
    assert (figure.measured, figure.against, figure.ratio) == (2, None, None)


def test_nothing_is_divided_by_nothing():
    assert Figure("kill", "calls lost", 3, 0, "calls", "").ratio is None


def test_the_document_holds_finite_numbers_and_names_its_ratios():
    figures = compared("burst of 3", "start lateness p95", "s", {"ours": [2.0], "bare Temporal": [4.0]}, {})
    figures += [Figure("burst of 3", "calls lost", 3, 0, "calls", "")]
    numbers = as_json([Outcome("burst", "", 1, figures)])["burst_of_3"]
    assert numbers["start_lateness_p95_s"] == 2
    assert numbers["start_lateness_p95_bare_temporal_s"] == 4
    assert numbers["start_lateness_p95_to_bare_temporal_ratio"] == 0.5
    assert numbers["calls_lost"] == 3
    assert all(math.isfinite(number) for number in numbers.values())
    assert [name for name in numbers if name.endswith("ratio")] == ["start_lateness_p95_to_bare_temporal_ratio"]


def test_two_sides_beside_one_figure_have_a_ratio_each():
    figures = compared("flow", "rate", "runs/s", {"ours": [6], "bare": [3], "other": [12]}, {})
    assert as_json([Outcome("flow", "", 1, figures)])["flow"] == {
        "rate": 6,
        "rate_min": 6,
        "rate_max": 6,
        "rate_bare": 3,
        "rate_bare_min": 3,
        "rate_bare_max": 3,
        "rate_to_bare_ratio": 2,
        "rate_other": 12,
        "rate_other_min": 12,
        "rate_other_max": 12,
        "rate_to_other_ratio": 0.5,
    }


def test_a_scenario_that_failed_is_named_and_the_others_keep_their_figures():
    page = render_page(
        [
            Outcome(
                "burst",
                "About bursts.",
                1,
                compared("burst", "rate", "runs/s", {"ours": [1, 3], "bare": [2]}, {}),
                together=("steady flow", "burst"),
            ),
            Outcome("kill", "About kills.", 1, failure="it ended with ValueError: no"),
        ],
        Surroundings({"Date": "today"}),
        plots=["rates.png"],
    )
    assert "- Date: today" in page
    # With the sizes that it was of, as those of another machine's engine may be others.
    assert "`BENCH_SHARE=1 .venv/bin/python -m bench 'steady flow' burst`" in page
    assert "`BENCH_SHARE=1 .venv/bin/python -m bench kill`" in page
    assert "| rate | 2 (1-3) runs/s | 2 runs/s | bare | 1.00 |" in page
    assert "**No figures:** it ended with ValueError: no" in page
    assert "![rates](rates.png)" in page


@pytest.mark.parametrize("rate", [12.0, 36.0, 57.0, burst.SWIFT, 70.0, 300.0])
def test_each_side_has_its_turn_once_a_round_at_each_size_and_ours_on_full_minutes(rate):
    plan = burst.lay_out(sides.ALL, rate)

    every_turn = sorted(itertools.product(SIZES.bursts, sides.ALL))
    length = len(every_turn)
    rounds = [plan[start : start + length] for start in range(0, len(plan), length)]
    assert len(rounds) == SIZES.rounds
    assert all(sorted((turn.count, turn.side) for turn in each) == every_turn for each in rounds)
    assert all(turn.seconds % 60 == 0 for turn in plan if turn.side == sides.OURS)
    shares = burst.SHARES_WHERE_SWIFT if rate >= burst.SWIFT else burst.SHARES_WHERE_SLOW
    for earlier, later in itertools.pairwise(plan):
        taken = earlier.count / (rate * shares[earlier.side])
        assert later.seconds >= earlier.seconds + taken + burst.REST_SECONDS[later.side]


def test_scenarios_that_share_a_stage_are_one_batch_in_their_order():
    assert scenarios.batches(["kill", "growth", "steady flow"], apart=False) == [["steady flow", "kill"], ["growth"]]
    assert scenarios.batches(["growth", "burst", "upgrades"], apart=False) == [["growth"], ["burst"], ["upgrades"]]
    assert scenarios.batches(["kill", "growth", "burst"], apart=True) == [["kill"], ["growth"], ["burst"]]
    whole = scenarios.batches(scenarios.SCENARIOS, apart=False)
    assert sorted(itertools.chain.from_iterable(whole)) == sorted(scenarios.SCENARIOS)


def test_the_sides_beside_ours_take_turns_in_going_first():
    plan = [turn for turn in burst.lay_out(sides.ALL, 70.0) if turn.count == SIZES.bursts[-1]]
    orders = [[turn.side for turn in plan[number : number + 3]] for number in range(0, len(plan), 3)]
    assert orders[0] == [sides.OURS, sides.BARE, sides.CELERY]
    assert orders[1] == [sides.OURS, sides.CELERY, sides.BARE]


@pytest.mark.parametrize("rate", [12.0, 16.0, 20.0, 25.0, 31.0, 40.0, 57.0, 60.0, 75.0, 89.0])
def test_the_bursts_that_a_slow_engine_gets_take_six_minutes(rate):
    counts = sizes.scaled(sizes.FULL, probe.share_for(rate)).bursts
    assert burst.lay_out(sides.ALL, probe.KEPT_BESIDE_ALL * rate, counts)[-1].seconds < 6 * 60


@pytest.mark.parametrize("rate", [probe.FULL_SIZES_FROM, 300.0])
def test_the_bursts_of_full_sizes_take_six_minutes(rate):
    assert burst.lay_out(sides.ALL, probe.KEPT_BESIDE_ALL * rate, sizes.FULL.bursts)[-1].seconds < 6 * 60


def test_a_slow_engine_gets_a_share_of_what_a_swift_one_gets():
    assert sizes.scaled(sizes.FULL, probe.share_for(probe.FULL_SIZES_FROM)) == sizes.FULL
    some = sizes.scaled(sizes.FULL, probe.share_for(20.0))
    assert (some.rounds, some.bursts, some.idle_schedules, some.far_schedules) == (
        3,
        (40, 120),
        (100, 200),
        (100, 200, 1200),
    )


@pytest.mark.parametrize("text", ["", "0", "-1", "1.1", "nan", "much"])
def test_a_share_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv(sizes.SHARE_VARIABLE, text)
    with pytest.raises(ValueError, match="must be above 0 and at most 1"):
        sizes.share()


def test_the_readme_shows_the_committed_figures():
    _, _, shown = summary.README.read_text().partition(summary.BEGIN)
    table, end, _ = shown.partition(summary.END)
    assert table == summary.render(json.loads(summary.FIGURES.read_text()))
    assert end, "the table has an end"
    assert all(row.split("|")[2].strip() for row in table.splitlines()), "each row has our figure"


def test_a_side_that_cannot_run_here_has_no_turns():
    plan = burst.lay_out([sides.OURS, sides.BARE], 70.0)
    assert {turn.side for turn in plan} == {sides.OURS, sides.BARE}


def test_losses_count_each_call_once_and_tell_repeats_by_their_key():
    def call(name, at, key="k"):
        return {"id": name, "at": 1000.0 + at, "key": key}

    losses = kill.count_losses(
        {"once", "never", "again", "anew", "unkeyed", "slow"},
        [
            call("once", 1),
            call("again", 2),
            call("again", 50),
            call("anew", 2, "first"),
            call("anew", 3, "second"),
            call("unkeyed", 4, ""),
            call("unkeyed", 5, ""),
            call("slow", kill.LATE_SECONDS + 1),
            call("somebody else's", 1),
        ],
        due=1000.0,
        killed_at=1002.0,
    )
    assert losses == kill.Losses(
        came_before=3,
        # Each call takes half a second.
        in_flight=2,
        lost=1,
        doubled=3,
        doubled_under_two_keys=2,
        late=1,
        last=kill.LATE_SECONDS + 1,
    )


def test_a_scenario_whose_process_dies_is_an_outcome(monkeypatch):
    monkeypatch.setitem(scenarios.SCENARIOS, "broken", "tests.support.broken_scenario")
    (outcome,) = scenarios.run(["broken"])
    assert outcome.figures == []
    assert outcome.failure == "it ended with RuntimeError: nothing works"


def test_what_a_scenario_has_started_that_dies_at_once_is_killed(monkeypatch, tmp_path):
    file = tmp_path / "pid"
    monkeypatch.setenv("SCENARIO_PID_FILE", str(file))
    monkeypatch.setitem(scenarios.SCENARIOS, "dying", "tests.support.dying_scenario")
    (outcome,) = scenarios.run(["dying"])
    assert (outcome.figures, outcome.failure) == ([], "its process ended without a word")
    eventually(lambda: has_ended(int(file.read_text())))


def has_ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_scenario_that_does_not_end_is_killed_with_all_that_it_has_started(monkeypatch, tmp_path):
    file = tmp_path / "pid"
    monkeypatch.setenv("SCENARIO_PID_FILE", str(file))
    monkeypatch.setitem(scenarios.SCENARIOS, "hanging", "tests.support.hanging_scenario")
    monkeypatch.setattr(scenarios, "WIND_UP_SECONDS", 0.2)
    (outcome,) = scenarios.run(["hanging"])
    assert (outcome.figures, outcome.failure) == ([], "")
    eventually(lambda: has_ended(int(file.read_text())))
