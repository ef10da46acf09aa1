"""The lesson's own code: each of its snippets on today's library, and what to type where it no longer runs.

The lesson was written for transformers 4.30. Its look into OPT still works but for one line; its way of asking for 8
bits is gone, and three things have changed without a word: attention is sdpa, which returns no weights and looks at no
later token; weights stay in the file's type; and a tokenizer without its files is empty.
"""

import copy
import io
import logging

import pytest
import torch

from fixtures.models.runnable import SEQ
from fixtures.published.tokenizer import SENTENCE
from fixtures.verdicts.evidence import close, differs, holds, same, shape

pytestmark = [pytest.mark.lesson("The Architecture in Practice"), pytest.mark.about("facebook/opt-1.3b")]
BERT = pytest.mark.about("google-bert/bert-base-cased")


@pytest.fixture
def checkpoint(miniature, tmp_path):
    """A folder that holds the miniature, as from_pretrained wants it."""
    miniature.model.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def pretraining_checkpoint(miniature, tmp_path):
    """A folder that holds a BERT as it was trained: the encoder, its pooler and both heads."""
    from transformers import BertForPreTraining

    BertForPreTraining(miniature.config).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.lesson("Loading the Model: print(inp_tokenized)")
def test_the_tokenizer_returns_ten_ids_and_a_mask_of_ones(tokenizer):
    """Today: unchanged. tokenizer(inp, return_tensors="pt") gives [1, 10], and as many ones."""
    inp_tokenized = tokenizer(SENTENCE, return_tensors="pt")
    shape("input_ids", inp_tokenized["input_ids"], batch=1, seq=SEQ)
    same("attention_mask", observed=inp_tokenized["attention_mask"].tolist(), expected=[[1] * SEQ])


@pytest.mark.lesson('Loading the Model: AutoTokenizer.from_pretrained("facebook/opt-1.3b")')
def test_a_tokenizer_without_its_files_is_empty(checkpoint):
    """Today: a folder without a vocabulary raises nothing, and a text becomes no tokens; look at len(tokenizer)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    same("tokens of the sentence", observed=len(tokenizer(SENTENCE)["input_ids"]), expected=0)
    holds("entries", len(tokenizer) < SEQ, observed=len(tokenizer), expected=f"fewer than {SEQ}")


@pytest.mark.lesson("Loading the Model: load_in_8bit=True")
def test_load_in_8bit_is_no_argument_any_more(checkpoint):
    """Today: TypeError. The lesson's AutoModelForCausalLM.from_pretrained(..., load_in_8bit=True) does not load."""
    from transformers import AutoModelForCausalLM

    message = _error(lambda: AutoModelForCausalLM.from_pretrained(checkpoint, load_in_8bit=True))
    holds("error", message.startswith("TypeError") and "'load_in_8bit'" in message, observed=message)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # bitsandbytes and torch, on import
@pytest.mark.lesson("Loading the Model: #quantization_config=quantization_config")
def test_a_quantization_config_loads_in_8bit(checkpoint, miniature):
    """Today: quantization_config=BitsAndBytesConfig(load_in_8bit=True), which no longer needs a GPU."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_8bit=True)
    OPT = AutoModelForCausalLM.from_pretrained(checkpoint, quantization_config=config, device_map="auto")
    quantized = [name.split(".")[-1] for name, m in OPT.named_modules() if type(m).__name__ == "Linear8bitLt"]
    one_layer = ["k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"]
    same("8-bit modules", observed=quantized, expected=one_layer * miniature.trace.stack.layers)
    with torch.no_grad():
        shape(
            "scores", OPT(miniature.ids.to(OPT.device)).logits, batch=1, seq=SEQ, vocab=miniature.trace.output.shape[-1]
        )


@pytest.mark.lesson('In Action: device_map="auto"')
def test_device_map_auto_places_the_whole_model(checkpoint, miniature):
    """Today: unchanged. Without load_in_8bit the line loads the model, onto the GPU or, without one, the CPU."""
    from transformers import AutoModelForCausalLM

    OPT = AutoModelForCausalLM.from_pretrained(checkpoint, device_map="auto")
    device = (torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")).type
    same("devices", observed=sorted({p.device.type for p in OPT.parameters()}), expected=[device])
    with torch.no_grad():
        scores = OPT(miniature.ids.to(device)).logits
    close("scores", observed=scores, expected=miniature.trace.output, tolerance=1e-3)


@pytest.mark.lesson("Loading the Model: AutoModelForCausalLM.from_pretrained")
def test_weights_keep_the_files_type(miniature, tmp_path):
    """Today: a 16-bit file, as OPT's is, stays in 16 bits; dtype=torch.float32 gives what 4.30 gave."""
    from transformers import AutoModelForCausalLM

    copy.deepcopy(miniature.model).half().save_pretrained(tmp_path)
    given = [AutoModelForCausalLM.from_pretrained(tmp_path, **more) for more in ({}, {"dtype": torch.float32})]
    same("types", observed=[str(OPT.dtype) for OPT in given], expected=["torch.float16", "torch.float32"])


