"""An error planted in models.yaml is seen: the claims that speak of the fact fail, and no others of any chapter.

The error stands in a matrix of one model, which is read as the project's own is; the model is built once and shared.
"""

import copy
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import yaml

from fixtures.claims.parametrize import ROOT, read_matrix
from fixtures.published import entries_file
from fixtures.published.entry import applying
from fixtures.verdicts.judge import DOES_NOT_APPLY, FAILS
from tests.support.ward import Patient, Results, examine, healthy, matrix

pytestmark = pytest.mark.slow

OPT, OPT_350M, GPT2, LLAMA = (
    "facebook/opt-1.3b",
    "facebook/opt-350m",
    "openai-community/gpt2",
    "meta-llama/Llama-3.1-8B",
)
BERT, BART, MIXTRAL = "google-bert/bert-base-cased", "facebook/bart-base", "mistralai/Mixtral-8x7B-v0.1"

STREAM_WIDTH = {
    "test_the_width_is_the_published_one",
    "test_every_position_has_a_vector_of_the_models_width",
    "test_self_attention_returns_a_vector_of_the_models_width_for_each_token",
    "test_the_width_is_the_same_all_the_way_up",
}
LAYERS = {"test_the_model_stacks_its_published_number_of_layers", "test_the_published_number_of_layers_attends"}
ALL_THE_WIDTH = "test_heads_times_head_width_is_the_models_width"
SPLIT = "test_the_sentence_becomes_its_recorded_tokens"
TOKENIZER = {
    SPLIT,
    "test_every_token_id_has_a_row",
    "test_a_saved_tokenizer_loads_as_it_was",
}
READS_BOTH_WAYS = {
    "test_an_encoder_looks_both_ways",
    "test_without_positions_an_encoder_sees_a_set",
    "test_an_encoder_gives_weight_to_later_tokens",
    "test_every_token_reaches_every_other_in_every_layer_of_an_encoder",
    "test_an_encoder_cannot_generate_and_says_so",
}
WRITES = {
    "test_a_decoder_does_not_look_ahead",
    "test_a_decoder_scores_the_next_token",
    "test_later_tokens_get_no_weight",
    "test_a_decoder_only_model_continues_the_prompt",
    "test_what_is_written_depends_on_what_was_read",
    "test_every_new_token_is_the_one_scored_highest",
    "test_greedy_decoding_draws_no_lots",
    "test_a_text_is_written_alike_beside_others",
    "test_padding_changes_nothing_that_is_written",
}


class Planted(NamedTuple):
    """One error: what is written of a model in place of what is true, and the claims that then fail."""

    fact: str
    model: str
    wrong: Any
    claims: set[str]


