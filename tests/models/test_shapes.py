"""What comes out of an operation without numbers: what is known already is what torch would say again."""

import contextlib

import pytest
import torch

from fixtures.models.shapes import Shapes
from fixtures.models.skeleton import build_skeleton
from fixtures.published.release import recorded
from tests.support.ward import matrix

# Separate and fused projections, experts, a latent, a sink, relative positions, a recurrence.
MODELS = (
    "facebook/opt-125m",
    "openai-community/gpt2",
    "deepseek-ai/DeepSeek-V3",
    "openai/gpt-oss-20b",
    "google-t5/t5-small",
    "state-spaces/mamba-130m-hf",
)


def laid_out(run):
    """Every operation of a pass, with the layout of all that came out of it."""
    return [(op.name, [(t.shape, t.stride(), t.dtype, t.device) for t in op.outputs]) for op in run.tape.ops]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_known_answers_are_those_of_torch(name):
    """A pass that asks torch each time has the same operations and layouts, the second pass with all answers known."""
    skeleton = build_skeleton(recorded(matrix().entries[name]).config)
    known = laid_out(skeleton.trace), laid_out(skeleton.run())
    with torch.device("meta"):
        skeleton.answer = None
        asked = laid_out(skeleton.run())
    assert known == (asked, asked)


@pytest.fixture
def answer():
    """Answers, on tensors that are on the meta device anyway."""
    return Shapes(contextlib.nullcontext)


def meta(*shape, dtype=torch.float32):
    return torch.empty(*shape, dtype=dtype, device="meta")


def test_each_answer_is_a_tensor_of_its_own(answer):
    """Two results of the same question share nothing: what is written into one is not in the other."""
    with torch.no_grad():
        one, other = (answer(torch.relu, (meta(2, 3),), {}) for _ in range(2))
    assert one is not other
    assert one.untyped_storage()._cdata != other.untyped_storage()._cdata


def test_views_and_changes_in_place_stay_what_they_are(answer):
    """A view shares its memory with what it is of, and a change in place returns what it changed."""
    with torch.no_grad():
        for _ in range(3):
            tensor = meta(4, 6)
            view = answer(torch.Tensor.view, (tensor, 24), {})
            assert view.untyped_storage()._cdata == tensor.untyped_storage()._cdata
            assert answer(torch.Tensor.add_, (tensor, 1), {}) is tensor


@pytest.mark.parametrize(
    ("first", "then"),
    [((meta(2), 1), (meta(2), 1.0)), ((meta(2),), (meta(3),)), ((meta(4, 2),), (meta(2, 4).t(),))],
    ids=["kind of number", "shape", "stride"],
)
def test_questions_that_differ_are_told_apart(answer, first, then):
    """A number of another kind, another shape or another layout is another question."""
    first, then = ([t.long() if len(case) > 1 and t is case[0] else t for t in case] for case in (first, then))
    func = torch.add if len(first) > 1 else torch.clone
    with torch.no_grad():
        answer(func, tuple(first), {})
        found, wanted = answer(func, tuple(then), {}), func(*then)
    assert (found.shape, found.stride(), found.dtype) == (wanted.shape, wanted.stride(), wanted.dtype)


def test_several_results_come_together(answer):
    """What is sorted comes with its order, by name, known or not."""
    with torch.no_grad():
        for _ in range(2):
            found = answer(torch.sort, (meta(2, 5),), {"descending": True})
            assert found.values.shape == found.indices.shape == (2, 5)
            assert found.indices.dtype == torch.int64


def test_gradients_and_transforms_are_left_to_torch(answer):
    """With gradients on, and inside vmap, where a tensor shows another shape than it has, nothing is taken as known."""
    weight = torch.nn.Parameter(meta(3))
    with torch.no_grad():
        answer(torch.relu, (weight,), {})
    assert answer(torch.relu, (weight,), {}).requires_grad
    with torch.no_grad():
        answer(torch.sum, (meta(3),), {})
        assert torch.vmap(lambda row: answer(torch.sum, (row,), {}))(meta(5, 3)).shape == (5,)


def test_numbers_are_left_to_torch(answer):
    """Real tensors are computed with every time."""
    with torch.no_grad():
        assert [float(answer(torch.sum, (torch.full((2,), value),), {})) for value in (1.0, 2.0)] == [2.0, 4.0]


def test_the_parts_of_a_skeleton_are_those_of_the_model_that_ran():
    """A way that builds the model anew leaves nothing behind of what was known of the one before."""
    from transformers import NystromformerConfig

    skeleton = build_skeleton(NystromformerConfig(architectures=["NystromformerForMaskedLM"]))
    before = skeleton.model
    blocks = [block.module for stack in skeleton.trace.stacks for block in stack.blocks]
    assert skeleton.model is not before
    names = [skeleton.module_names[id(block)] for block in blocks]
    assert names == [f"nystromformer.encoder.layer.{number}" for number in range(12)]
    assert skeleton.names.keys() == {id(parameter) for parameter in skeleton.model.parameters()}
