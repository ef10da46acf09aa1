"""Loading: a model's files hold every number of its architecture by name, and put it back where there is room.

What was saved loads again with the same scores, in one file or in several, in 32 bits or 16. What does not fit the
architecture is named. A model too large for one device is spread over several, block by block.
"""

import pytest
import torch

from fixtures.behaviour.cache import keeps_cache, stepwise
from fixtures.libraries import checkpoints
from fixtures.libraries.checkpoints import (
    bytes_of_numbers,
    bytes_to_save,
    cut,
    kept_in_32_bits,
    load,
    loading_info,
    numbers_to_save,
    of_another_type,
    rewrite,
    save_in_16_bits,
    shard,
)
from fixtures.libraries.device_map import DISK, on_disk, plan, spread
from fixtures.libraries.memory import gigabytes
from fixtures.libraries.on_device import by_implementation, moved, needed
from fixtures.libraries.quantization import METHODS, first_attention_of, quantized, scores_of, squared_error
from fixtures.published.files import SINGLE
from fixtures.published.headers import compare, in_directory
from fixtures.published.tokenizer import SENTENCE
from fixtures.verdicts.evidence import close, holds, same
from fixtures.verdicts.judge import does_not_apply, not_run

pytestmark = [
    pytest.mark.lesson("Loading the Model"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),  # bitsandbytes and torch, on import
    pytest.mark.filterwarnings("ignore:The following device_map keys do not match any submodules:UserWarning"),
]

# ---- the files


@pytest.mark.loading
@pytest.mark.lesson("Loading the Model: AutoModelForCausalLM.from_pretrained")
def test_a_saved_model_loads_as_it_was(saved, miniature):
    """Saved with save_pretrained and loaded with from_pretrained, a model gives the scores that it gave before."""
    again = load(saved, miniature).run().output
    close("scores", observed=again, expected=miniature.trace.output)


@pytest.mark.loading
@pytest.mark.lesson("Loading the Model: AutoTokenizer.from_pretrained")
def test_a_saved_tokenizer_loads_as_it_was(tokenizer, tmp_path):
    """Saved and loaded again, a tokenizer turns the lesson's sentence into the same ids."""
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    same(
        "ids",
        observed=AutoTokenizer.from_pretrained(tmp_path)(SENTENCE)["input_ids"],
        expected=tokenizer(SENTENCE)["input_ids"],
    )


@pytest.mark.loading
def test_the_file_fits_the_architecture(saved, miniature):
    """The file holds every tensor of the architecture, by its name and in its shape, and no other."""
    fit = compare(in_directory(saved), miniature.config)
    holds("tensors", fit.tensors > 0, observed=fit.tensors)
    found = {"missing": fit.missing, "unexpected": fit.unexpected, "of another shape": list(fit.mismatched_shapes)}
    same(
        "what does not fit",
        observed={name: list(found[name]) or "none" for name in found},
        expected=dict.fromkeys(found, "none"),
    )


def test_the_file_has_each_number_once(saved_untrained, untrained):
    """A file holds as many numbers as the model's tensors, one that goes by two names counted once."""
    in_file = in_directory(saved_untrained).parameters
    same("numbers in the file", observed=in_file, expected=numbers_to_save(untrained.model))


@pytest.mark.loading
@pytest.mark.lesson("Loading the Model: pytorch_model.bin: 2.63G")
def test_a_file_takes_two_bytes_a_number_in_16_bits(saved, miniature, skeleton, published, tmp_path):
    """Saved in 16 bits a model's file takes two bytes a number, in 32 bits four: 2.63 GB for OPT-1.3b in 16."""
    folders = {4: saved, 2: save_in_16_bits(miniature, tmp_path)}
    taken = {each: bytes_of_numbers(folder) for each, folder in folders.items()}
    same("bytes", observed=taken, expected={each: bytes_to_save(miniature.model, each) for each in folders})
    sizes = [gigabytes(2 * of.parameters) for of in (skeleton, published)]
    same("GB at full size", observed=sizes[0], expected=sizes[1])