@pytest.mark.lesson("Inspecting Architecture: print(OPT.model)")
def test_printing_shows_24_decoder_layers(skeleton, published):
    """Today: unchanged. One decoder of 24 OPTDecoderLayer, each with q_proj, k_proj, v_proj and out_proj."""
    printed, d, last = str(skeleton.model.model), published.d_model, published.layers - 1
    lines = [line.strip() for line in printed.splitlines()]
    expected = [f"(0-{last}): {published.layers} x OPTDecoderLayer(", "(self_attn): OPTAttention("]
    for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
        expected.append(f"({projection}): Linear(in_features={d}, out_features={d}, bias=True)")
    same("lines of print(OPT.model)", observed=[line for line in expected if line in lines], expected=expected)


@pytest.mark.lesson("Embedding Layer: Expected: [1, 10, 2048]")
def test_embed_tokens_takes_the_ids(skeleton, published):
    """Today: unchanged. OPT.model.decoder.embed_tokens(ids) gives [1, 10, 2048]."""
    embedded_input = skeleton.model.model.decoder.embed_tokens(skeleton.ids)
    shape("embedded_input", embedded_input, batch=1, seq=SEQ, d_model=published.d_model)


@pytest.mark.lesson("Positional Embedding: Expected: [1, 10, 2048]")
def test_embed_positions_still_takes_the_mask(skeleton, published):
    """Today: unchanged. OPT.model.decoder.embed_positions(attention_mask) gives [1, 10, 2048]."""
    embed_pos_input = skeleton.model.model.decoder.embed_positions(torch.ones_like(skeleton.ids))
    shape("embed_pos_input", embed_pos_input, batch=1, seq=SEQ, d_model=published.d_model)


@pytest.mark.lesson("Self-Attention Output: hidden_states, _, _ =")
def test_self_attention_no_longer_returns_three_values(skeleton):
    """Today: ValueError. Two values come back from self_attn(embed_position_input), where in 4.30 it was three."""
    self_attn = skeleton.model.model.decoder.layers[0].self_attn

    def as_the_lesson_has_it():
        hidden_states, _, _ = self_attn(_embed_position_input(skeleton.model, skeleton.ids))
        return hidden_states

    message = _error(as_the_lesson_has_it)
    holds("error", message.startswith("ValueError: not enough values to unpack (expected 3"), observed=message)


@pytest.mark.lesson("Self-Attention Output: Expected: [1, 10, 2048]")
def test_the_first_value_is_the_hidden_states(skeleton, published):
    """Today: hidden_states = OPT.model.decoder.layers[0].self_attn(embed_position_input)[0] gives [1, 10, 2048]."""
    embed_position_input = _embed_position_input(skeleton.model, skeleton.ids)
    hidden_states = skeleton.model.model.decoder.layers[0].self_attn(embed_position_input)[0]
    shape("hidden_states", hidden_states, batch=1, seq=SEQ, d_model=published.d_model)


def test_the_second_value_is_the_weights_under_eager_alone(miniature):
    """Today: None by default; after OPT.set_attn_implementation("eager") the weights, [1, heads, 10, 10]."""
    weights = {how: _bare_call(miniature, how)[1] for how in ("sdpa", "eager")}
    same("second value under sdpa", observed=type(weights["sdpa"]).__name__, expected="NoneType")
    shape(
        "second value under eager",
        weights["eager"],
        batch=1,
        heads=miniature.trace.first_attention.heads,
        target=SEQ,
        source=SEQ,
    )


