"""Any input: what is read of somebody else's files ends in a result or in the project's own errors.

FUZZ_EXAMPLES in the environment says how many of each kind are tried; else there are few, the same every time.
"""

import contextlib
import json
import os
import struct

import pytest
import torch
from safetensors.torch import save_file

hypothesis = pytest.importorskip("hypothesis", reason="pip install -e '.[dev]' brings it")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from fixtures.models.config_fields import MEANINGS  # noqa: E402
from fixtures.published.adapter import FRONT, WEIGHTS, described  # noqa: E402
from fixtures.published.adapter_fit import AdapterFit  # noqa: E402
from fixtures.published.entries_file import EntriesError, load  # noqa: E402
from fixtures.published.files import INDEX, SINGLE  # noqa: E402
from fixtures.published.gguf import beside, sizes  # noqa: E402
from fixtures.published.gguf.bits import misnamed  # noqa: E402
from fixtures.published.gguf.layers import uncounted  # noqa: E402
from fixtures.published.headers import HeadersError, in_directory  # noqa: E402
from fixtures.published.hub import HubError, Repository  # noqa: E402
from fixtures.published.own_tokenizer import own_tokenizer_of  # noqa: E402
from fixtures.published.release import ReleaseError, at_path, listed  # noqa: E402
from fixtures.published.small_files import FileError  # noqa: E402
from fixtures.report import earlier, record  # noqa: E402
from tests.published.test_hostile_hub import hostile  # noqa: E402, F401
from tests.support.adapters import SETTINGS  # noqa: E402
from tests.support.checkpoints import SMALL, save_tokenizer  # noqa: E402
from tests.support.ggufs import llama, write  # noqa: E402

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
pytestmark = pytest.mark.slow
few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 40,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
numbers = st.one_of(st.integers(-(2**70), 2**70), st.integers(-2, 70), st.floats(), st.booleans(), st.none())
texts = st.one_of(st.text(max_size=8), st.sampled_from(["", "os", "float32", "\x1b[2J", "\ud800", "a/b", "../x"]))
values = st.recursive(
    st.one_of(numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
OTHERS = """
    architectures dtype torch_dtype rope_parameters rope_scaling layer_types quantization_config num_attention_heads
    text_config auto_map to_dict __class__ attribute_map id2label is_decoder"""
fields = st.sampled_from(sorted({name for words in [*MEANINGS.values(), OTHERS] for name in words.split()}))
configs = st.dictionaries(st.one_of(fields, texts), values, max_size=8)
OPT = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 40}
tensors = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from(["F32", "BF16", "F4", "X"]), values),
        "shape": st.one_of(st.lists(st.integers(-1, 4), max_size=3), values),
        "data_offsets": st.one_of(st.lists(st.integers(-4, 64), min_size=2, max_size=2), values),
    },
)
headers = st.dictionaries(texts, st.one_of(tensors, values), max_size=4)


def make_folder(folder, **config):
    """Write a config of a small model."""
    (folder / "config.json").write_text(json.dumps(SMALL | config))


@contextlib.contextmanager
def in_a_sentence(*errors):
    """Take the project's own errors, whose words may be printed as they are, and no others."""
    try:
        yield
    except errors as error:
        words = getattr(error, "problems", [str(error)])
        if not all(map(str.isprintable, words)):
            raise AssertionError(f"not to be printed: {words}") from error


@few
@given(kind=st.sampled_from(["opt", "llama", "t5", "bert", "mamba", "mixtral"]), changed=configs)
def test_any_config(tmp_path, kind, changed):
    (tmp_path / "config.json").write_text(json.dumps({**OPT, **changed, "model_type": kind}))
    with in_a_sentence(ReleaseError):
        at_path(tmp_path).config  # noqa: B018 - it is read