@pytest.mark.loading
def test_a_checkpoint_in_several_files_loads_as_one(miniature, tmp_path):
    """Saved in shards, every shard is read, and the scores are the same."""
    shards = shard(miniature, tmp_path)
    holds("files", len(shards) > 1, observed=len(shards), expected="more than one")
    again = load(tmp_path, miniature).run().output
    close("scores", observed=again, expected=miniature.trace.output)


# ---- files that do not fit


@pytest.mark.loading
def test_a_missing_tensor_is_named(saved, miniature, tmp_path):
    """A file without one of its tensors loads, and the tensor is reported missing."""
    name = _some_matrix(saved, miniature)
    folder = rewrite(saved, tmp_path / "less", lambda tensors: {n: t for n, t in tensors.items() if n != name})
    fit = compare(in_directory(folder), miniature.config)
    same("missing", observed=list(fit.missing), expected=[name])
    same("reported missing", observed=len(loading_info(folder, miniature)["missing_keys"]), expected=1)


@pytest.mark.loading
def test_an_unexpected_tensor_is_named(saved, miniature, tmp_path):
    """A file with a tensor that the architecture does not have loads, and the tensor is reported unexpected."""
    folder = rewrite(saved, tmp_path / "more", lambda tensors: tensors | {"stranger.weight": torch.zeros(3)})
    same(
        "unexpected", observed=sorted(loading_info(folder, miniature)["unexpected_keys"]), expected=["stranger.weight"]
    )


@pytest.mark.loading
def test_a_tensor_of_another_shape_is_refused(saved, miniature, tmp_path):
    """A file with one row too few for one of its tensors does not load."""
    name = _some_matrix(saved, miniature)
    folder = rewrite(saved, tmp_path / "short", lambda tensors: tensors | {name: tensors[name][:-1].clone()})
    message = checkpoints.message_of(lambda: load(folder, miniature)) or "none"
    holds(
        "error", "mismatch" in message or "size" in message, observed=message, expected="an error that names the size"
    )


@pytest.mark.loading
def test_a_file_that_is_cut_off_is_refused(miniature, tmp_path):
    """A checkpoint does not load when one of its files is cut off."""
    cut(tmp_path / shard(miniature, tmp_path)[-1])
    message = checkpoints.message_of(lambda: load(tmp_path, miniature)) or "none"
    holds("error", message.startswith("SafetensorError"), observed=message, expected="SafetensorError")


@pytest.mark.loading
def test_a_missing_file_is_refused(miniature, tmp_path):
    """A checkpoint does not load when one of its files is missing, and the error names that file."""
    missing = shard(miniature, tmp_path)[-1]
    (tmp_path / missing).unlink()
    message = checkpoints.message_of(lambda: load(tmp_path, miniature)) or "none"
    named = message.startswith(("FileNotFoundError", "OSError")) and missing in message
    holds("error", named, observed=message, expected=f"FileNotFoundError or OSError, of {missing}")


def _some_matrix(folder, miniature):
    """The name in the file of a block's matrix, under whatever name it has there, that no other one is joined to."""
    from safetensors.torch import load_file

    blocks = [block.module for stack in miniature.trace.stacks for block in stack.blocks]
    own = [p for block in blocks for p in block.parameters() if p.ndim > 1]
    of_the_file = {name: tensor for name, tensor in load_file(folder / SINGLE).items() if ".0." in name}
    return max(name for name, tensor in of_the_file.items() if any(torch.equal(tensor, p) for p in own))


# ---- in which type


@pytest.mark.loading
def test_the_type_is_chosen_by_dtype(saved, miniature):
    """Loaded with dtype=torch.float16 or bfloat16, all parameters are of that type but what the class keeps in 32."""
    for dtype in (torch.float16, torch.bfloat16):
        model = load(saved, miniature, dtype=dtype).model
        others = sorted(name for name, p in model.named_parameters() if p.dtype != dtype)
        names = [name for name, _ in model.named_parameters()]
        kept = sorted(kept_in_32_bits(model, names, dtype) | of_another_type(model, dtype))
        same(f"not in {dtype}", observed=others or "none", expected=kept or "none")


