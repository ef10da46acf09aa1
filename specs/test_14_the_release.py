"""The release: the files that were published fit the architecture, and the model that is in them can be used.

A safetensors file begins with the name, the type and the shape of every tensor in it, so that it can be held against
the architecture without being loaded. What the numbers are, and whether they make sense, takes loading them.
"""

import pytest
import torch

from fixtures.libraries.checkpoints import kept_in_32_bits, of_another_type
from fixtures.models.runnable import vocabulary
from fixtures.published.headers import layers_in, tied, values_of
from fixtures.published.packing.unpacked import by_kind
from fixtures.published.tokenizer import SENTENCE
from fixtures.verdicts.evidence import holds, same
from fixtures.verdicts.judge import does_not_apply, not_run

pytestmark = [
    pytest.mark.weights,
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),  # torch, on import
]

# ---- the files, without loading them


def test_no_tensor_of_the_file_is_cut_off(headers):
    """Every tensor that a header or the index names has its bytes in a file that is there."""
    holds("tensors", len(headers.tensors) > 0, observed=len(headers.tensors), expected="at least one")
    same("cut off", observed=list(headers.cut) or "none", expected="none")


def test_no_tensor_is_missing(fit):
    """Every tensor of the architecture is in the files, by its own name or by one that the library translates."""
    holds("tensors", fit.tensors > 0, observed=fit.tensors, expected="at least one")
    same("missing", observed=list(fit.missing) or "none", expected="none")


def test_no_tensor_is_unexpected(fit):
    """The files have no tensor that the architecture has no use for, but what the class itself leaves unread."""
    holds("tensors", fit.tensors > 0, observed=fit.tensors, expected="at least one")
    same("unexpected", observed=list(fit.unexpected) or "none", expected="none")


def test_every_tensor_has_its_shape(fit):
    """What has a name in common has its shape in common."""
    holds("tensors", fit.tensors > 0, observed=fit.tensors, expected="at least one")
    observed = {name: {"file": found, "model": wanted} for name, (found, wanted) in fit.mismatched_shapes.items()}
    same("of another shape", observed=observed or "none", expected="none")


def test_every_tensor_has_the_type_of_the_config(release, fit, unpacked, skeleton):
    """Each is stored in the type that the config names, but what is packed or the class keeps in 32 bits."""
    named = getattr(release.config, "dtype", None)
    if named is None:
        does_not_apply(f"The config of {release.id} names no type.")
    stated = str(named).removeprefix("torch.")
    kept = kept_in_32_bits(skeleton.model, unpacked.stored_as)
    made = of_another_type(skeleton.model, getattr(torch, stated))
    stored = {n: dtype for n, dtype in unpacked.stored_as.items() if n not in kept | made}
    others = {name: dtype for name, dtype in stored.items() if dtype != stated}
    holds("tensors", len(stored) > 0, observed=len(stored), expected="at least one")
    same(f"not in {stated}", observed=others or "none", expected="none")


def test_every_layer_is_in_the_file(fit, headers, skeleton):
    """As many layers have tensors in the files as there are blocks in the architecture."""
    modules = [block.module for stack in skeleton.trace.stacks for block in stack.blocks]
    blocks = {skeleton.module_names[id(module)] for module in modules if id(module) in skeleton.module_names}
    if not blocks:
        does_not_apply("Its layers are no modules of their own, so that no name in the files tells them apart.")
    found = layers_in(headers.tensors.keys() - set(fit.ignored), blocks)
    if not found and not fit.missing:
        does_not_apply("The files name their layers otherwise than the code does; the library translates them.")
    same("layers", observed=found, expected=len(blocks))


def test_a_matrix_with_two_names_is_one_in_the_file(release, fit, headers, skeleton):
    """What the config ties, as the table and the head, is in the files once, or several times with the same numbers."""
    shared = tied(skeleton.model)
    if not shared:
        does_not_apply(f"No two names of {release.id} stand for one matrix.")
    stored = [
        [name for name in headers.tensors if any(own == name or own.endswith(f".{name}") for own in names)]
        for names in shared
    ]
    if not any(stored):
        does_not_apply("The files name it otherwise than the code does; the library translates it.")
    for names, found in zip(shared, stored, strict=True):
        if len(found) > 1 and release.away:
            not_run(f"The files hold {' and '.join(found)}, which are tied; --weights compares their numbers.")
        values = values_of(release.folder(), headers.files, found) if len(found) > 1 else []
        alike = all(torch.equal(values[0], other) for other in values[1:])
        holds(f"{names[0]} in the files", alike, observed=found or "none", expected="the same under every name")


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
    others = {n: f"{taken:g} bits, promised {said}" for n, (taken, said) in packed_as_stated.of_other_bits.items()}
    holds("bits a number", bool(packed_as_stated.packed), observed=packed_as_stated.bits_taken, expected="some")
    same("other bits", observed=by_kind(others) or "none", expected="none")


# ---- the tokenizer


def test_the_tokenizer_reads_the_sentence(own_tokenizer, release):
    """The release's own tokenizer makes ids of the lesson's sentence, and the sentence of the ids."""
    ids = own_tokenizer(SENTENCE)["input_ids"]
    if own_tokenizer.unk_token_id is not None and own_tokenizer.unk_token_id in ids:
        does_not_apply(f"The vocabulary of {release.id} does not spell the sentence.")
    said = own_tokenizer.decode(ids, skip_special_tokens=True)
    same("read back", observed=" ".join(said.lower().split()) or "nothing", expected=SENTENCE.lower())


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


# ---- the numbers


def test_every_weight_is_a_number(checkpoint):
    """No weight is infinite or NaN."""
    odd = [name for name, p in checkpoint.model.named_parameters() if not bool(p.isfinite().all())]
    holds("parameters", checkpoint.parameters > 0, observed=checkpoint.parameters, expected="at least one")
    same("not finite", observed=odd or "none", expected="none")


def test_every_score_is_a_number(checkpoint):
    """One pass over ten tokens gives no score that is infinite or NaN."""
    output = checkpoint.trace.output
    holds("scores", output.numel() > 0, observed=list(output.shape), expected="at least one")
    same("not finite", observed=int((~output.isfinite()).sum()), expected=0)
