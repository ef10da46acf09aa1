"""The release: the files that were published fit the architecture, and the model that is in them can be used.

A safetensors file begins with the name, the type and the shape of every tensor in it, so that it can be held against
the architecture without being loaded. What the numbers are, and whether they make sense, takes loading them.
"""

import copy
from collections import Counter

import pytest
import torch
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from fixtures.behaviour.generation import refusal_as_released
from fixtures.behaviour.positions import places_of
from fixtures.libraries.checkpoints import kept_in_32_bits, of_another_type
from fixtures.models.model_class import class_name, is_known, named, takes
from fixtures.models.runnable import vocabulary
from fixtures.published.causes import grouped
from fixtures.published.embedder import longest_text, misfits
from fixtures.published.fields import closed, contradicting, text_part, unread
from fixtures.published.generation_settings import FILE as GENERATION_CONFIG
from fixtures.published.generation_settings import refused
from fixtures.published.gguf import beside
from fixtures.published.gguf import sizes as gguf_sizes
from fixtures.published.gguf.bits import misnamed
from fixtures.published.gguf.layers import uncounted
from fixtures.published.gguf.types import WITHOUT as WITHOUT_GGUF
from fixtures.published.gguf.types import kinds as gguf_kinds
from fixtures.published.headers import (
    further_layers,
    layers_by_number,
    numbered_modules,
    of_types,
    spans,
    tied,
    values_of,
    whole_numbers,
)
from fixtures.published.misspelt import class_meant
from fixtures.published.packing.unpacked import by_kind
from fixtures.published.release import CONFIG
from fixtures.published.special_ids import disagreeing, misread, unseen_end, without_row
from fixtures.published.tokenizer import SENTENCE
from fixtures.verdicts.evidence import holds, same
from fixtures.verdicts.judge import does_not_apply, not_run

pytestmark = [
    pytest.mark.weights,
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),  # torch, on import
]

# ---- the files, without loading them


def test_every_file_is_what_its_name_says(files):
    """No file is a git-lfs pointer, or empty, in place of what its name promises."""
    holds("files", len(files.sizes) > 0, observed=len(files.sizes), expected="at least one")
    same("in place of files", observed=files.not_themselves() or "none", expected="none")


def test_every_file_that_the_index_names_is_there(files):
    """Every shard that the index of the weights names lies beside it."""
    if not files.shards:
        does_not_apply("No index speaks of shards.")
    same("absent", observed=files.absent() or "none", expected="none")


def test_every_file_of_weights_is_read(stray_files):
    """No shard, no single file and no adapter beside the files that the library reads stands for something else."""
    same("not read", observed=stray_files or "none", expected="none")


def test_no_tensor_of_the_file_is_cut_off(headers):
    """Every tensor that a header or the index names has its bytes in the file that is named for it."""
    if not headers.files:
        not_run("None of the files that the index names is there.")
    holds("tensors", len(headers.tensors) > 0, observed=len(headers.tensors), expected="at least one")
    same("cut off", observed=headers.lacking or "none", expected="none")


def test_every_tensor_is_in_the_shard_that_the_index_names(whole_headers):
    """The index names every tensor that the shards hold, and for each the only shard that it lies in."""
    if not whole_headers.shards:
        does_not_apply("No index speaks of shards.")
    found = "; ".join(f"{what}: {grouped(names, 2)}" for what, names in whole_headers.astray.items())
    same("astray", observed=f"{found}. Save the model again" if found else "none", expected="none")


def test_no_tensor_is_missing(fit, misfit):
    """Every tensor of the architecture is in the files, by its own name or by one that the library translates."""
    holds("tensors", fit.tensors > 0, observed=fit.tensors, expected="at least one")
    holds("missing", not fit.missing, observed=misfit.missing, expected="none")


def test_no_tensor_is_unexpected(fit, misfit):
    """The files have no tensor that the class has no use for, but what it leaves unread and heads of pre-training."""
    holds("tensors", fit.tensors > 0, observed=fit.tensors, expected="at least one")
    holds("unexpected", not fit.unexpected, observed=misfit.unexpected, expected="none")


