"""Packed releases: each method's law on a sound checkpoint and on damaged ones, from headers alone."""

import json
import math
import shutil
from typing import Any

import pytest
import torch

from fixtures.published.headers import Headers, Tensor, in_directory
from fixtures.published.packing.laws import METHODS as KNOWN
from fixtures.published.packing.laws import parsed, size
from fixtures.published.packing.modules import Modules
from fixtures.published.packing.promise import Promise, settings_of
from fixtures.published.packing.unpacked import by_kind, unpack
from fixtures.published.release import at_path
from tests.support import packed

LAYER = "model.layers.1.mlp.down_proj"
EXPERTS = "model.layers.1.mlp.experts.down_proj"
NUMBERS = {"mxfp4": "_blocks", "gptq": ".qweight", "awq": ".qweight", "compressed-integers": ".weight_packed"}
SCALES = {
    "mlx": ".scales",
    "fp8": ".weight_scale_inv",
    "gptq": ".scales",
    "awq": ".scales",
    "mxfp4": "_scales",
    "bnb-nf4": ".weight.absmax",
    "bnb-fp4": ".weight.absmax",
    "bnb-double": ".weight.nested_absmax",
    "bnb-int8": ".SCB",
}
LISTS = {
    "mxfp4": "modules_to_not_convert",
    "gptq": "modules_in_block_to_quantize",
    "compressed-fp8": "ignore",
    "compressed-integers": "ignore",
    "nvfp4": "ignore",
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with a sound checkpoint, by the method that packs it."""
    made = {}

    def make(method):
        if method not in made:
            made[method] = packed.save(method, tmp_path_factory.mktemp(method))
        return made[method]

    return make


@pytest.fixture
def copy(published, tmp_path):
    """Copy a sound checkpoint, to be damaged."""
    return lambda method: shutil.copytree(published(method), tmp_path / "copy")


def without(folder, name):
    """The same folder without one of its tensors."""
    return packed.rewrite(folder, lambda tensors: {n: t for n, t in tensors.items() if n != name})


def release_of(folder) -> Any:
    """The release in a folder; that it has a packing is seen when it is asked something."""
    return at_path(folder)


def stem(method):
    """The matrix that is damaged."""
    return EXPERTS if method == "mxfp4" else LAYER


@pytest.mark.parametrize("method", packed.METHODS)
def test_a_sound_one_is_unpacked_whole(published, method):
    release = release_of(published(method))
    packing, fit = release.packing, release.fit
    assert packing is not None
    assert packing.as_stated, (packing.promise.method, packing.methods)
    assert (packing.lacking, packing.strays, packing.misshapen) == ([], (), {})
    assert (packing.against_the_config, packing.of_other_bits) == ({}, {})
    assert (fit.missing, fit.unexpected, fit.mismatched_shapes) == ((), (), {})
    assert len(packing.packed) == (4 if method == "mxfp4" else 14)
    assert packing.remedy == ""


SHARES = {  # bits of a number with its scales, by the arithmetic of each method
    "fp8": 8 + 32 / packed.BLOCK**2,
    "compressed-integers": 4 + 16 / packed.GROUP,
    "awq": 4 + (16 + 4) / packed.GROUP,
    "nvfp4": 4 + 8 / 16,
    "mxfp4": 4 + 8 / 32,
    "bnb-nf4": 4 + 32 / 64,
}


@pytest.mark.parametrize("method", SHARES)
def test_bits_are_counted_with_scales(published, method):
    """To within what stands once for a matrix: a global scale, a shape, a table of sixteen numbers."""
    packing = release_of(published(method)).packing
    assert SHARES[method] - 0.01 <= packing.bits_with_scales < SHARES[method] + 0.15
    assert packing.bits_taken == [8.0 if method == "fp8" else 4.0]


@pytest.mark.parametrize("method", packed.METHODS)
def test_scales_that_are_missing_are_named(copy, method):
    name = stem(method) + SCALES.get(method, ".weight_scale")
    packing = release_of(without(copy(method), name)).packing
    assert packing.lacking == [name]
    assert packing.strays == ()


@pytest.mark.parametrize("method", packed.METHODS)
def test_scales_without_their_matrix_are_named(copy, method):
    lost = stem(method) + NUMBERS.get(method, ".weight")
    release = release_of(without(copy(method), lost))
    assert stem(method) + SCALES.get(method, ".weight_scale") in release.packing.strays
    assert release.fit.missing == (stem(method) if method == "mxfp4" else f"{stem(method)}.weight",)


@pytest.mark.parametrize("method", packed.METHODS)
def test_scales_of_another_number_are_named(copy, method):
    name = stem(method) + SCALES.get(method, ".weight_scale")

    def halve(tensors):
        axis = max(range(tensors[name].dim()), key=lambda n: tensors[name].shape[n])
        tensors[name] = tensors[name].narrow(axis, 0, tensors[name].shape[axis] // 2)

    packing = release_of(packed.rewrite(copy(method), halve)).packing
    assert list(packing.misshapen) == [name]
    assert packing.lacking == []


@pytest.mark.parametrize("method", packed.METHODS)
def test_without_its_config_a_release_is_named_for_what_it_is(copy, method):
    release = release_of(packed.configure(copy(method), drop=("quantization_config",)))
    packing = release.packing
    assert not packing.as_stated
    assert len(packing.methods) == 1
    assert "back into config.json" in packing.remedy
    assert (packing.lacking, packing.strays, packing.misshapen) == ([], (), {})
    assert (release.fit.missing, release.fit.unexpected, release.fit.mismatched_shapes) == ((), (), {})


@pytest.mark.parametrize("method", packed.METHODS)
def test_a_config_left_behind_is_seen(published, tmp_path, method):
    kind = "gpt_oss" if method == "mxfp4" else "llama"
    settings = json.loads((published(method) / "config.json").read_text())["quantization_config"]
    folder = packed.configure(packed.save_full(tmp_path / "full", kind), quantization_config=settings)
    release = release_of(folder)
    assert not release.packing.as_stated
    assert release.packing.count.startswith("none packed, ")
    assert release.packing.remedy.startswith("Drop quantization_config")
    assert (release.fit.missing, release.fit.unexpected) == ((), ())


@pytest.mark.parametrize("method", packed.METHODS)
def test_a_list_that_leaves_out_what_is_packed_is_seen(copy, method):
    field = LISTS.get(method, "llm_int8_skip_modules" if method.startswith("bnb") else "modules_to_not_convert")
    listed = {
        "mxfp4": [f"{EXPERTS.rpartition('.')[0]}", "lm_head"],
        "gptq": [["mlp.gate_proj", "mlp.up_proj"], [f"self_attn.{n}_proj" for n in "qkvo"]],
    }.get(method, ["lm_head", LAYER])
    packing = release_of(packed.settings(copy(method), **{field: listed})).packing
    assert stem(method) in packing.against_the_config
    assert "packed (" in packing.against_the_config[stem(method)]


@pytest.mark.parametrize("method", packed.METHODS)
def test_a_matrix_in_full_that_no_list_names_is_seen(copy, method):
    name = stem(method)
    names = {name: torch.zeros(4, 256, 128)} if method == "mxfp4" else {f"{name}.weight": torch.zeros(128, 256)}

    def unpacked(tensors):
        kept = {n: t for n, t in tensors.items() if parsed(n)[0] != name}
        return kept | {n: t.bfloat16() for n, t in names.items()}

    release = release_of(packed.rewrite(copy(method), unpacked))
    assert release.packing.against_the_config == {name: "in full (BF16), the config has it packed"}
    assert release.fit.mismatched_shapes == {}
    assert release.packing.strays == ()


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-integers", "bnb-nf4", "bnb-int8"])
def test_bits_other_than_promised_are_seen(copy, method):
    folder = copy(method)
    wrong: dict = {"bits": 8}
    if method.startswith("bnb"):
        wrong = {"load_in_4bit": method == "bnb-int8", "load_in_8bit": method != "bnb-int8"}
    if method == "compressed-integers":
        groups = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"]
        groups["group_0"]["weights"]["num_bits"] = 8
        wrong = {"config_groups": groups}
    packing = release_of(packed.settings(folder, **wrong)).packing
    taken, promised = (8.0, 4) if method == "bnb-int8" else (4.0, 8)
    assert packing.of_other_bits[LAYER] == (taken, promised)
    assert len(packing.of_other_bits) == 14


@pytest.mark.parametrize("method", ["fp8", "compressed-integers", "gptq"])
def test_experts_one_by_one_are_unpacked(tmp_path, method):
    """The files have each expert's matrices, which the model has as one."""
    release = release_of(packed.lay_out(tmp_path / "release", method, "qwen3_moe"))
    packing = release.packing
    assert packing.as_stated
    assert (packing.lacking, packing.strays, packing.misshapen) == ([], (), {})
    assert (packing.against_the_config, packing.of_other_bits) == ({}, {})
    assert (release.fit.missing, release.fit.unexpected, release.fit.mismatched_shapes) == ((), (), {})
    assert len(packing.packed) == 2 * (4 + 4 * 3)


def test_a_turned_matrix_is_of_another_shape(copy):
    """A linear module's matrix is (out, in), packed or not."""

    def turn(tensors):
        for ending in ("weight", "weight_scale_inv"):
            tensors[f"{LAYER}.{ending}"] = tensors[f"{LAYER}.{ending}"].T

    release = release_of(packed.rewrite(copy("fp8"), turn))
    assert release.fit.mismatched_shapes == {f"{LAYER}.weight": ((256, 128), (128, 256))}


def test_numbers_that_were_saved_after_they_had_run_are_seen(copy):
    """The library repacks 4 bits for its CPU kernels, and saves scales in 16 bits and another order."""

    def run(tensors):
        tensors[f"{LAYER}.weight"] = tensors[f"{LAYER}.weight"].reshape(128, 128)
        scales = tensors[f"{LAYER}.weight.absmax"]
        tensors[f"{LAYER}.weight.absmax"] = scales.reshape(128, 4).T.bfloat16()

    release = release_of(packed.rewrite(copy("bnb-nf4"), run))
    assert set(release.packing.misshapen) == {f"{LAYER}.weight", f"{LAYER}.weight.absmax"}
    assert release.fit.mismatched_shapes == {}


def test_modules_that_keep_a_matrix_turned_are_read(tmp_path):
    """GPT-2 has (in, out); what packs it has (out, in)."""
    settings = packed.LAID_OUT["gptq"][1]
    sizes = {"n_embd": 128, "n_layer": 1, "n_head": 4, "vocab_size": 128}
    folder = packed.save_full(tmp_path / "release", "gpt2", dtype=torch.float16, **sizes)

    def change(tensors):
        found = {n: t for n, t in tensors.items() if ".c_" not in n or n.endswith("bias")}
        for name in tensors.keys() - found.keys():
            found |= packed.gptq(name.removesuffix(".weight"), tensors[name].T)
        return found

    release = release_of(packed.configure(packed.rewrite(folder, change), quantization_config=settings))
    packing = release.packing
    assert len(packing.packed) == 4
    assert (packing.lacking, packing.misshapen, packing.against_the_config) == ([], {}, {})
    assert (release.fit.missing, release.fit.unexpected, release.fit.mismatched_shapes) == ((), (), {})


def test_an_expert_whose_scale_is_lost_is_named(tmp_path):
    name = "model.layers.1.mlp.experts.3.up_proj.weight_scale_inv"
    folder = packed.lay_out(tmp_path / "release", "fp8", "qwen3_moe")
    packing = release_of(without(folder, name)).packing
    assert packing.lacking == [name]


def test_a_method_without_a_law_is_held_against_itself(tmp_path):
    """What most layers have beside a weight, all have; nothing is said of matrices that cannot be unpacked."""
    folder = packed.save_full(tmp_path / "release")

    def change(tensors):
        found = {n: t for n, t in tensors.items() if not n.endswith("proj.weight")}
        for name, tensor in tensors.items():
            if name.endswith("proj.weight"):
                found |= packed.unheard_of(name.removesuffix(".weight"), tensor)
        return found

    def third_layer(tensors):
        others = {n: t for n, t in tensors.items() if "layers.1" in n and n != f"{LAYER}.codebook"}
        return tensors | {n.replace("layers.1", "layers.2"): t for n, t in others.items()}

    packed.configure(packed.rewrite(folder, change), quantization_config={"quant_method": "unheard-of"})
    packing = release_of(folder).packing
    assert packing.as_stated
    assert not packing.readable
    assert packing.lacking == []
    packed.configure(folder, num_hidden_layers=3)
    packed.rewrite(folder, third_layer)
    assert release_of(folder).packing.lacking == [f"{LAYER.replace('.1.', '.2.')}.codebook"]


OTHERS = {
    "bitnet": lambda stem, w: {f"{stem}.weight": w[::4].to(torch.uint8), f"{stem}.weight_scale": torch.ones(1)},
    "quanto": lambda stem, w: {f"{stem}.weight._data": w.to(torch.int8), f"{stem}.weight._scale": torch.ones(1)},
    "eetq": lambda stem, w: {f"{stem}.weight": w.T.to(torch.int8), f"{stem}.weight_scales": torch.ones(1)},
}


@pytest.mark.parametrize("method", OTHERS)
def test_methods_of_other_libraries_are_held_against_themselves(tmp_path, method):
    folder = packed.save_full(tmp_path / "release")

    def change(tensors):
        found = {n: t for n, t in tensors.items() if not n.endswith("proj.weight")}
        for name in tensors.keys() - found.keys():
            found |= OTHERS[method](name.removesuffix(".weight"), tensors[name])
        return found

    packed.configure(packed.rewrite(folder, change), quantization_config={"quant_method": method})
    packing = release_of(folder).packing
    assert (len(packing.beside), packing.lacking, packing.strays) == (14, [], ())
    assert packing.as_stated
    assert packing.count == "14 packed, 2 in full (BF16)"


@pytest.mark.parametrize(
    ("method", "layout"),
    [("gptq", {"checkpoint_format": "marlin"}), ("awq", {"version": "gemv"}), ("compressed-fp8", {"format": "dense"})],
    ids=["marlin", "gemv", "dense"],
)
def test_a_layout_without_a_law_is_not_read_by_another(copy, method, layout):
    packing = release_of(packed.settings(copy(method), **layout)).packing
    assert not packing.readable
    assert (packing.lacking, packing.misshapen, packing.strays) == ([], {}, ())


def test_a_config_of_the_cache_alone_leaves_the_weights_in_full(tmp_path):
    settings = {"quant_method": "compressed-tensors", "config_groups": {}, "kv_cache_scheme": {"num_bits": 8}}
    packing = release_of(packed.configure(packed.save_full(tmp_path / "full"), quantization_config=settings)).packing
    assert packing.as_stated
    assert (packing.against_the_config, packing.strays) == ({}, ())


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0, 0)], ids=["scalar", "vector", "cube", "empty"])
@pytest.mark.parametrize(
    "method", ["gptq", "awq", "compressed-integers", "fp8", "nvfp4", "bnb-nf4", "bnb-int8", "mxfp4"]
)
def test_numbers_of_no_sensible_shape_are_survived(published, method, shape):
    """Whatever the shapes, something is found to be wrong, and nothing is raised."""
    release = release_of(published(method))
    tensors = dict(release.headers.tensors)
    lost = [name for name in tensors if name.startswith(stem(method)) and not name.endswith("bias")]
    for name in lost:
        changed = Headers(("x",), tensors | {name: Tensor(tensors[name].dtype, shape)})
        modules = Modules(release.config)
        packing = unpack(changed, Promise(release.packing.promise.settings, modules), modules)
        assert packing.lacking == []
        assert isinstance(packing.of_other_bits, dict)
        assert isinstance(packing.misshapen, dict)