# ---- where it is put


@pytest.mark.loading
@pytest.mark.lesson('In Action: device_map="auto"')
def test_every_parameter_has_one_place(planning, release):
    """On each of five machines every parameter of the full-size model falls under one entry of the device map."""
    plans, message = planning
    if message and release.entry is None:  # it plans so small a model, or so new a one, that nobody has placed it yet
        not_run(f"transformers ends in an error of its own where it places {release.id}: {message}.")
    same("error", observed=message or "none", expected="none")
    for scene, planned in plans.items():
        entries = {len(planned.entries_of(name)) for name, _ in planned.model.named_parameters()}
        same(f"entries a parameter ({scene})", observed=sorted(entries), expected=[1])


@pytest.mark.loading
def test_no_block_is_split(plans, skeleton):
    """A block lies on one device with all its parameters, where its class names what is to be kept whole."""
    if not getattr(skeleton.model, "_no_split_modules", None):
        does_not_apply(f"{type(skeleton.model).__name__} names nothing to be kept whole: the library may cut anywhere.")
    blocks = {id(block.module) for stack in skeleton.trace.stacks for block in stack.blocks}
    named = {name: module for name, module in skeleton.model.named_modules() if id(module) in blocks}
    holds("blocks", bool(named), observed=len(named))
    for scene, planned in plans.items():
        split = [name for name, module in named.items() if len(planned.devices_of(module, name)) != 1]
        same(f"split ({scene})", observed=split or "none", expected="none")


@pytest.mark.loading
def test_tied_weights_stay_together(plans):
    """A matrix that goes by two names, as table and as head, is on one device under both."""
    planned = next(iter(plans.values()))
    if not planned.shared:
        does_not_apply("No two names of this model stand for one matrix.")
    for scene, planned in plans.items():
        for names in planned.shared:
            devices = {str(planned.places[place]) for name in names for place in planned.entries_of(name)}
            same(f"devices of {names[0]} ({scene})", observed=len(devices), expected=1)


@pytest.mark.loading
def test_no_device_gets_more_than_it_holds(plans):
    """No accelerator and no CPU is given more bytes than it has room for."""
    for scene, planned in plans.items():
        for device, room in planned.memory.items():
            used = planned.bytes.get(device, 0)
            holds(f"bytes on {device} ({scene})", used <= room, observed=used, expected=f"at most {room}")


@pytest.mark.loading
def test_what_fits_nowhere_goes_to_the_disk(plans):
    """With next to no memory the whole model goes to the disk, and with a large enough accelerator none of it does."""
    on = {scene: sorted(map(str, plans[scene].bytes)) for scene in ("one accelerator", "next to nothing")}
    same("devices", observed=on, expected={"one accelerator": ["0"], "next to nothing": [DISK]})


@pytest.mark.loading
@pytest.mark.usefixtures("placeable")
def test_a_model_spread_over_memory_and_disk_says_the_same(saved, miniature, release, tmp_path):
    """Loaded with device_map="auto" and too little room, some of it stays on the disk, and no score changes."""
    room = int(0.7 * sum(p.nbytes for p in miniature.model.parameters()))
    given = {"device_map": "auto", "max_memory": {"cpu": room}, "offload_folder": tmp_path}
    with spread(load(saved, miniature, **given)) as loaded:
        holds("parameters on the disk", on_disk(loaded.model) > 0, observed=on_disk(loaded.model), expected="some")
        same("error", observed=_ends_in(loaded, release), expected="none")
        close("scores", observed=loaded.model(**loaded.inputs())[0], expected=miniature.trace.output)


# ---- in 8 bits


@pytest.mark.quantization
@pytest.mark.lesson("Loading the Model: Some modules are dispatched on the CPU or the disk")
@pytest.mark.usefixtures("wide_placeable")
def test_eight_bits_refuse_a_module_off_the_accelerator(quantizer):
    """With a module on the disk, load_in_8bit ends in the notebook's own error, and names the flag that helps."""
    message = (
        checkpoints.message_of(
            lambda: quantized(quantizer.folder, quantizer.reference, "int8", device_map=_half(quantizer))
        )
        or "none"
    )
    holds("error", "Some modules are dispatched on the CPU or the disk" in message, observed=message)
    holds("remedy", "llm_int8_enable_fp32_cpu_offload=True" in message, observed=message)