def test_every_tensor_has_its_shape(fit, misfit):
    """A tensor found in both the files and the architecture has the same shape in both."""
    holds("tensors", fit.tensors > 0, observed=fit.tensors, expected="at least one")
    holds("of another shape", not fit.mismatched_shapes, observed=misfit.shapes, expected="none")


def test_every_tensor_has_the_type_of_the_config(release, fit, unpacked):
    """Each is stored in the type that the config names, but what is packed or the class keeps in 32 bits."""
    named = getattr(release.config, "dtype", None)
    if named is None:
        does_not_apply(f"The config of {release.id} names no type.")
    stated = str(named).removeprefix("torch.")
    kept = kept_in_32_bits(fit.model, unpacked.stored_as)
    made = of_another_type(fit.model, getattr(torch, stated))
    stored = unpacked.stored_as | ({} if release.packing else whole_numbers(unpacked.tensors, fit.model))
    stored = {n: dtype for n, dtype in stored.items() if n not in kept | made}
    holds("tensors", len(stored) > 0, observed=len(stored), expected="at least one")
    same(f"not in {stated}, which {CONFIG} names", observed=of_types(stored, stated) or "none", expected="none")


def test_every_layer_is_in_the_file(release, fit, headers):
    """The layers in the files are those of the architecture, by number, and further ones that the config explains."""
    blocks = numbered_modules(fit.model)
    if not blocks:
        does_not_apply("Its layers are no modules of their own, so that no name in the files tells them apart.")
    found = layers_by_number(headers.tensors.keys() - set(fit.ignored), blocks)
    if not found:
        does_not_apply("The files name their layers otherwise than the code does; the library translates them.")
    for place, (wanted, there) in found.items():
        further = range(max(wanted) + 1, max(wanted) + 1 + further_layers(release.config))
        same(f"{place} by number", observed=spans(there - set(further)), expected=spans(wanted))


def test_a_matrix_with_two_names_is_one_in_the_file(release, fit, headers):
    """What the config ties, as the table and the head, is in the files once, or several times with the same numbers."""
    shared = tied(fit.unloaded)
    if not shared:
        does_not_apply(f"No two names of {release.id} stand for one matrix.")
    stored = [
        [name for name in headers.tensors if any(own == name or own.endswith(f".{name}") for own in names)]
        for names in shared
    ]
    if not any(stored):
        does_not_apply("The files name it otherwise than the code does; the library translates it.")
    if release.raw.get("tie_word_embeddings") is False and any(len(found) > 1 for found in stored):
        does_not_apply(f"{CONFIG} unties them, and the files have each: the library loads them as two.")
    for names, found in zip(shared, stored, strict=True):
        if len(found) > 1 and release.away:
            not_run(f"The files hold {' and '.join(found)}, which are tied; --weights compares their numbers.")
        values = values_of(release.folder(), headers.files, found) if len(found) > 1 else []
        alike = all(torch.equal(values[0], other) for other in values[1:])
        sentence = (
            f"{' and '.join(sorted(found))} have other numbers, so that the library unties them" if not alike else found
        )
        holds(f"{names[0]} in the files", alike, observed=sentence or "none", expected="tied, as the config has it")


# ---- the config


@pytest.mark.usefixtures("written_config")
def test_the_class_it_names_is_one_of_its_model_type(release):
    """The class that the config names is built from a config of its model type, as AutoModel and other loaders need."""
    name = named(release.config)
    if not is_known(name):
        if known := class_meant(name, release.config):
            same("class", observed=name, expected=known)
        does_not_apply(f"{CONFIG} names no class that transformers has.")
    config, usual = type(release.config).__name__, class_name(release.config)
    holds("class", takes(name, release.config), observed=name, expected=f"one built from {config}, as {usual} is")


def test_a_class_that_judges_texts_takes_two_at_once(judged, release):
    """A class with a head for whole texts judges several at once, for which a decoder has to know what fills a row."""
    same("scores", observed=judged, expected=[2, release.config.num_labels])


def test_what_stands_behind_an_embedder_takes_its_vectors(modules, release, skeleton):
    """Every module that modules.json names has its settings, and takes vectors as wide as those that come to it."""
    holds("modules", len(modules) > 0, observed=[kind for kind, _ in modules], expected="at least one")
    found = "; ".join(misfits(release, skeleton.trace.stack.d_model))
    same("misfits", observed=found or "none", expected="none")