@pytest.mark.lesson("Self-Attention Output: the self-attention module processes the sum")
def test_the_bare_call_looks_ahead_under_eager_alone(miniature):
    """Today: self_attn(x) is causal under sdpa, the default, and looks both ways under eager, which 4.30 had."""
    sees = {}
    for how in ("sdpa", "eager"):
        moved = _bare_call(miniature, how)[0] - _bare_call(miniature, how, change_last=True)[0]
        sees[how] = bool(moved[0, 0].abs().max() > 1e-5)
    same("the first token sees the last", observed=sees, expected={"sdpa": False, "eager": True})


@pytest.mark.lesson("Self-Attention Output: the self-attention module processes the sum")
def test_the_bare_call_is_not_what_the_model_computes(miniature):
    """Today as then: the model normalizes the sum before its attention reads it, and the lesson's call does not."""
    for how in ("sdpa", "eager"):
        bare = _bare_call(miniature, how)[0]
        differs(f"hidden_states under {how}", observed=bare, reference=miniature.trace.first_attention.output, by=0.01)


def test_the_norm_first_gives_what_the_model_computes(miniature):
    """Today: under sdpa, self_attn(self_attn_layer_norm(embed_position_input))[0] is the model's own attention."""
    hidden_states = _bare_call(miniature, "sdpa", normed=True)[0]
    close("hidden_states", observed=hidden_states, expected=miniature.trace.first_attention.output)


@pytest.mark.lesson("Self-Attention Mechanism: learned attention scores between words")
def test_attention_weights_have_to_be_asked_of_eager(checkpoint, miniature):
    """Today: output_attentions=True gives an empty tuple; load with attn_implementation="eager" to see weights."""
    from transformers import AutoModelForCausalLM

    counts = {}
    for how in ({}, {"attn_implementation": "eager"}):
        OPT = AutoModelForCausalLM.from_pretrained(checkpoint, **how)
        with torch.no_grad():
            counts[how.get("attn_implementation", "default")] = len(
                OPT(miniature.ids, output_attentions=True).attentions
            )
    same("layers with weights", observed=counts, expected={"default": 0, "eager": miniature.trace.stack.layers})


@BERT
@pytest.mark.lesson('In Action: AutoModel.from_pretrained("google-bert/bert-base-cased")')
def test_auto_model_leaves_the_seven_tensors_of_berts_heads_unused(pretraining_checkpoint):
    """Today: unchanged. Seven tensors of the pre-training heads are not used; none that AutoModel needs is missing."""
    from transformers import AutoModel

    _, info = AutoModel.from_pretrained(pretraining_checkpoint, output_loading_info=True)
    same("unused", observed=sorted(info["unexpected_keys"]), expected=SEVEN)
    same("missing", observed=len(info["missing_keys"]), expected=0)


@BERT
@pytest.mark.lesson("In Action: Some weights of the model checkpoint were not used")
def test_the_unused_tensors_are_named_in_a_report(pretraining_checkpoint):
    """Today: a table, the LOAD REPORT, names the seven as UNEXPECTED; that is expected, as the old warning said."""
    from transformers import AutoModel

    logger, printed = logging.getLogger("transformers"), io.StringIO()
    level, handler = logger.level, logging.StreamHandler(printed)
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    try:
        AutoModel.from_pretrained(pretraining_checkpoint)
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    rows = [
        line.split("|")[0].strip() for line in printed.getvalue().splitlines() if "UNEXPECTED" in line and "|" in line
    ]
    same("rows of the report", observed=sorted(rows), expected=SEVEN)


SEVEN = [
    "cls.predictions.bias",
    "cls.predictions.transform.LayerNorm.bias",
    "cls.predictions.transform.LayerNorm.weight",
    "cls.predictions.transform.dense.bias",
    "cls.predictions.transform.dense.weight",
    "cls.seq_relationship.bias",
    "cls.seq_relationship.weight",
]


def _embed_position_input(OPT, ids):
    embedded_input = OPT.model.decoder.embed_tokens(ids)
    return embedded_input + OPT.model.decoder.embed_positions(torch.ones_like(ids))


def _bare_call(miniature, implementation, *, change_last=False, normed=False):
    OPT = copy.deepcopy(miniature.model)
    OPT.set_attn_implementation(implementation)
    ids = miniature.ids.clone()
    if change_last:
        ids[0, -1] += 1
    layer = OPT.model.decoder.layers[0]
    with torch.no_grad():
        x = _embed_position_input(OPT, ids)
        return layer.self_attn(layer.self_attn_layer_norm(x) if normed else x)


def _error(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"