@few
@given(content=st.one_of(st.binary(max_size=200), values.map(lambda v: json.dumps(v).encode())))
def test_any_bytes_for_a_config(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with in_a_sentence(ReleaseError):
        at_path(tmp_path).config  # noqa: B018 - it is read


@few
@given(
    header=st.one_of(headers.map(lambda v: json.dumps(v).encode()), st.binary(max_size=100)), size=st.integers(0, 80)
)
def test_any_header(tmp_path, header, size):
    (tmp_path / SINGLE).write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    with in_a_sentence(HeadersError):
        in_directory(tmp_path)


@few
@given(content=st.one_of(st.binary(max_size=100), st.dictionaries(st.just("weight_map"), values).map(json.dumps)))
def test_any_index(tmp_path, content):
    (tmp_path / INDEX).write_bytes(content if isinstance(content, bytes) else content.encode())
    with in_a_sentence(HeadersError, FileError):
        in_directory(tmp_path)


entries = st.dictionaries(st.one_of(texts, st.just("org/name")), st.one_of(values, configs), max_size=3)
matrices = st.one_of(
    st.binary(max_size=100),
    st.text(alphabet="models: {}[]&*a-?!|>'\"\n%@`#,\t", max_size=80).map(str.encode),
    st.dictionaries(st.sampled_from(["models", "traits", "budgets", "x"]), entries).map(
        lambda v: json.dumps(v).encode()
    ),
)


@few
@given(content=matrices)
def test_any_matrix(tmp_path, content):
    (tmp_path / "models.yaml").write_bytes(content)
    with in_a_sentence(EntriesError):
        load(tmp_path / "models.yaml", claims={}, configs=tmp_path)


kinds = st.sampled_from(["result", "facts", "catalogue", "suite", "lesson", "pictures", "x"])
keys = st.sampled_from(["id", "claim", "model", "verdict", "facts", "origin", "claims", "models", "items", "chapters"])
journals = st.lists(st.one_of(st.tuples(kinds, st.dictionaries(keys, values)).map(json.dumps), st.text(max_size=20)))


@few
@given(lines=journals)
def test_any_journal(tmp_path, lines):
    (tmp_path / record.JOURNAL).write_text("\n".join(lines), errors="backslashreplace")
    _, damaged = earlier.lines_of(tmp_path / record.JOURNAL)
    assert 0 <= damaged <= sum(len(line.split("\n")) for line in lines) + 1
    record.dumps(record.load(tmp_path))


@few
@given(document=st.one_of(values, st.dictionaries(st.sampled_from(["claims", "models", "results", "suite"]), values)))
def test_any_report(tmp_path, document):
    (tmp_path / record.REPORT).write_text(json.dumps(document))
    with in_a_sentence(ValueError, FileError):
        list(record.entries_of(record.load(tmp_path)))


@few
@given(content=st.binary(max_size=60))
def test_any_list_of_names(tmp_path, content):
    (tmp_path / "names").write_bytes(content)
    with in_a_sentence(ValueError):
        listed(tmp_path / "names")


changes = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)


@few
@given(changed=changes, end=st.integers(0, 10**6), cut=st.booleans(), settings=configs)
def test_any_tokenizer(tmp_path, changed, end, cut, settings):
    """A tokenizer's files with bytes of another kind in them, or cut off, and whatever settings beside it."""
    if not (tmp_path / "tokenizer.json").exists():
        save_tokenizer(tmp_path, 99)
        (tmp_path / "sound").write_bytes((tmp_path / "tokenizer.json").read_bytes())
        (tmp_path / "config.json").write_text(json.dumps(OPT | {"model_type": "opt"}))
    content = bytearray((tmp_path / "sound").read_bytes())
    for place, byte in changed:
        content[place % len(content)] = byte
    (tmp_path / "tokenizer.json").write_bytes(content[: end % len(content)] if cut else content)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with in_a_sentence(ReleaseError):
        own_tokenizer_of(at_path(tmp_path))


NAMES = "general.architecture general.type general.file_type general.alignment split.count split.no llama.block_count"
KEYS = (
    "embedding_length feed_forward_length attention.head_count attention.head_count_kv attention.key_length vocab_size"
)
keys = st.sampled_from([*NAMES.split(), *(f"llama.{key}" for key in KEYS.split()), "tokenizer.ggml.tokens"])
kept = st.one_of(
    st.integers(0, 2**32 - 1), st.integers(0, 9), st.floats(width=32), st.booleans(), st.text(max_size=6), st.just([])
)


