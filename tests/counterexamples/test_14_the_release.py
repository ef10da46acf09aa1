"""Counterexamples of chapter 14: files that do not fit, tokenizers of another model, weights that are no numbers."""

import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fixtures.claims.model_under_test import Subject
from fixtures.claims.real_weights import Loaded
from fixtures.models.runnable import vocabulary
from fixtures.published.files import SINGLE
from fixtures.published.release import at_path
from tests.support.checkpoints import publish, save_tokenizer
from tests.support.ward import examine, healthy, matrix

pytestmark = pytest.mark.slow

OPT, BERT, T5 = "facebook/opt-125m", "google-bert/bert-base-cased", "google-t5/t5-small"
SCORES = "test_every_score_is_a_number"
MATRIX = "model.decoder.layers.0.fc1.weight"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with a sound checkpoint, by the model whose miniature is in it."""
    return {model: publish(model, tmp_path_factory.mktemp("published")) for model in (OPT, BERT, T5)}


@pytest.fixture
def copy(published, tmp_path):
    """Copy a sound checkpoint, to be damaged."""
    return lambda model=OPT: shutil.copytree(published[model], tmp_path / "copy")


@pytest.fixture
def fails(request):
    """See the claims of the `breaks` mark fail on the files in a folder, and no others of the chapter but `also`."""

    def check(folder, *, also=(), why=""):
        claims = request.node.get_closest_marker("breaks").args
        found = examine(Loaded(Subject(at_path(folder), matrix().traits)), chapter="14")
        failed = {name: result["reason"] for name, result in found.items() if result["verdict"] == "fails"}
        assert set(failed) == {*claims, *also}, failed
        for claim in claims:
            assert why in failed[claim], failed[claim]

    return check


def rewrite(folder, change):
    """Change the tensors of a checkpoint in one file."""
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def configure(folder, **fields):
    """Change fields of a checkpoint's config."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.breaks("test_no_tensor_of_the_file_is_cut_off")
def test_a_shard_that_is_cut_off(fails, tmp_path):
    """The second half of a checkpoint's last file is not there."""
    model: Any = healthy(OPT).miniature.model
    model.save_pretrained(tmp_path, max_shard_size=sum(p.nbytes for p in model.parameters()) // 3)
    last = sorted(tmp_path.glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    fails(tmp_path, why="cut off")


@pytest.mark.breaks("test_no_tensor_is_missing")
@pytest.mark.parametrize("patient", [OPT, BERT, T5])
def test_a_tensor_that_is_not_there(fails, copy, patient):
    """The file has not the last of its vectors."""
    folder = copy(patient)
    rewrite(folder, lambda tensors: tensors.pop(max(name for name, t in tensors.items() if t.ndim == 1)))
    fails(folder)


@pytest.mark.breaks("test_no_tensor_is_unexpected")
def test_a_tensor_that_the_model_has_no_use_for(fails, copy):
    """The file has one tensor more than the model."""
    folder = copy()
    rewrite(folder, lambda tensors: tensors.update({"stranger.weight": torch.zeros(3)}))
    fails(folder, why="stranger.weight")


@pytest.mark.breaks("test_every_tensor_has_its_shape")
def test_a_tensor_with_a_row_too_few(fails, copy):
    """One matrix lacks its last row."""
    folder = copy()
    rewrite(folder, lambda tensors: tensors.update({MATRIX: tensors[MATRIX][:-1].clone()}))
    fails(folder, why=f"{MATRIX} is [255, 64] in the files and [256, 64] by the config")


@pytest.mark.breaks("test_every_tensor_has_the_type_of_the_config")
def test_a_type_that_the_config_does_not_name(fails, copy):
    """The config says bfloat16, the file has 32 bits."""
    folder = copy()
    configure(folder, dtype="bfloat16")
    fails(folder, why="tensors in float32")


@pytest.mark.breaks("test_every_layer_is_in_the_file")
def test_a_layer_more_in_the_config(fails, copy):
    """The config names one layer more than the file has."""
    folder = copy()
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    configure(folder, num_hidden_layers=layers + 1)
    fails(folder, also=("test_no_tensor_is_missing",), why=f"expected '0-{layers}', observed '0-{layers - 1}'")


@pytest.mark.breaks("test_a_matrix_with_two_names_is_one_in_the_file")
@pytest.mark.parametrize("patient", [OPT, T5])
def test_a_head_of_its_own_that_the_config_ties(fails, copy, patient):
    """The file has a head with other numbers than the table's, which the config says it shares."""
    folder = copy(patient)
    table = "shared.weight" if patient == T5 else "model.decoder.embed_tokens.weight"
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[table] + 1}))
    fails(folder, why="lm_head.weight")


@pytest.mark.breaks(
    "test_the_tokenizer_reads_the_sentence", "test_the_table_has_a_row_for_every_entry_of_the_tokenizer"
)
def test_a_tokenizer_that_comes_back_empty(fails, copy, monkeypatch):
    """The library finds no vocabulary, and says nothing of it."""
    import transformers
    from tokenizers import Tokenizer, models

    empty = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *args, **kwargs: empty)
    fails(copy())


@pytest.mark.breaks("test_the_tokenizer_reads_the_sentence")
def test_a_tokenizer_that_leaves_words_out(fails, copy, monkeypatch):
    """What comes back of the ids lacks the last word."""
    from transformers import PreTrainedTokenizerFast

    decode = PreTrainedTokenizerFast.decode
    monkeypatch.setattr(PreTrainedTokenizerFast, "decode", lambda self, ids, **more: decode(self, ids[:-1], **more))
    fails(copy(), why="the lazy'")


@pytest.mark.breaks("test_the_table_has_a_row_for_every_entry_of_the_tokenizer")
@pytest.mark.parametrize("share", [0.25, 2.0])
def test_a_tokenizer_of_another_size(fails, copy, share):
    """The tokenizer has a quarter as many entries as the table has rows, or twice as many."""
    folder = copy()
    specimen = healthy(OPT).miniature
    save_tokenizer(folder, int(share * vocabulary(specimen.model, specimen.config)))
    fails(folder, why="entries")


@pytest.mark.breaks("test_every_weight_is_a_number")
def test_a_weight_that_is_no_number(fails, copy):
    """One number of one matrix is NaN."""
    folder = copy()

    def spoil(tensors):
        tensors[MATRIX][0, 0] = torch.nan

    rewrite(folder, spoil)
    fails(folder)


@pytest.mark.breaks(SCORES)
def test_scores_out_of_range(fails, copy):
    """All weights are numbers, and two of them so large that what they make of a token is not."""
    folder = copy()

    def enlarge(tensors):
        for name in (MATRIX, MATRIX.replace("fc1", "fc2")):
            tensors[name].uniform_(2e38, 3e38)

    rewrite(folder, enlarge)
    fails(folder)
