"""Growth: fitted exponents are those that points were made with, and say how far they are to be trusted."""

import math

import pytest

from fixtures.timings.power_law import fit

SIZES = (128, 256, 512, 1024, 2048, 4096)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5, 2.0])
def test_a_power_law_gives_its_exponent(exponent):
    found = fit({size: 3e-6 * size**exponent for size in SIZES})
    assert found.exponent == pytest.approx(exponent, abs=1e-9)
    assert found.uncertainty == pytest.approx(0, abs=1e-9)


def test_noise_shows_in_the_uncertainty():
    """Points that are a fifth too high and too low by turns: the true exponent lies within three standard errors."""
    found = fit({size: size**2 * (1.2 if place % 2 else 0.8) for place, size in enumerate(SIZES)})
    assert 0.02 < found.uncertainty < 0.2
    assert abs(found.exponent - 2) < 3 * found.uncertainty


def test_the_standard_error_is_the_textbooks():
    """Residuals (+1, -2, +1) around a flat line over x = 0, 1, 2: s² = 6 / 1, and the slope's error sqrt(6 / 2)."""
    found = fit({1: math.e, 2: math.e**-2, 4: math.e})
    assert found.exponent == pytest.approx(0)
    assert found.uncertainty == pytest.approx(math.sqrt(3) / math.log(2))


def test_two_points_leave_nothing_to_tell_the_uncertainty_from():
    found = fit({1: 1.0, 2: 4.0})
    assert (found.exponent, found.uncertainty) == (pytest.approx(2), math.inf)
    assert found.to_dict() == {"exponent": 2.0, "uncertainty": None, "points": {"1": 1.0, "2": 4.0}}


@pytest.mark.parametrize("points", [{}, {1: 1.0}, {1: 1.0, 2: 0.0}, {1: -1.0, 2: 1.0}])
def test_too_little_to_fit_says_what_was_found(points):
    with pytest.raises(ValueError, match="expected costs above zero of two sizes or more, found"):
        fit(points)