# Numbers are off by the smallest step that the file's own rules allow. A fact that others follow from, by default or by
# a trait, takes their claims along. A size is the publisher's round number: an error in it begins at a tenth.
ERRORS = [
    Planted("family", GPT2, "encoder-only", {"test_the_family_is_the_declared_one", *READS_BOTH_WAYS}),
    Planted("family", BERT, "decoder-only", {"test_the_family_is_the_declared_one", *WRITES}),
    Planted("layers", OPT_350M, 25, LAYERS),
    Planted("layers", OPT, 23, {*LAYERS, "test_printing_shows_24_decoder_layers"}),
    Planted("encoder_layers", BART, 7, {"test_the_encoder_stacks_its_published_number_of_layers"}),
    Planted("attention_layers", GPT2, 11, {"test_the_published_number_of_layers_attends"}),
    Planted("d_model", OPT_350M, 1025, STREAM_WIDTH),
    Planted(
        "d_model",
        BERT,
        767,
        {
            *STREAM_WIDTH,
            "test_an_encoder_turns_a_text_into_vectors",
            "test_ten_tokens_become_ten_vectors",
        },
    ),
    Planted(
        "d_model",
        OPT,
        2049,
        {
            *STREAM_WIDTH,
            "test_ten_tokens_become_ten_vectors",
            "test_printing_shows_24_decoder_layers",
            "test_embed_tokens_takes_the_ids",
            "test_embed_positions_still_takes_the_mask",
            "test_the_first_value_is_the_hidden_states",
        },
    ),
    Planted("d_embedding", OPT_350M, 513, {"test_ten_tokens_become_ten_vectors"}),
    Planted("heads", LLAMA, 40, {"test_the_model_has_its_published_heads", ALL_THE_WIDTH}),
    Planted("kv_heads", LLAMA, 4, {"test_the_model_has_its_published_key_and_value_heads"}),
    Planted(
        "kv_heads",
        BERT,
        6,
        {
            "test_the_model_has_its_published_key_and_value_heads",
            "test_every_head_has_keys_and_values_of_its_own",
        },
    ),
    Planted("d_head", BERT, 65, {"test_a_head_has_its_published_width", ALL_THE_WIDTH}),
    Planted("d_ff", OPT_350M, 4095, {"test_the_feed_forward_network_has_its_published_inner_width"}),
    Planted("d_expert", MIXTRAL, 14337, {"test_an_expert_has_its_published_inner_width"}),
    Planted("experts", MIXTRAL, 9, {"test_the_experts_are_as_many_as_published"}),
    Planted("experts_active", MIXTRAL, 3, {"test_the_experts_are_as_many_as_published"}),
    Planted("vocab_size", BERT, 28997, {"test_the_vocabulary_has_its_published_size"}),
    Planted(
        "vocab_size",
        GPT2,
        50258,
        {"test_the_vocabulary_has_its_published_size", "test_a_decoder_scores_the_next_token"},
    ),
    Planted(
        "vocab_size",
        BART,
        50266,
        {"test_the_vocabulary_has_its_published_size", "test_an_encoder_decoder_scores_a_target_given_a_source"},
    ),
    Planted(
        "positions",
        GPT2,
        "sinusoidal",
        {"test_the_position_scheme_is_the_published_one", "test_sinusoids_follow_the_formula"},
    ),
    Planted(
        "positions",
        GPT2,
        "rotary",
        {
            "test_the_position_scheme_is_the_published_one",
            "test_positions_are_added_to_the_token_embeddings",
            "test_rotary_scores_depend_on_the_distance_alone",
        },
    ),
    Planted(
        "projections",
        GPT2,
        "separate",
        {"test_the_projections_are_laid_out_as_published", "test_query_key_and_value_have_a_matrix_each"},
    ),
    Planted(
        "norm",
        GPT2,
        "post",
        {"test_the_norms_stand_where_published", "test_attention_receives_the_stream_itself"},
    ),
    Planted("tied_embeddings", GPT2, False, {"test_the_head_is_tied_as_published"}),
    Planted("window", "openai/gpt-oss-20b", 129, {"test_a_window_is_as_wide_as_published"}),
    Planted("parameters", GPT2, 124439807, {"test_the_parameters_are_as_many_as_published"}),
    Planted("size", GPT2, "140M", {"test_the_publishers_size_is_the_number_of_parameters"}),
    Planted("size_active", MIXTRAL, "14.5B", {"test_few_experts_act_at_once"}),
    Planted("sentence.algorithm", GPT2, "wordpiece", TOKENIZER),
    Planted("sentence.pieces", GPT2, [*"ABCDEFGHI"], TOKENIZER),
    Planted("sentence.tokenizer_size", GPT2, 50258, {"test_every_token_id_has_a_row", SPLIT}),
    Planted("sentence.vocabulary", GPT2, "roberta", TOKENIZER),
    Planted("sentence.ids", GPT2, [464, 2068, 7586, 21832, 18045, 625, 262, 16931, 3290], {SPLIT}),
]
# Where the numbers come from, and how far quantization may be off: no model contradicts these.
NOT_OBSERVED = {"source", "revision", "runs_as", "note", "budgets"}
DEPARTURES = {"traits", "departs"}  # planted below
MARKS = "not (quantization or gpu or weights or benchmark)"  # these take their time, and speak of no published fact


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    """What models.yaml says, as data."""
    return yaml.safe_load((ROOT / "models.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def found(written, tmp_path):
    """What claims find on a model of which something else is written: `found(model, entry, traits, claims)`."""

    def run(model: str, entry: dict[str, Any], traits: dict[str, Any] | None = None, claims: str = "") -> Results:
        file = tmp_path / "models.yaml"
        whole = written | {"traits": written["traits"] if traits is None else traits, "models": {model: entry}}
        file.write_text(yaml.safe_dump(whole, allow_unicode=True), encoding="utf-8")
        planted = read_matrix(file)
        return examine(Patient(planted.entries[model], planted.traits), claims=claims, marks=MARKS)

    return run


@pytest.fixture
def failing(found):
    """The claims that then fail, and why."""

    def run(*arguments: Any) -> dict[str, str]:
        return {name: result["reason"] for name, result in found(*arguments).items() if result["verdict"] == FAILS}

    return run


@pytest.mark.parametrize("planted", ERRORS, ids=lambda planted: f"{planted.fact}-{planted.model}-{planted.wrong}"[:80])
def test_an_error_fails_the_claims_that_speak_of_it(planted, failing, written):
    entry = copy.deepcopy(written["models"][planted.model])
    place, _, name = planted.fact.rpartition(".")
    where = entry[place] if place else entry
    assert where.get(name) != planted.wrong, "what is planted is no error"
    where[name] = planted.wrong
    failed = failing(planted.model, entry)
    assert set(failed) == planted.claims, failed


@pytest.mark.parametrize("patient", sorted({planted.model for planted in ERRORS}))
def test_without_an_error_no_claim_fails(patient, failing, written):
    assert failing(patient, written["models"][patient]) == {}


def test_every_fact_has_an_error_planted():
    properties = json.loads(entries_file.SCHEMA.read_bytes())["$defs"]["entry"]["properties"]
    facts = {name for name in properties if "properties" not in properties[name]}
    facts |= {f"{name}.{part}" for name in properties for part in properties[name].get("properties", {})}
    assert facts - NOT_OBSERVED - DEPARTURES == {planted.fact for planted in ERRORS}


def test_a_departure_that_is_not_seen_fails(failing, written):
    entry = copy.deepcopy(written["models"][GPT2])
    entry["departs"] = {"test_weights_are_never_negative": "Some tokens take away from others."}
    failed = failing(GPT2, entry)
    assert set(failed) == {"test_weights_are_never_negative"}
    assert "declared to depart (Some tokens take away from others.) but holds" in failed.popitem()[1]


def test_a_trait_that_is_not_there_fails(failing, written):
    entry = copy.deepcopy(written["models"][GPT2])
    entry["traits"].append("attention-sink")
    assert set(failing(GPT2, entry)) == set(written["traits"]["attention-sink"]["departs"])


def departing() -> Iterator[str]:
    """The first models of the matrix that together have every trait and every departure of an entry's own."""
    covered: set[str] = set()
    for model, entry in matrix().entries.items():
        new = {*(trait.name for trait in applying(entry, matrix().traits)), *entry.departs} - covered
        if new:
            covered |= new
            yield model


@pytest.mark.parametrize("patient", [*departing()])
def test_a_departure_that_is_taken_away_fails(patient, found, written):
    declared = set(healthy(patient).departures)
    entry = {key: value for key, value in written["models"][patient].items() if key not in DEPARTURES}
    results = found(patient, entry, {}, " or ".join(declared))
    verdicts = {claim: result["verdict"] for claim, result in results.items() if claim in declared}
    assert FAILS in verdicts.values()
    assert set(verdicts.values()) <= {FAILS, DOES_NOT_APPLY}, verdicts


@pytest.mark.parametrize("patient", [model for model, entry in matrix().entries.items() if entry.departs])
def test_a_model_departs_from_claims_that_are_about_it(patient):
    own = set(matrix().entries[patient].departs)
    assert set(examine(Patient(matrix().entries[patient], matrix().traits), claims=" or ".join(own))) == own
