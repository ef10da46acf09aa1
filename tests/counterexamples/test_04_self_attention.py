"""Counterexamples of chapter 4."""

import pytest
import torch
from torch import nn

from tests.support.wounds import attend_with, matching, on_arguments, on_input, see

pytestmark = pytest.mark.slow

OPT, BERT, BART = "facebook/opt-125m", "google-bert/bert-base-cased", "facebook/bart-base"
GPT2, LLAMA, T5 = "openai-community/gpt2", "meta-llama/Llama-3.1-8B", "google-t5/t5-small"

WEIGHTED_SUM = "test_the_output_is_the_weighted_sum_of_the_values"
ROWS = "test_weights_of_a_row_sum_to_one"
LATER = "test_later_tokens_get_no_weight"
SAME_FOR_ANY_TEXT = "test_what_is_added_to_the_scores_is_the_same_for_any_text"
MORE_WEIGHT = "test_more_relevance_gets_more_weight"
ZERO_QUERY = "test_a_query_of_zero_asks_for_nothing_in_particular"
KEYS, VALUES = "test_keys_are_compared_and_not_handed_on", "test_values_are_handed_on_and_not_compared"
SEPARATE = "test_query_key_and_value_have_a_matrix_each"
LAYOUT = "test_the_projections_are_laid_out_as_published"


# ---- projections


@pytest.mark.breaks("test_every_attention_has_query_key_value_and_output_projections")
def test_an_attention_without_an_output_projection(fails):
    """What the heads of one layer return is added to the stream as it is; there is no projection to compute by hand."""

    def wound(model):
        model.model.decoder.layers[1].self_attn.out_proj.forward = lambda context: context

    fails(OPT, wound=wound, also=(WEIGHTED_SUM,), why="'output': []")


@pytest.mark.breaks("test_every_attention_has_query_key_value_and_output_projections")
def test_keys_that_nothing_projects(fails):
    """In the first block of an encoder the vectors themselves, their signs turned, are the keys."""

    def wound(model):
        model.bert.encoder.layer[0].attention.self.key.forward = lambda hidden_states: -hidden_states

    fails(BERT, wound=wound, why="'key': []")


@pytest.mark.breaks(SEPARATE)
@pytest.mark.parametrize(("one", "other"), [("v_proj", "k_proj"), ("k_proj", "q_proj")])
def test_two_roles_with_one_matrix(fails, one, other):
    """In an encoder in front of a decoder two of query, key and value are made by one and the same matrix."""

    def wound(model):
        for attention in matching(model, "model.encoder.layers.*.self_attn"):
            setattr(attention, one, getattr(attention, other))

    fails(BART, wound=wound, why="expected 'separate', observed 'fused'")


@pytest.mark.breaks(LAYOUT, SEPARATE)
def test_values_made_by_the_matrix_of_the_keys(fails):
    """A decoder with three published matrices hands on what it compares."""

    def wound(model):
        for attention in matching(model, "*.self_attn"):
            attention.v_proj = attention.k_proj

    fails(OPT, wound=wound, why="expected 'separate', observed 'fused'")


@pytest.mark.breaks(LAYOUT)
def test_one_layer_laid_out_otherwise(fails):
    """One layer of a decoder with fused projections has three matrices."""

    def wound(model):
        attention = model.transformer.h[1].attn
        attention.c_attn = _Apart(attention.embed_dim)

    fails(GPT2, wound=wound, why="expected 'fused', observed 'fused+separate'")


class _Apart(nn.Module):
    """Three matrices where one was."""

    def __init__(self, width):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, hidden_states):
        return _Parts(part(hidden_states) for part in self.parts)


class _Parts(tuple):
    """What is split already."""

    def split(self, *_, **__):
        return self


# ---- the weighted sum


@pytest.mark.breaks("test_self_attention_returns_a_vector_of_the_models_width_for_each_token")
def test_an_attention_that_joins_tokens(fails):
    """One layer at full size projects every second token's vector, and returns each of them twice."""

    def wound(model):
        projection = model.model.decoder.layers[3].self_attn.out_proj
        projection.register_forward_pre_hook(lambda module, args: (args[0][:, ::2],))
        projection.register_forward_hook(lambda module, args, output: output.repeat_interleave(2, dim=1))

    fails("facebook/opt-1.3b", wound_skeleton=wound, why="seq 5 != 10")


