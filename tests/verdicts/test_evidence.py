"""The evidence helpers: what passes, what is said when something does not, and what stays in the record."""

import json
import math

import pytest

from fixtures.verdicts import evidence
from fixtures.verdicts.evidence import NothingObserved, close, differs, holds, same, shape

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def notes() -> evidence.Evidence:
    return evidence.begin()


@pytest.mark.parametrize(
    ("observed", "expected", "message"),
    [
        (11, 12, "layers: expected 12, observed 11"),
        ("learned", "rotary", "layers: expected 'rotary', observed 'learned'"),
        ([1, 2, 4], (1, 2, 3), "layers: expected [1, 2, 3], observed [1, 2, 4]: [2] 4 != 3"),
        ({"q": 1}, {"k": 1}, "layers: expected {'k': 1}, observed {'q': 1}: ['k'] is missing, ['q'] is not expected"),
        ({"q": [1]}, {"q": [1, 2]}, "layers: expected {'q': [1, 2]}, observed {'q': [1]}: ['q'] has 1 items, not 2"),
        ({"q"}, {"k"}, "layers: expected {'k'}, observed {'q'}: 'k' is missing, 'q' is not expected"),
        (list("abcdef"), list("uvwxyz"), "[0] 'a' != 'u', [1] 'b' != 'v', [2] 'c' != 'w', ..."),
        (math.nan, math.nan, "layers: expected nan, observed nan"),
    ],
)
def test_same_says_what_was_expected_observed_and_where(observed, expected, message):
    """A difference is named with both values and its place."""
    with pytest.raises(AssertionError) as raised:
        same("layers", observed=observed, expected=expected)
    assert message in str(raised.value)


def test_same_takes_a_tuple_for_a_list(notes):
    """A torch.Size equals the list of its sizes, and is kept as one."""
    same("ids", observed=torch.ones(1, 10).shape, expected=[1, 10])
    assert notes.observed == notes.expected == {"ids": [1, 10]}


def test_same_refuses_tensors():
    """A tensor given to same() is an error of the claim that no departure excuses."""
    with pytest.raises(TypeError, match="close"):
        same("weights", observed=torch.ones(2), expected=torch.ones(2))


def test_shape_names_the_axes_that_differ(notes):
    """A wrong axis is named, with its size and the size that was expected."""
    with pytest.raises(AssertionError) as raised:
        shape("hidden states", torch.ones(1, 10, 768), batch=1, seq=10, d_model=2048)
    sentence = "hidden states: expected [batch=1, seq=10, d_model=2048], observed [1, 10, 768]: d_model 768 != 2048"
    assert str(raised.value) == sentence
    assert notes.observed == {"hidden states": [1, 10, 768]}


def test_shape_counts_the_axes():
    """A missing axis is a contradiction even where the sizes that exist agree."""
    with pytest.raises(AssertionError, match="2 axes, not 3"):
        shape("hidden states", (1, 10), batch=1, seq=10, d_model=2048)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [(1.0, 1.0 + 1e-7), (torch.full((2, 3), 1000.0), torch.full((2, 3), 1000.001)), (torch.tensor(3), 3)],
    ids=["numbers", "relative to the scale", "integers"],
)
def test_close_allows_rounding(observed, expected):
    """What differs by rounding alone is close."""
    close("output", observed=observed, expected=expected)


@pytest.mark.parametrize(
    ("observed", "expected", "message"),
    [
        (1.1, 1.0, "output: expected 1, observed 1.1: they differ by 0.1, tolerance 1e-05"),
        (torch.tensor([[0.0, 1.0], [2.0, 5.0]]), torch.tensor([[0.0, 1.0], [2.0, 4.0]]), "observed 5 at [1, 1]"),
        (torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan]), "NaN in 1 of 2 observed"),
        (torch.tensor([1.0, math.inf]), torch.tensor([1.0, 2.0]), "observed inf at [1]"),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, math.inf]), "observed 2 at [1]"),
        (torch.ones(2), torch.ones(2, 1), "expected shape [2, 1], observed shape [2]"),
    ],
)
def test_close_says_by_how_much_and_where(observed, expected, message):
    """A difference, a NaN, an infinity or another shape is never close."""
    with pytest.raises(AssertionError) as raised:
        close("output", observed=observed, expected=expected)
    assert message in str(raised.value)


