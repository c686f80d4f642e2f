import pytest

from backbone.engine import agreement
from backbone.engine.agreement import STEPS, Agreement
from backbone.engine.hooks import Hook


class Clock:
    def __init__(self, monkeypatch, seconds_of_a_step):
        self.now, self.seconds, self.asked = 0.0, seconds_of_a_step, 0
        monkeypatch.setattr(agreement.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(agreement.distributed, "is_distributed", lambda: True)
        monkeypatch.setattr(agreement.distributed, "greatest", self.greatest)

    def greatest(self, *numbers):
        self.asked += 1
        return list(numbers)

    def run(self, ending, steps, wish=lambda step: 0, now=lambda step: False):
        """Return the steps at which the run heard of a wish."""
        heard = []
        for step in range(steps):
            self.now += self.seconds
            if ending.ask(wish(step), now=now(step)):
                heard.append(step)
        return heard


@pytest.mark.parametrize(("seconds", "asked"), [(0.1, 20), (2.0, 200), (1e-6, 200 // STEPS)])
def test_processes_ask_once_a_second(monkeypatch, seconds, asked):
    clock = Clock(monkeypatch, seconds)
    assert clock.run(Agreement([Hook()]), 200) == []
    assert abs(clock.asked - asked) <= 1


def test_a_wish_waits_for_the_next_question(monkeypatch):
    clock = Clock(monkeypatch, 0.1)
    assert clock.run(Agreement([]), 30, wish=lambda step: step >= 12)[0] == 20
    # Where a checkpoint is written, all ask, and so they do after an evaluation.
    ending = Agreement([])
    assert clock.run(ending, 15, wish=lambda step: step >= 12, now=lambda step: step == 13) == [13]
    ending.ask_next()
    assert clock.run(ending, 1, wish=lambda step: True) == [0]


def test_hooks_of_every_step_are_heard_at_every_step(monkeypatch):
    class Stops(Hook):
        def after_step(self, trainer):
            """Would stop it."""

    clock = Clock(monkeypatch, 0.01)
    assert clock.run(Agreement([Stops()]), 10, wish=lambda step: step == 7) == [7]
    assert clock.asked == 10


def test_one_process_asks_nobody():
    assert Agreement([]).ask(5, now=False) == 5