@pytest.mark.breaks("test_self_attention_returns_a_vector_of_the_models_width_for_each_token")
def test_an_attention_of_half_the_width(fails):
    """The layers of a decoder at full size put numbers into half of the stream only."""

    def wound(model):
        for attention in matching(model, "model.decoder.layers.*.self_attn"):
            attention.out_proj = nn.Linear(768, 384, device="meta", dtype=torch.bfloat16)
            attention.out_proj.register_forward_hook(lambda module, args, output: nn.functional.pad(output, (0, 384)))

    fails(BART, wound_skeleton=wound, why="d_model 384 != 768")


@pytest.mark.breaks(WEIGHTED_SUM)
@pytest.mark.parametrize(
    ("patient", "projection"),
    [
        (OPT, "*.self_attn.out_proj"),
        (BERT, "*.attention.output.dense"),
        (T5, "*.SelfAttention.o"),
        (GPT2, "*.attn.c_proj"),
    ],
)
def test_a_step_between_the_weighted_sum_and_its_projection(fails, patient, projection):
    """What is below zero in the weighted sums is cut off before the output projection."""
    fails(patient, wound=lambda model: on_input(model, projection, torch.relu), why="output: expected")


@pytest.mark.breaks(WEIGHTED_SUM)
def test_weights_that_are_not_those_of_the_scores(fails):
    """One layer mixes the softmax with the mean over what is seen: still shares of one."""

    def blur(scores):
        weights = scores.softmax(dim=-1)
        visible = (weights > 0).float()
        return 0.9 * weights + 0.1 * visible / visible.sum(dim=-1, keepdim=True)

    fails(OPT, wound=lambda model: attend_with(model, "*.layers.0.self_attn", weigh=blur))


@pytest.mark.breaks(WEIGHTED_SUM)
@pytest.mark.parametrize("patient", [OPT, BERT, LLAMA, BART])
def test_scores_three_times_as_large_with_noise(fails, patient):
    """The scores of every layer are three times what they should be, and have numbers added, the same for any text."""

    def disturb(scores):
        noise = torch.randn(scores.shape[1:], generator=torch.Generator().manual_seed(0))
        return 3 * scores + noise

    scale = "test_scores_are_scaled_by_the_root_of_the_head_width"
    fails(patient, wound=lambda model: attend_with(model, scores=disturb), also=(scale, ZERO_QUERY))


@pytest.mark.breaks(WEIGHTED_SUM)
def test_scores_with_noise_in_one_layer(fails):
    """The scores of the last layer alone have numbers added, the same for any text."""

    def disturb(scores):
        return scores + torch.randn(scores.shape[1:], generator=torch.Generator().manual_seed(0))

    fails(OPT, wound=lambda model: attend_with(model, "*.layers.1.self_attn", scores=disturb))


@pytest.mark.breaks(WEIGHTED_SUM)
def test_a_pair_of_tokens_with_a_number_of_its_own(fails):
    """Where a number is added for each distance, the fifth token adds another one for the third."""

    def wound(model):
        attention = model.encoder.block[0].layer[0].SelfAttention
        of_distances = attention.compute_bias

        def compute_bias(*lengths, **rest):
            bias = of_distances(*lengths, **rest).clone()
            bias[..., 4, 2] -= 1
            return bias

        attention.compute_bias = compute_bias

    fails(T5, wound=wound)


@pytest.mark.breaks(SAME_FOR_ANY_TEXT, WEIGHTED_SUM)
@pytest.mark.parametrize("patient", [OPT, BERT, LLAMA])
def test_scores_that_are_capped(fails, patient):
    """A tanh keeps the scores of every layer between minus two and two."""

    def wound(model):
        attend_with(model, scores=lambda scores: torch.tanh(scores / 2) * 2)

    fails(patient, wound=wound)


# ---- weights


@pytest.mark.breaks("test_weights_are_never_negative")
@pytest.mark.parametrize(
    ("patient", "last", "also"),
    [
        (OPT, "*.layers.1.self_attn", ()),
        (BERT, "*.layer.1.attention.self", ("test_an_encoder_gives_weight_to_later_tokens",)),
    ],
)
def test_weights_below_zero(fails, patient, last, also):
    """More than one is shared out in the last layer, and the excess taken back from all that is seen."""

    def overdraw(scores):
        weights = scores.softmax(dim=-1)
        visible = (weights > 0).float()
        return 2 * weights - visible / visible.sum(dim=-1, keepdim=True)

    fails(patient, wound=lambda model: attend_with(model, last, weigh=overdraw), also=(WEIGHTED_SUM, *also))