@pytest.mark.parametrize("method", ["fp8", "mxfp4"])
def test_what_is_laid_out_is_what_the_library_reads(published, method):
    """Transformers unpacks these on the CPU: nothing is missing, and nothing is left over."""
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    model, found = auto.from_pretrained(published(method), output_loading_info=True)
    assert {name: names for name, names in found.items() if names} == {}
    assert model(torch.arange(8)[None]).logits.isfinite().all()


def test_what_compressed_tensors_packs_is_read(tmp_path):
    """The library's own compressor, where it is installed."""
    library = pytest.importorskip("compressed_tensors", exc_type=ImportError)
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(packed.save_full(tmp_path / "full"))
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    apply_quantization_config(model, QuantizationConfig(config_groups=groups, ignore=["lm_head"]))
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(tmp_path / "release", state_dict=model.state_dict())
    compressor.update_config(tmp_path / "release")
    packing = release_of(tmp_path / "release").packing
    assert packing.as_stated, library.__version__
    assert (packing.lacking, packing.strays, packing.misshapen) == ([], (), {})
    assert (packing.against_the_config, packing.of_other_bits) == ({}, {})


def test_what_lies_in_a_file_beside_the_config_is_read(copy):
    """ModelOpt may say it in hf_quant_config.json alone."""
    folder = packed.configure(copy("nvfp4"), drop=("quantization_config",))
    beside = {"quantization": {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}}
    (folder / "hf_quant_config.json").write_text(json.dumps(beside))
    packing = release_of(folder).packing
    assert packing.as_stated
    assert (packing.promise.method, packing.lacking, packing.of_other_bits) == ("modelopt", [], {})


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": 3},
        {"quant_method": "fp8", "weight_block_size": "wide"},
        {"quant_method": "fp8", "weight_block_size": [0, 0]},
        {"quant_method": "fp8", "modules_to_not_convert": ["*", "(", None]},
        {"quant_method": "gptq", "bits": "four", "group_size": {}, "dynamic": {"(": {}}},
        {"quant_method": "compressed-tensors", "config_groups": []},
        {"quant_method": "compressed-tensors", "config_groups": {"a": None, "b": {"weights": {"num_bits": "x"}}}},
        {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {}, "targets": 7}}},
        {"quant_method": "gptq", "dynamic": [1], "extra_config": 3, "modules_in_block_to_quantize": 4},
        {"quant_method": "fp8", "modules_to_not_convert": ["(.*)*(.*)*x", ".*" * 50 + "x", "(a|a)+" * 9]},
        {"quant_method": "compressed-tensors", "ignore": ["re:(.*.*)+x"], "config_groups": {"a": {"weights": {}}}},
        {"load_in_4bit": True},
        {"nothing": "known"},
    ],
    ids=[
        *("number", "block", "no-block", "patterns", "gptq", "groups", "no-groups", "targets", "overrides"),
        *("endless", "endless-ignored", "no-method", "nothing"),
    ],
)
def test_settings_that_make_no_sense_are_survived(copy, settings):
    release = release_of(packed.configure(copy("fp8"), quantization_config=settings))
    packing = release.packing
    assert packing is not None
    assert packing.lacking == []
    assert isinstance(packing.against_the_config, dict)
    assert isinstance(packing.of_other_bits, dict)


