"""The roofline: what bounds an operation, what share it reaches, how ceilings are measured, on a made-up device."""

import itertools

import pytest

from fixtures.timings.roofline import LEAST_MARGIN, REPEATS, Ceilings, Rate, rate, share

FAST = {"product": Rate(100e9, 0.0), "copy": Rate(10e9, 0.0)}  # 10 FLOP a byte balance


def test_many_operations_a_byte_are_bound_by_operations():
    found = share(flop=100e9, moved=1e9, seconds=2.0, **FAST)
    assert (found.bound, found.share) == ("operations", pytest.approx(0.5))


def test_few_operations_a_byte_are_bound_by_bytes():
    found = share(flop=1e9, moved=10e9, seconds=4.0, **FAST)
    assert (found.bound, found.share) == ("bytes", pytest.approx(0.25))


@pytest.mark.parametrize(("noise", "seconds", "possible"), [(0.0, 1.0, True), (0.0, 0.9, False), (0.2, 0.9, True)])
def test_faster_than_the_ceilings_is_impossible_beyond_their_noise(noise, seconds, possible):
    product = Rate(100e9, noise)
    found = share(flop=100e9, moved=1.0, seconds=seconds, product=product, copy=FAST["copy"])
    assert found.possible is possible
    assert found.margin == max(LEAST_MARGIN, noise)


def test_a_rate_is_the_best_attempt_and_its_noise_how_far_the_middle_one_fell_short():
    assert rate(10.0, [2.0, 1.0, 4.0]) == Rate(10.0, 0.5)


class Ticking:
    """A clock that goes on by so many seconds every time it is read."""

    def __init__(self, *steps: float) -> None:
        self._steps, self.now = itertools.cycle(steps), 0.0

    def __call__(self) -> float:
        """Seconds."""
        self.now += next(self._steps)
        return self.now


def test_a_ceiling_is_measured_once_and_with_the_clock_it_is_given():
    clock = Ticking(0.5)
    ceilings = Ceilings("cpu", clock)
    first = ceilings.product("float32")
    read = clock.now
    assert first == Rate(2 * 512**3 / 0.5, 0.0)  # half a second for the first width that is tried
    assert ceilings.product("float32") is first
    assert clock.now == read


def test_a_product_that_is_done_too_soon_is_made_larger():
    soon, late = [0.0, 1e-3] * REPEATS, [0.0, 0.5] * REPEATS
    found = Ceilings("cpu", Ticking(*soon, *late)).product("float32")
    assert found.best == pytest.approx(2 * 1024**3 / 0.5)


def test_measuring_again_keeps_the_better():
    clock = Ticking(0.5)
    ceilings = Ceilings("cpu", clock)
    slow = ceilings.product("float32").best
    clock._steps = itertools.cycle([0.25])
    ceilings.again()
    assert ceilings.known()["float32"] == pytest.approx(2 * slow)
    clock._steps = itertools.cycle([5.0])
    ceilings.again()
    assert ceilings.known()["float32"] == pytest.approx(2 * slow)


def test_this_device_multiplies_and_copies():
    """Measured for real: a product of integers or 16-bit numbers is as good as any, and a copy moves something."""
    from fixtures.timings.clock import synchronized

    ceilings = Ceilings("cpu", synchronized)
    for dtype in ("float32", "bfloat16", "int8"):
        assert ceilings.product(dtype).best > 1e8
    assert ceilings.copy().best > 1e8
    assert set(ceilings.known()) == {"float32", "bfloat16", "int8", "copy"}