@pytest.mark.breaks(ROWS)
@pytest.mark.parametrize("patient", [OPT, BERT, LLAMA])
def test_weights_that_are_not_normalized(fails, patient):
    """A tenth of every weight is lost."""

    def wound(model):
        attend_with(model, weigh=lambda scores: scores.softmax(dim=-1) * 0.9)

    fails(patient, wound=wound, also=(WEIGHTED_SUM,))


@pytest.mark.breaks(ROWS)
def test_a_sink_nobody_declared(fails):
    """Cross-attention gives a share of every row to nothing."""

    def sink(scores):
        nothing = torch.zeros_like(scores[..., :1])
        return torch.cat([scores, nothing], dim=-1).softmax(dim=-1)[..., :-1]

    fails(BART, wound=lambda model: attend_with(model, "*.encoder_attn", weigh=sink))


@pytest.mark.breaks(ROWS, MORE_WEIGHT, WEIGHTED_SUM)
@pytest.mark.parametrize(("patient", "also"), [(OPT, (ZERO_QUERY,)), (BERT, ())])
def test_a_softmax_over_the_wrong_axis(fails, patient, also):
    """What a key gives to all queries are shares of one, not what a query receives."""

    def wound(model):
        attend_with(model, weigh=lambda scores: scores.softmax(dim=-2))

    fails(patient, wound=wound, also=also)


@pytest.mark.breaks(LATER, WEIGHTED_SUM)
@pytest.mark.parametrize("patient", [OPT, BART, GPT2])
def test_a_mask_shifted_by_one(fails, patient):
    """The last layer of a decoder sees one token ahead."""
    last = {OPT: "*.layers.1.self_attn", BART: "*.decoder.layers.1.self_attn", GPT2: "*.h.1.attn"}[patient]
    fails(patient, wound=lambda model: see(model, last, lambda query, key: key <= query + 1))


@pytest.mark.breaks(LATER, WEIGHTED_SUM)
def test_a_mask_that_lets_a_little_through(fails):
    """The last layer's mask lowers the scores of later tokens by ten."""

    def wound(model):
        see(model, "*.layers.1.self_attn", lambda query, key: key <= query, elsewhere=-10)

    fails(OPT, wound=wound)


@pytest.mark.breaks("test_an_encoder_gives_weight_to_later_tokens", WEIGHTED_SUM)
@pytest.mark.parametrize("patient", [BERT, BART])
def test_an_encoder_with_a_decoders_mask(fails, patient):
    """The last layer of an encoder sees no later token."""
    last = {BERT: "*.layer.1.attention.self", BART: "*.encoder.layers.1.self_attn"}[patient]
    fails(patient, wound=lambda model: see(model, last, lambda query, key: key <= query))


@pytest.mark.breaks("test_an_encoder_gives_weight_to_later_tokens", WEIGHTED_SUM)
def test_an_encoder_with_one_token_that_looks_back_only(fails):
    """The fourth token of an encoder sees no later token; all others see everything."""

    def wound(model):
        see(model, "*.layer.0.attention.self", lambda query, key: (query != 3) | (key <= query))

    fails(BERT, wound=wound)


# ---- scores


@pytest.mark.breaks("test_scores_are_scaled_by_the_root_of_the_head_width")
@pytest.mark.parametrize(
    ("patient", "where", "factor"),
    [
        (OPT, "*.layers.1.self_attn", 1.0),
        (BERT, "*.attention.self", 0.125),
        (BART, "*.0.encoder_attn", 1.0),
        (LLAMA, "*.self_attn", 0.3),
    ],
)
def test_another_scale(fails, patient, where, factor):
    """The products are not scaled, or by another number: in one layer, in all, in a cross-attention."""

    def wound(model):
        for attention in matching(model, where):
            attention.scaling = factor

    of_itself = () if where.endswith("encoder_attn") else (WEIGHTED_SUM,)
    fails(patient, wound=wound, also=of_itself, why=f"observed {factor:g}")


@pytest.mark.breaks(MORE_WEIGHT)
@pytest.mark.parametrize("patient", [OPT, LLAMA])
def test_an_attention_that_picks_one_token(fails, patient):
    """The token with the highest score gets all the weight; to rise below it is of no use."""

    def pick(scores):
        weights = scores.softmax(dim=-1)
        return (weights == weights.amax(dim=-1, keepdim=True)).float()

    fails(patient, wound=lambda model: attend_with(model, weigh=pick), also=(WEIGHTED_SUM,), why="its weight rises")