def test_names_are_taken_apart():
    assert parsed("a.b.weight_scale_inv") == ("a.b", "weight_scale_inv")
    assert parsed("a.b.weight.quant_state.bitsandbytes__nf4") == ("a.b", "quant_state")
    assert parsed("a.experts.gate_up_proj_blocks") == ("a.experts.gate_up_proj", "blocks")
    assert parsed("a.b.bias") == ("a.b.bias", "")


def test_bytes_of_types():
    sizes = [size(Tensor(dtype, (3, 2))) for dtype in ("F32", "BF16", "F8_E4M3", "U8", "F4", "BOOL", "I64")]
    assert sizes == [24, 12, 6, 6, 3, 6, 48]


def test_very_many_are_told_by_kind():
    few = [f"layers.{n}.scale" for n in range(3)]
    assert by_kind(few) == few
    assert by_kind([f"layers.{n}.scale" for n in range(30)] + ["head"]) == ["30 times layers.#.scale", "head"]
    assert by_kind({f"layers.{n}": "in full" for n in range(9)}) == ["9 times layers.#: in full"]


def test_every_method_with_a_law_is_tried():
    laid_out = {settings.get("quant_method", "mlx") for _, settings in packed.LAID_OUT.values()}
    laid_out |= {"mxfp4", "bitsandbytes"}
    assert KNOWN.keys() - laid_out == {"auto-round", "mxfp8"}, "these have the laws of GPTQ, AWQ and fp8"


