"""A run that was given ten minutes must be at its floor, with its model written, when they are over."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import TrainerControl
from transformers.trainer_utils import SaveStrategy

from gptface.training import pretraining as pretrain_module
from gptface.training.checkpoints import last_whole_checkpoint
from gptface.training.pretraining import PreTrainingConfig, pretrain
from gptface.training.time_budget import ClockSchedule, TimeBudget

SCHEDULE = ClockSchedule(warmup=0.1, decay_from=0.5, floor=0.1, reserve_seconds=6, settling_steps=1)


class Run:
    """Steps of a budget on a clock that stands still between them."""

    def __init__(self, minutes=10.0, schedule=SCHEDULE):
        self.now = 0.0
        self.budget = TimeBudget(minutes, schedule, lambda: self.now)
        self.control = TrainerControl()
        self.arguments = SimpleNamespace(save_strategy=SaveStrategy.STEPS)

    def step(self, seconds, **control):
        self.control = TrainerControl(**control)
        self.now += seconds
        self.budget.on_optimizer_step(self.arguments, None, self.control)
        self.budget.on_step_end(self.arguments, None, self.control)

    def train(self, seconds):
        factors = []
        while not self.control.should_training_stop:
            self.step(seconds)
            factors.append(self.budget.factor())
        return factors


def test_the_rate_rises_stays_and_falls_to_its_floor():
    assert [SCHEDULE.factor(share) for share in (0, 0.05, 0.1, 0.5)] == pytest.approx([0, 0.5, 1, 1])
    assert SCHEDULE.factor(0.75) == pytest.approx(0.55) and SCHEDULE.factor(1) == pytest.approx(0.1)
    assert ClockSchedule(warmup=0, decay_from=0).factor(0) == 1
    for wrong in ({"warmup": 0.6, "decay_from": 0.5}, {"decay_from": 1}, {"floor": 2}):
        with pytest.raises(ValueError, match=r"warmup|floor"):
            ClockSchedule(**wrong)
    with pytest.raises(ValueError, match="minutes"):
        TimeBudget(0, SCHEDULE)


@pytest.mark.parametrize("seconds", [0.5, 7.0, 40.0])
def test_training_ends_before_the_reserve_at_the_floor(seconds):
    run = Run()
    factors = run.train(seconds)
    assert 594 - seconds <= run.now <= 594
    assert max(factors) == pytest.approx(1) and factors[-1] < 0.1 + 0.5 * seconds / 100
    assert run.control.should_save and run.control.should_log
    rising = [factor for factor in factors if factor < 1][:3]
    assert rising == sorted(rising) or seconds == 40


def test_compiling_does_not_count_for_the_schedule():
    run = Run(schedule=ClockSchedule(warmup=0.1, decay_from=0.5, settling_steps=2))
    run.step(200)
    run.step(100)
    assert run.budget.factor() == 0 and run.budget.share == 0
    run.step((585 - 300) / 10)
    assert run.budget.factor() == pytest.approx(1)


def test_a_stopped_run_goes_on_with_the_time_that_is_left():
    run = Run()
    while run.now < 300:
        run.step(10)
    kept, factor = json.loads(json.dumps(run.budget.state())), run.budget.factor()
    resumed = Run()
    resumed.budget.resume(kept)
    resumed.step(10)
    assert resumed.budget.factor() == pytest.approx(factor)
    shares = []
    while not resumed.control.should_training_stop:
        resumed.step(10)
        shares.append(resumed.budget.share)
    assert shares == sorted(shares) and shares[-1] > 0.95
    assert 280 <= resumed.now <= 294


def test_what_would_not_be_done_in_time_is_left_out():
    run = Run()
    run.step(1, should_evaluate=True)
    assert run.control.should_evaluate
    with run.budget.timed("evaluation"):
        run.now += 30
    run.step(1, should_evaluate=True)
    assert run.control.should_evaluate
    with run.budget.timed("saving"):
        run.now += 9
    run.now = 570
    run.step(1, should_evaluate=True, should_save=True)
    assert not run.control.should_evaluate and run.control.should_save
    run.now = 590
    run.step(3, should_save=True)
    assert run.control.should_training_stop and not run.control.should_save


def test_a_recipe_with_minutes_ends_by_the_clock_and_is_not_trained_twice(write_recipe, tmp_path, monkeypatch):
    # a clock that goes on by a second whenever it is looked at
    monkeypatch.setattr(
        pretrain_module, "TimeBudget", lambda *options: TimeBudget(*options, clock=itertools.count().__next__)
    )
    arguments = {"max_steps": 100_000, "save_steps": 1000, "eval_steps": 1000, "logging_steps": 1}
    recipe = write_recipe(tmp_path, minutes=2, schedule={"floor": 0.5}, arguments=arguments)
    final = pretrain(PreTrainingConfig.from_yaml(recipe))
    first = state_of(final.parent)
    rates = [entry["learning_rate"] for entry in first["log_history"] if "text_loss" in entry]
    assert max(rates) == pytest.approx(1e-3) and rates[0] == 0 and rates[-1] < 6e-4
    spent = first["stateful_callbacks"]["time_budget"]["spent_seconds"]
    assert 95 < spent < 120
    # the same command again: its time is over
    before = (final / "model.safetensors").read_bytes()
    config = PreTrainingConfig.from_yaml(recipe, minutes=(spent + 1) / 60)
    assert pretrain(config) == final
    assert (final / "model.safetensors").read_bytes() == before and state_of(final.parent) == first
    # and with more time: on from there
    pretrain(PreTrainingConfig.from_yaml(recipe, minutes=4))
    resumed = state_of(final.parent)
    assert 1.5 * first["global_step"] < resumed["global_step"] < 2.5 * first["global_step"]
    assert 215 < resumed["stateful_callbacks"]["time_budget"]["spent_seconds"] < 240


def state_of(run):
    return json.loads((Path(last_whole_checkpoint(run)) / "trainer_state.json").read_text())


def test_a_schedule_without_minutes_is_refused(recipe):
    with pytest.raises(ValueError, match="needs minutes"):
        PreTrainingConfig.from_yaml(recipe, schedule={"floor": 0.1})