def all_of_a_gguf(folder, config):
    """Whatever the claims say of the GGUF files in a folder; what of it is printed is escaped where that is done."""
    for model in at_path(folder).ggufs:
        if not model.torn and model.is_model:
            sizes.in_words(model.file, sizes.sizes(model))
            sizes.in_words(model.file, beside.sizes(model, config))
            yield from (model.damage, uncounted(model), misnamed(model)[1], beside.head(model, config))
        yield model.torn


@few
@given(
    settings=st.dictionaries(keys, kept, max_size=4), changed=changes, end=st.integers(0, 10**6), way=st.integers(0, 2)
)
def test_any_gguf(tmp_path, settings, changed, end, way):
    """Other metadata, or some bytes of another kind, or fewer of them."""
    fields, of_a_model = llama()
    file = write(tmp_path / "model.gguf", fields | (settings if way == 0 else {}), of_a_model)
    content = bytearray(file.read_bytes())
    header = 4000  # most of what is in it; numbers follow
    for place, byte in changed if way == 1 else []:
        content[place % header] = byte
    file.write_bytes(content[: end % len(content)] if way == 2 else content)
    make_folder(tmp_path, model_type="llama")
    with in_a_sentence(ReleaseError):
        assert all(type(words) is str for words in all_of_a_gguf(tmp_path, at_path(tmp_path).config))


OF_PEFT = """
    peft_type task_type r lora_alpha target_modules rank_pattern alpha_pattern modules_to_save base_model_name_or_path
    bias layers_to_transform layers_pattern use_dora exclude_modules trainable_token_indices target_parameters revision
    fan_in_fan_out"""
of_peft = st.dictionaries(st.sampled_from(OF_PEFT.split()), values, max_size=4)
modules = st.sampled_from(
    ["model.layers.0.self_attn.q_proj", "model.layers.9.mlp.up_proj", "lm_head", "model.norm", "x", ""]
)
halves = st.sampled_from(
    [".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ".weight", ".modules_to_save.weight", ""]
)
shapes = st.lists(st.integers(0, 40), max_size=3)


@few
@given(settings=of_peft, tensors=st.dictionaries(st.tuples(modules, halves), shapes, max_size=6))
def test_any_adapter(tmp_path, settings, tensors):
    """Whatever settings and tensors, held against a small Llama."""
    (tmp_path / "base").mkdir(exist_ok=True)
    (tmp_path / "adapter_config.json").write_text(json.dumps({**SETTINGS, **settings}))
    make_folder(tmp_path / "base", model_type="llama")
    named = {f"{FRONT}{module}{half}": torch.zeros(shape) for (module, half), shape in tensors.items()}
    save_file(named, tmp_path / WEIGHTS)
    with in_a_sentence(ReleaseError):
        adapter = at_path(tmp_path).adapter
        assert adapter is not None
        assert described(adapter)
        if not adapter.faults:
            fit = AdapterFit(adapter, at_path(tmp_path / "base").config, 99)
            assert not fit.readable or {type(words) for words in (fit.lost, fit.misshapen, fit.resized)} == {str}


answers = st.dictionaries(
    st.sampled_from(["sha", "siblings", "id", "modelId", "private", "gated", "x"]),
    st.one_of(values, st.lists(st.dictionaries(st.sampled_from(["rfilename", "size", "lfs"]), values), max_size=4)),
)


@few
@given(content=st.one_of(st.binary(max_size=60), answers.map(lambda v: json.dumps(v).encode())))
def test_any_answer_of_a_hub(hostile, content):
    """Whatever stands where a hub lists a repository's files."""
    with hostile(list=content), in_a_sentence(HubError):
        Repository("org/name").listing()


@few
@given(etag=texts, commit=texts, content=st.binary(max_size=60), size=st.one_of(st.none(), st.integers(0, 100)))
def test_any_file_of_a_hub(hostile, etag, commit, content, size):
    """Whatever a hub sends for a file, and under whatever names."""
    names = {
        name: value.encode("ascii", "ignore").decode().replace("\x1b", "")
        for name, value in (("etag", etag), ("commit", commit))
    }
    sent = len(content) if size is None else min(size, len(content))
    with hostile(**names, file=content, size=sent), in_a_sentence(HubError):
        Repository("org/name").file("config.json")
