import pytest
from benchmarks import timing
from benchmarks.timing import describe_machine, interleave, ratio


class Clock:
    """Time that passes only when variants run, ever slower."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def variant(self, name, seconds):
        def step():
            self.calls.append(name)
            self.now += seconds * (1 + self.now / 20)

        return step


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
    return clock


def test_variants_take_turns_and_change_their_order(clock):
    seconds = interleave({"a": clock.variant("a", 1.0), "b": clock.variant("b", 2.0)}, rounds=3)
    assert [len(samples) for samples in seconds.values()] == [3, 3]
    assert clock.calls[-6:] == ["a", "b", "b", "a", "a", "b"]


def test_the_ratio_survives_a_machine_that_slows_down(clock):
    seconds = interleave({"a": clock.variant("a", 1.0), "b": clock.variant("b", 2.0)}, rounds=8)
    assert seconds["a"][-1] > 1.3 * seconds["a"][0]
    assert ratio(seconds["b"], seconds["a"]) == pytest.approx(2, rel=0.05)


def test_short_calls_are_repeated(clock):
    seconds = interleave({"a": clock.variant("a", 0.01)}, rounds=2, at_least=0.1)
    assert len(clock.calls) >= 2 * 10
    assert seconds["a"] == pytest.approx([0.01, 0.01], rel=0.1)


def test_the_machine_is_named():
    found = describe_machine()
    assert found["processor"]
    assert found["threads"] >= 1


def test_work_of_a_gpu_is_done_before_the_clock_is_read(clock, monkeypatch):
    """A GPU takes a second for what a variant asks of it at once."""
    asked = []

    def synchronize():
        clock.now += len(asked)
        asked.clear()

    monkeypatch.setattr(timing.torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(timing.torch.cuda, "synchronize", synchronize)
    assert interleave({"a": lambda: asked.append(1)}, rounds=2)["a"] == [1.0, 1.0]