@pytest.mark.quantization
@pytest.mark.usefixtures("wide_placeable")
def test_the_offload_flag_lets_it_load(quantizer, release, tmp_path):
    """With llm_int8_enable_fp32_cpu_offload=True it loads, and what is off the accelerator stays in 32 bits."""
    from fixtures.libraries.quantization import load as load_quantized

    settings = METHODS["int8"] | {"llm_int8_enable_fp32_cpu_offload": True}
    more = {"device_map": _half(quantizer), "offload_folder": tmp_path}
    with spread(load_quantized(quantizer.folder, quantizer.reference, settings, **more)) as loaded:
        same("in 8 bits", observed=sum(not p.is_floating_point() for p in loaded.model.parameters()), expected=0)
        same("error", observed=_ends_in(loaded, release), expected="none")
        close("scores", observed=loaded.model(**loaded.inputs())[0], expected=quantizer.reference.trace.output)


def _half(quantizer):
    """A device map with half of the model on the disk."""
    return plan(quantizer.reference.model, {"cpu": 0.7}).places


# ---- on an accelerator, at full published size


@pytest.mark.gpu
@pytest.mark.lesson("Embedding Layer and Self-Attention Output: Expected: [1, 10, 2048]")
def test_every_shape_is_the_same_on_the_device(placed, skeleton):
    """The lesson's tokens make embeddings, hidden states and scores of the shapes that they have without memory."""
    on, without = placed.specimen.trace, skeleton.trace
    same("embeddings", observed=list(on.embedding.vectors.shape), expected=list(without.embedding.vectors.shape))
    streams = [list(stream.shape) for stream in on.stack.streams]
    same("hidden states", observed=streams, expected=[list(stream.shape) for stream in without.stack.streams])
    same(f"scores, with {placed.weights} weights", observed=list(on.output.shape), expected=list(without.output.shape))


@pytest.mark.gpu
def test_the_weights_take_the_memory_that_was_counted(placed):
    """In 16 bits the device holds two bytes a parameter, within 2 % for what the allocator rounds up."""
    if not placed.accelerator.counts:
        not_run(f"{placed.accelerator} keeps no account of its tensors.")
    ratio = placed.held / placed.predicted
    holds("bytes over those counted", 0.99 <= ratio <= 1.02, observed=round(ratio, 4), expected="0.99 to 1.02")


@pytest.mark.gpu
def test_a_pass_takes_no_more_than_was_set_aside(placed, skeleton, context):
    """Reading ten tokens and keeping them takes, weights included, no more than the preflight asked for."""
    if not placed.accelerator.counts:
        not_run(f"{placed.accelerator} keeps no account of its tensors.")
    placed.accelerator.reset()
    placed.scores()
    peak, limit = placed.accelerator.peak() - placed.before, needed(skeleton, context)[1]
    observed = {"GB": gigabytes(peak), "weights": placed.weights, "device": str(placed.accelerator)}
    holds("peak", peak <= limit, observed=observed, expected=f"at most {gigabytes(limit)} GB")