@pytest.mark.breaks(MORE_WEIGHT)
def test_an_attention_that_shares_out_backwards(fails):
    """What a softmax gives to the first token goes to the last one, and so on."""

    def wound(model):
        attend_with(model, weigh=lambda scores: scores.softmax(dim=-1).flip(-1))

    fails(BERT, wound=wound, also=(WEIGHTED_SUM,), why="its weight rises")


@pytest.mark.breaks(ZERO_QUERY, WEIGHTED_SUM)
@pytest.mark.parametrize("patient", [OPT, BERT])
def test_scores_with_a_taste_of_their_own(fails, patient):
    """The first token of a text gets one more in every score, whatever is asked."""

    def wound(model):
        attend_with(model, scores=lambda scores: scores + nn.functional.one_hot(torch.tensor(0), scores.shape[-1]))

    fails(patient, wound=wound)


# ---- what is compared, and what is handed on


@pytest.mark.breaks(VALUES)
@pytest.mark.parametrize(("patient", "also"), [(OPT, (SEPARATE, LAYOUT, KEYS)), (GPT2, (KEYS,))])
def test_values_that_are_compared(fails, patient, also):
    """A query is compared with the values."""

    def wound(model):
        attend_with(model, operands=lambda query, key, value: (query, value, value))

    fails(patient, wound=wound, also=also)


@pytest.mark.breaks(KEYS)
@pytest.mark.parametrize(("patient", "also"), [(LLAMA, (SEPARATE, LAYOUT, VALUES)), (GPT2, (VALUES,))])
def test_keys_that_are_handed_on(fails, patient, also):
    """What a token receives are the keys."""

    def wound(model):
        attend_with(model, operands=lambda query, key, value: (query, key, key))

    fails(patient, wound=wound, also=also)


@pytest.mark.breaks(KEYS)
def test_keys_that_count_for_nothing(fails):
    """All keys of a head are one and the same, so that every weight is."""

    def wound(model):
        attend_with(
            model, operands=lambda query, key, value: (query, key.mean(dim=-2, keepdim=True).expand_as(key), value)
        )

    fails(BERT, wound=wound, why="weights: expected a difference")


# ---- what attention is given


@pytest.mark.breaks("test_attention_receives_the_stream_itself")
@pytest.mark.parametrize("patient", [BERT, BART])
def test_a_norm_nobody_declared(fails, patient):
    """A norm stands between the stream and the attention of one block."""
    where = {BERT: "*.layer.1.attention", BART: "*.decoder.layers.1.self_attn"}[patient]

    def wound(model):
        on_input(model, where, lambda hidden_states: nn.functional.layer_norm(hidden_states, [64]))

    fails(patient, wound=wound)


# ---- two texts


@pytest.mark.breaks("test_cross_attention_compares_the_target_with_the_source")
def test_a_cross_attention_that_skips_a_token(fails):
    """The source's first token is hidden from the decoder."""

    def hide(mask):
        mask = torch.zeros(1, 1, 7, 10) if mask is None else mask.clone()
        mask[..., 0] = -1e9
        return mask

    fails(
        BART,
        wound=lambda model: on_arguments(model, "*.encoder_attn", attention_mask=hide),
        why="every source token counts",
    )


@pytest.mark.breaks("test_cross_attention_compares_the_target_with_the_source")
@pytest.mark.parametrize(
    ("patient", "where", "mask"), [(BART, "*.encoder_attn", "attention_mask"), (T5, "*.EncDecAttention", "mask")]
)
def test_a_cross_attention_that_is_not_given_the_whole_source(fails, patient, where, mask):
    """The decoder is handed nine of the source's ten vectors."""

    def wound(model):
        cut = {
            "key_value_states": lambda source: source[:, 1:],
            mask: lambda mask: None if mask is None else mask[..., 1:],
        }
        on_arguments(model, where, **cut)

    fails(patient, wound=wound, why="source 9 != 10")


@pytest.mark.breaks("test_cross_attention_respects_the_sources_mask")
@pytest.mark.parametrize("patient", [BART, "Helsinki-NLP/opus-mt-en-fr"])
def test_a_cross_attention_that_ignores_the_sources_mask(fails, patient):
    """The last decoder layer sees the source's padding."""
    fails(patient, wound=lambda model: on_arguments(model, "*.layers.1.encoder_attn", attention_mask=lambda mask: None))