def test_every_size_in_the_config_is_read(written_config, release):
    """No size and no misspelt field of the config stands under a name that the class does not read, for its default."""
    raw, known = text_part(written_config, release.config)
    same("not read", observed=unread(raw, known) or "none", expected="none")


def test_the_config_says_each_thing_once(written_config):
    """What the config says in two places it says with one value."""
    holds("fields", len(written_config) > 0, observed=len(written_config), expected="at least one")
    same("said twice", observed=contradicting(written_config) or "none", expected="none")


def test_every_window_of_the_config_lets_a_token_see_itself(written_config, release):
    """No window in the config is zero tokens wide; where there is none, it says null."""
    same("windows of nothing", observed=closed(written_config, release.config) or "none", expected="none")


# ---- how to write with it


def test_the_generation_config_is_valid(generation_settings):
    """The library's strict validation, which whoever saves the release again has to pass, finds no fault in it."""
    holds("fields", len(generation_settings) > 0, observed=len(generation_settings), expected="at least one")
    same("refused", observed=refused(generation_settings) or "none", expected="none")


@pytest.mark.usefixtures("head")
def test_it_writes_with_the_settings_it_is_released_with(generator, generation_settings, model):
    """A plain generate() takes the release's own generation_config."""
    own = model.miniature is not model.small.miniature if hasattr(model, "small") else False
    refusal = refusal_as_released(generator, generation_settings, own_ids=own)
    same(f"refused by {GENERATION_CONFIG}", observed=refusal or "none", expected="none")


def test_every_special_token_has_a_row(special_ids, skeleton, release):
    """The tokens that begin, end and fill a text have a row in the table of embeddings."""
    rows = vocabulary(skeleton.model, release.config)
    same("without a row", observed=without_row(special_ids, rows) or "none", expected="none")


def test_special_tokens_are_the_same_everywhere(special_ids, model):
    """The config, the generation config and the tokenizer name the same tokens to begin, to end and to fill a text."""
    generates = model.family == "decoder-only"
    same("named differently", observed=disagreeing(special_ids, generates=generates) or "none", expected="none")


def test_the_end_of_an_answer_is_an_end_of_text(special_ids, own_tokenizer, release):
    """The token that ends an answer by the chat template is one that generate() stops at."""
    if not getattr(own_tokenizer, "chat_template", None):
        does_not_apply(f"{release.id} has no chat template.")
    same("unseen", observed=unseen_end(own_tokenizer, special_ids) or "none", expected="none")


# ---- packed weights


def test_the_config_names_the_method_of_packed_weights(packing):
    """The config names the method by which the weights in the files are packed, and none where they are in full."""
    stated, found = packing.promise.method or "none", " and ".join(packing.methods) or "none"
    expected = f"{found}: of the matrices in the files {packing.count}. {packing.remedy}".strip()
    holds("the method in quantization_config", packing.as_stated, observed=stated, expected=expected)


def test_each_packed_matrix_has_its_scales(packed):
    """Each packed matrix has its scales, and whatever else its numbers are read with, and each scale its matrix."""
    same("missing", observed=by_kind(packed.lacking) or "none", expected="none")
    same("without a packed matrix", observed=by_kind(packed.strays) or "none", expected="none")


def test_there_is_a_scale_for_each_group(packed_by_law):
    """Scales are as many as their matrix has groups, blocks or rows, and each part has its method's type and shape."""
    misshapen = {n: f"{found}, not {wanted}" for n, (found, wanted) in packed_by_law.misshapen.items()}
    same("of another type or shape", observed=by_kind(misshapen) or "none", expected="none")


def test_a_matrix_is_packed_where_the_config_says_so(packed_as_stated):
    """A matrix is in the files in full where the config leaves it out of the packing, and packed where it does not."""
    holds("packed matrices", bool(packed_as_stated.packed), observed=len(packed_as_stated.packed), expected="some")
    same("not as the config says", observed=by_kind(packed_as_stated.against_the_config) or "none", expected="none")