@pytest.mark.gpu
def test_nothing_is_left_of_the_model_before(placed):
    """Before this model came, less than a thousandth of its size was taken on the device, or 64 MB.

    What libraries keep for their products, whatever the model, is not counted.
    """
    if not placed.accelerator.counts:
        not_run(f"{placed.accelerator} keeps no account of its tensors.")
    most, left = max(64 * 10**6, placed.predicted // 1000), placed.before - placed.accelerator.workspaces
    holds("bytes taken before", left <= most, observed=left, expected=f"at most {most}")


@pytest.mark.gpu
def test_implementations_of_attention_agree(placed, facts):
    """In bfloat16, sdpa, flash and flex attention give what the written-out one does, within rounding.

    The scores are compared; where a router chooses experts, rounding may choose others, and the first attention is.
    """
    look = first_attention_of if facts["experts"] else scores_of
    reference, found = look(placed.specimen), by_implementation(placed, look)
    if not found:
        does_not_apply("The model has no other implementation of attention than the written-out one.")
    for name, one in found.items():
        off = squared_error(one, reference)
        holds(f"squared error of {name}", off < 1e-2, observed=off, expected="below 0.01")


@pytest.mark.gpu
def test_the_device_computes_what_the_cpu_does(miniature, accelerator, facts):
    """The miniature's scores on the device, in 32 and 16 bits, are the CPU's in 32 bits within each type's rounding.

    In 16 bits a router may choose other experts by rounding: there the first attention stands for the scores.
    """
    for dtype, most in {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 5e-2}.items():
        look = first_attention_of if facts["experts"] and dtype != torch.float32 else scores_of
        off = squared_error(look(moved(miniature, accelerator.device, dtype)).cpu(), look(miniature))
        holds(f"squared error in {dtype}", off < most, observed=off, expected=f"below {most}")


@pytest.mark.gpu
def test_no_token_sees_a_later_one_on_the_device(generator, placed):
    """In bfloat16, at full size, another last token leaves all earlier scores as they were, within rounding."""
    specimen = placed.specimen
    ids = specimen.target(specimen.ids) if specimen.has_target else specimen.ids
    other = ids.clone()
    other[:, -1] = other[:, 0]
    name = "decoder_input_ids" if specimen.has_target else "input_ids"
    moved_by = (placed.scores(**{name: other}) - placed.scores()).float().abs().amax(dim=(0, 2))
    holds("the last token's scores", float(moved_by[-1]) > 0, observed=float(moved_by[-1]), expected="changed")
    earlier = float(moved_by[:-1].max() / moved_by[-1])
    holds("earlier tokens' share of the change", earlier < 0.05, observed=earlier, expected="below 0.05")


@pytest.mark.gpu
def test_single_steps_do_what_one_pass_does_on_the_device(generator, placed):
    """In bfloat16, at full size, reading token by token with a cache gives the scores of one pass, within rounding."""
    if not keeps_cache(placed.specimen):
        does_not_apply("The library's code for this model keeps no cache: it cannot go on from where it stopped.")
    off = squared_error(stepwise(placed.specimen), placed.scores())
    holds("squared error", off < 1e-2, observed=off, expected="below 0.01")


@pytest.mark.gpu
@pytest.mark.lesson('In Action: device_map="auto"')
def test_a_model_spread_over_device_and_cpu_says_the_same(saved, miniature, accelerator, release):
    """With device_map="auto" and room for part of it on the device, the rest stays on the CPU; no score changes."""
    if accelerator.device.type == "cpu":
        not_run("There is no accelerator beside the CPU.")
    room = int(0.7 * sum(p.nbytes for p in miniature.model.parameters()))
    given = {"device_map": "auto", "max_memory": {accelerator.device.index or 0: room, "cpu": 10 * room}}
    with spread(load(saved, miniature, **given)) as loaded:
        places = {str(place) for place in getattr(loaded.model, "hf_device_map", {}).values()}
        holds("places", "cpu" in places and len(places) > 1, observed=sorted(places), expected="the device and the CPU")
        same("error", observed=_ends_in(loaded, release), expected="none")
        scores = loaded.model(**loaded.inputs())[0].cpu()
        close("scores", observed=scores, expected=miniature.trace.output, tolerance=1e-3)


def _ends_in(loaded, release):
    """The error that a pass of the model ends in; "none" where it ends in none.

    Of a release without an entry it is not run where a part was put on the disk that a class does not save.
    """
    message = checkpoints.message_of(lambda: loaded.model(**loaded.inputs())) or "none"
    if release.entry is None and any(
        f"KeyError: '{name}'" in message for name in checkpoints.never_saved(loaded.model)
    ):
        not_run(f"accelerate looks on the disk for what the class of {release.id} does not save: {message}.")
    return message