def test_close_takes_equal_infinities_for_equal():
    """Two masks with minus infinity in the same places are close."""
    mask = torch.tensor([[0.0, -math.inf], [0.0, 0.0]])
    close("mask", observed=mask, expected=mask.clone())


def test_close_keeps_the_difference_and_never_the_tensor(notes):
    """The record holds a comparison's shape, largest difference and tolerance."""
    close("output", observed=torch.ones(4, 5), expected=torch.ones(4, 5) * 2, tolerance=1.0)
    assert notes.observed == {"output": {"shape": [4, 5], "largest_difference": 1.0}}
    assert notes.expected == {"output": {"shape": [4, 5], "tolerance": 2.0}}


def test_meta_tensors_have_no_values_to_compare():
    """Comparing values on meta is an error of the claim, not a contradiction."""
    with pytest.raises(TypeError, match="no values"):
        close("output", observed=torch.ones(2, device="meta"), expected=torch.ones(2))


def test_differs_asks_for_an_effect(notes):
    """An effect is held against the scale of what it changes."""
    small = torch.full((3,), 1e-3)
    differs("output", observed=small * 1.01, reference=small)
    with pytest.raises(AssertionError, match=r"at least 0\.1, observed 0\.000977"):
        differs("output", observed=torch.tensor([1000.001]), reference=torch.tensor([1000.0]))
    assert notes.observed["output"]["largest_difference"] == pytest.approx(0.001, rel=0.05)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_differs_takes_no_broken_output_for_an_effect(broken):
    """A NaN or an infinity is no effect."""
    with pytest.raises(AssertionError):
        differs("output", observed=torch.tensor([1.0, broken]), reference=torch.ones(2))


def test_holds_says_what_was_seen(notes):
    """A condition that is false is explained by what was observed."""
    with pytest.raises(AssertionError, match=r"causal: expected 0, observed \[3, 4\]"):
        holds("causal", False, observed=[3, 4], expected=0)
    assert notes.observed == {"causal": [3, 4]}


def test_holds_takes_truth_values_only():
    """A list that is not empty is no condition."""
    with pytest.raises(TypeError, match="list"):
        holds("causal", [False])  # type: ignore[arg-type]
    holds("causal", torch.tensor(True))


@pytest.mark.parametrize(
    "compare",
    [
        lambda: same("x", observed=[], expected=[]),
        lambda: same("x", observed={"a": []}, expected={"a": []}),
        lambda: same("x", observed=[1], expected=[]),
        lambda: shape("x", (0, 4), seq=0, d=4),
        lambda: shape("x", ()),
        lambda: close("x", observed=torch.ones(0), expected=torch.ones(0)),
        lambda: differs("x", observed=torch.ones(0), reference=torch.ones(0)),
        lambda: holds("x", True, observed=[]),
    ],
    ids=["same", "empty leaves", "same expected", "shape", "shape of no axes", "close", "differs", "holds"],
)
def test_nothing_observed_is_never_a_pass(compare):
    """An empty collection given to a helper is an error of the claim."""
    with pytest.raises(NothingObserved, match="nothing was"):
        compare()


def test_what_is_kept_is_small_json():
    """Any value becomes a few lines of JSON, whatever it is."""
    value = {"size": torch.Size([1, 2]), "big": range(1000), "weights": torch.ones(500, 500), "set": {2, 1},
             "nan": math.nan, "text": "x" * 5000, "dtype": torch.float32, 3: None}  # fmt: skip
    kept = evidence.as_json(value)
    assert len(json.dumps(kept, allow_nan=False)) < 1500
    assert kept["weights"] == {"shape": [500, 500], "dtype": "torch.float32"}
    assert kept["set"] == [1, 2]


def test_the_latest_comparisons_stay(notes):
    """A claim that compares very much keeps its latest comparisons."""
    for index in range(1000):
        same(f"row {index}", observed=index, expected=index)
    assert len(notes.observed) == evidence.MOST_NOTES
    assert "row 999" in notes.observed