def test_a_weight_takes_the_bits_that_the_config_promises(packed_as_stated):
    """The numbers of a packed matrix take as many bits each as the config says, its scales aside."""
    others = {
        n: f"{taken:g} bits, promised {promised}" for n, (taken, promised) in packed_as_stated.of_other_bits.items()
    }
    holds("bits a number", bool(packed_as_stated.packed), observed=packed_as_stated.bits_taken, expected="some")
    same("other bits", observed=by_kind(others) or "none", expected="none")


# ---- an adapter, beside its base model


def test_an_adapter_is_whole(adapter):
    """Each module that its settings name has a pair of narrow matrices, both of them, of the rank that they name."""
    holds("adapter", not adapter.faults, observed=adapter.faults.strip() or len(adapter.tensors), expected="whole")


def test_each_matrix_of_an_adapter_has_its_module_in_the_base(adapter_fit):
    """The base model has each module, and each layer, that the adapter has matrices for or that its settings name."""
    named = len(adapter_fit.names) + len(adapter_fit.adapter.saved)
    holds("modules", named > 0, observed=named, expected="at least one")
    same("not in the base", observed=adapter_fit.lost or "none", expected="none")


def test_each_matrix_of_an_adapter_is_as_wide_as_its_module(adapter_fit):
    """A narrow matrix is as wide as what its module takes in, or gives out; a whole one has its module's shape."""
    if not adapter_fit.compared:
        not_run("No matrix of it has its module in the base; the claim on that says so.")
    same("of another shape", observed=adapter_fit.misshapen or "none", expected="none")


def test_rows_that_an_adapter_adds_are_those_of_its_tokenizer(adapter_fit):
    """Where an adapter has a table of other rows than its base, the tokenizer beside it has as many ids."""
    if not adapter_fit.tables:
        does_not_apply("It has no table of words of its own.")
    same("without ids", observed=adapter_fit.resized or "none", expected="none")


# ---- GGUF, which llama.cpp reads


def test_every_gguf_file_is_whole(typed_gguf_files):
    """The header of each GGUF file can be read, and each tensor that it names has its bytes in the file."""
    holds("files", len(typed_gguf_files) > 0, observed=len(typed_gguf_files), expected="at least one")
    same("damaged", observed="; ".join(filter(None, (one.torn for one in typed_gguf_files))) or "none", expected="none")


def test_the_sizes_in_a_gguf_file_are_those_of_its_tensors(gguf_models):
    """The widths, the heads and the vocabulary that its metadata name are those that its tensors have."""
    found = {one.file: gguf_sizes.sizes(one) for one in gguf_models}
    holds("sizes", any(found.values()), observed=sum(map(len, found.values())), expected="at least one")
    others = "; ".join(filter(None, (gguf_sizes.in_words(file, sizes) for file, sizes in found.items())))
    same("other sizes", observed=others or "none", expected="none")


def test_every_layer_is_in_the_gguf_file(gguf_models):
    """Its blocks are those that its metadata count, by number."""
    holds("blocks", any(one.stacks for one in gguf_models), observed=len(gguf_models), expected="some in a file")
    same("lost", observed="; ".join(filter(None, map(uncounted, gguf_models))) or "none", expected="none")


def test_a_gguf_file_has_the_bits_that_it_names(gguf_models):
    """Its file_type is one that some of its matrices are stored in, or are stored in about as many bits as."""
    if not gguf_kinds():
        not_run(f"How many bits a type takes is not known here: {WITHOUT_GGUF}")
    found = [misnamed(one) for one in gguf_models]
    if not any(name for name, _ in found):
        does_not_apply("No GGUF file here names a type that is known.")
    same("of other bits", observed="; ".join(why for _, why in found if why) or "none", expected="none")


def test_a_gguf_file_is_of_the_model_in_the_config(gguf_models_beside_a_config, release):
    """Its metadata have as many layers, numbers a token, heads, places and rows as the config beside it."""
    found = {one: beside.sizes(one, release.config) for one in gguf_models_beside_a_config}
    holds("sizes", any(found.values()), observed=sum(map(len, found.values())), expected="at least one")
    others = [
        gguf_sizes.in_words(one.file, sizes, beside.TODO) or beside.head(one, release.config)
        for one, sizes in found.items()
    ]
    same("of another model", observed="; ".join(filter(None, others)) or "none", expected="none")


# ---- the tokenizer