def test_a_release_in_full_has_no_packing(tmp_path):
    assert release_of(packed.save_full(tmp_path / "full")).packing is None


def test_the_size_is_that_of_the_file(published):
    for method in ("fp8", "bnb-nf4"):
        release = release_of(published(method))
        assert release.packing.size == sum(size(t) for t in in_directory(published(method)).tensors.values())
        file = next(published(method).glob("*.safetensors"))
        assert 0 < file.stat().st_size - release.packing.size < 20_000  # its header


def test_settings_are_found_in_the_text_part():
    from transformers import LlamaConfig

    outer: Any = LlamaConfig()
    outer.text_config = LlamaConfig()
    outer.text_config.quantization_config = {"quant_method": "fp8"}
    assert settings_of(outer) == {"quant_method": "fp8"}
    assert settings_of(LlamaConfig()) == {}


def test_an_architecture_that_cannot_be_built_is_survived():
    """Headers are read as far as they go; that the model cannot be built is for other claims to say."""
    from transformers import LlamaConfig

    modules = Modules(LlamaConfig(hidden_size=64, head_dim=16, hidden_act="no-such-function"))
    tensors = {"a.weight": Tensor("F8_E4M3", (128, 128)), "b.weight_scale_inv": Tensor("F32", (1, 1))}
    packing = unpack(Headers(("x",), tensors), Promise({"quant_method": "fp8"}, modules), modules)
    assert packing.lacking == ["a.weight_scale_inv"]
    assert packing.strays == ("b.weight_scale_inv",)
    assert math.isclose(packing.packed[0].bits_taken, 8)