def test_the_tokenizer_reads_the_sentence(loaded_tokenizer, release):
    """The release's own tokenizer makes ids of the lesson's sentence, and the sentence of the ids."""
    if isinstance(loaded_tokenizer, Exception):
        raise loaded_tokenizer
    own_tokenizer = loaded_tokenizer
    ids = own_tokenizer(SENTENCE)["input_ids"]
    if own_tokenizer.unk_token_id is not None and own_tokenizer.unk_token_id in ids:
        does_not_apply(f"The vocabulary of {release.id} does not spell the sentence.")
    text = own_tokenizer.decode(ids, skip_special_tokens=True)
    same("read back", observed=" ".join(text.lower().split()) or "nothing", expected=SENTENCE.lower())


def test_the_table_has_a_row_for_every_entry_of_the_tokenizer(own_tokenizer, release, skeleton):
    """The tokenizer's largest id has a row, and there are less than twice as many rows as that takes.

    Tables are rounded up by some hundreds of rows; a tokenizer whose files are not found comes empty, without an error.
    """
    rows, needed = vocabulary(skeleton.model, release.config), max(own_tokenizer.get_vocab().values(), default=-1) + 1
    holds(
        "entries",
        rows / 2 < needed <= rows,
        observed=needed,
        expected=f"more than {rows} / 2, at most {rows}",
    )


def test_the_longest_text_of_the_tokenizer_has_its_places(own_tokenizer, release, learned_vectors, miniature, skeleton):
    """The longest text that the tokenizer lets through has no more tokens than the table of positions has places."""
    limits = {"model_max_length": own_tokenizer.model_max_length, "max_seq_length": longest_text(release)}
    limits = {name: most for name, most in limits.items() if most is not None and most < VERY_LARGE_INTEGER}
    if not limits:
        does_not_apply("Its tokenizer sets no longest text.")
    places = places_of(skeleton, miniature, learned_vectors)
    if places is None:
        does_not_apply("The positions' vectors stand in no table.")
    for name, longest in limits.items():
        holds(f"tokens, by {name}", longest <= places, observed=longest, expected=f"at most {places}")


def test_the_chat_template_can_be_read(own_tokenizer, release):
    """The template by which the turns of a talk become one text is written as Jinja is."""
    if not getattr(own_tokenizer, "chat_template", None):
        does_not_apply(f"{release.id} has no chat template.")
    same("misread", observed=misread(own_tokenizer) or "none", expected="none")


# ---- the numbers


def test_every_weight_is_a_number(loaded):
    """No weight is infinite or NaN."""
    count = loaded.loaded.parameters
    holds("parameters", count > 0, observed=count, expected="at least one")
    same("not finite", observed=grouped(loaded.odd) or "none", expected="none")


def test_no_tensor_is_constant_that_training_would_change(loaded):
    """No matrix is all zero or all alike, and no vector all zero but where a new model has it so."""
    count = loaded.loaded.parameters
    holds("parameters", count > 0, observed=count, expected="at least one")
    what = ", ".join(dict.fromkeys(loaded.dead.values()))
    same("constant", observed=f"{what}: {grouped(loaded.dead)}" if loaded.dead else "none", expected="none")


def test_every_score_is_a_number(checkpoint):
    """One pass over ten tokens gives no score that is infinite or NaN."""
    output = checkpoint.trace.output
    holds("scores", output.numel() > 0, observed=list(output.shape), expected="at least one")
    same("not finite", observed=int((~output.isfinite()).sum()), expected=0)


def test_every_score_is_a_number_in_the_type_of_the_files(checkpoint, headers):
    """So it is when the pass is done in the type that most of the weights are stored in, where that is not 32 bits."""
    stored = Counter(headers.stored_as.values()).most_common(1)[0][0]
    if stored in ("float32", "float64"):
        does_not_apply(f"The files are in {stored}: nothing is lost in 32 bits.")
    with torch.no_grad():
        output = copy.deepcopy(checkpoint.model).to(getattr(torch, stored))(**checkpoint.inputs())[0]
    holds("scores", output.numel() > 0, observed=list(output.shape), expected="at least one")
    same(f"not finite in {stored}", observed=int((~output.isfinite()).sum()), expected=0)
