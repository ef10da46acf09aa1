"""The sentence's tokenizers have the published ids, pieces and size, whether these are found or repeated."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.published.tokenizer import SENTENCE, VOCABULARIES, build_tokenizer, read_vocabulary

ROOT = Path(__file__).parents[2]
BPE = "The Ġquick Ġbrown Ġfox Ġjumps Ġover Ġthe Ġlazy Ġdog"
OPT = [133, 2119, 6219, 23602, 13855, 81, 5, 22414, 2335]
GPT2 = [464, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290]
BERT = [101, 1109, 3613, 3058, 17594, 15457, 1166, 1103, 16688, 3676, 102]
T5 = [37, 1704, 4216, 3, 20400, 4418, 7, 147, 8, 19743, 1782, 1]
RECORDED = {
    name: {"algorithm": algorithm, "tokenizer_size": size, "ids": ids, "pieces": pieces.split()}
    for name, algorithm, size, ids, pieces in (
        ("opt", "byte-level-bpe", 50265, [2, *OPT], f"</s> {BPE}"),
        ("gpt2", "byte-level-bpe", 50257, GPT2, BPE),
        ("bart", "byte-level-bpe", 50265, [0, *OPT, 2], f"<s> {BPE} </s>"),
        ("bert", "wordpiece", 28996, BERT, f"[CLS] {SENTENCE} [SEP]"),
        ("t5", "unigram", 32000, T5, "▁The ▁quick ▁brown ▁ fox ▁jump s ▁over ▁the ▁lazy ▁dog </s>"),
    )
}
FOUND: dict[str, str] = {"opt": "roberta", "gpt2": "gpt2", "bart": "roberta", "bert": "bert-base-cased"}


@pytest.fixture(scope="module", params=RECORDED)
def recorded(request):
    return RECORDED[request.param]


@pytest.fixture(scope="module")
def tokenizer(recorded):
    return build_tokenizer(recorded)


def test_the_sentence_has_its_recorded_ids_and_pieces(tokenizer, recorded):
    encoded = tokenizer(SENTENCE)
    assert encoded["input_ids"] == recorded["ids"]
    assert encoded.tokens() == tokenizer.convert_ids_to_tokens(recorded["ids"]) == recorded["pieces"]
    assert tokenizer.encode(SENTENCE) == recorded["ids"]


def test_tokenize_gives_the_pieces_without_special_tokens(tokenizer, recorded):
    text = [piece for piece in recorded["pieces"] if piece not in ("<s>", "</s>", "[CLS]", "[SEP]")]
    assert tokenizer.tokenize(SENTENCE) == text
    assert tokenizer.encode(SENTENCE, add_special_tokens=False) == tokenizer.convert_tokens_to_ids(text)


def test_tensors_have_one_row_a_text(tokenizer, recorded):
    encoded = tokenizer(SENTENCE, return_tensors="pt")
    names = {"input_ids", "attention_mask"} | ({"token_type_ids"} if recorded["algorithm"] == "wordpiece" else set())
    assert set(encoded) == names
    assert {tuple(tensor.shape) for tensor in encoded.values()} == {(1, len(recorded["ids"]))}


def test_a_batch_of_the_sentence_repeats_its_row(tokenizer, recorded):
    encoded = tokenizer([SENTENCE, SENTENCE], return_tensors="pt")
    assert encoded["input_ids"].tolist() == [recorded["ids"]] * 2
    assert encoded["attention_mask"].tolist() == [[1] * len(recorded["ids"])] * 2


def test_the_size_is_the_published_one(tokenizer, recorded):
    assert len(tokenizer) == tokenizer.vocab_size == len(tokenizer.get_vocab()) == recorded["tokenizer_size"]
    unrecorded = next(index for index in range(100) if index not in recorded["ids"])
    assert tokenizer.convert_ids_to_tokens(unrecorded) == f"<unrecorded {unrecorded}>"


def test_the_ids_give_the_sentence_back(tokenizer, recorded):
    assert tokenizer.decode(recorded["ids"], skip_special_tokens=True) == SENTENCE


def test_offsets_cut_the_sentence_into_its_words(tokenizer):
    offsets = tokenizer(SENTENCE, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    assert "".join(SENTENCE[start:stop] for start, stop in offsets).replace(" ", "") == SENTENCE.replace(" ", "")


@pytest.mark.parametrize("text", ["cat", "日本", "zebra"])
def test_no_other_word_is_known(tokenizer, recorded, text):
    if recorded["algorithm"] == "unigram":  # the library wants an id for what is unknown
        assert "<unrecorded 0>" in map(tokenizer.convert_ids_to_tokens, tokenizer.backend_tokenizer.encode(text).ids)
        return
    with pytest.raises(Exception, match=r"(?i)unk"):
        tokenizer.backend_tokenizer.encode(text)


def test_a_known_token_can_pad(recorded):
    tokenizer = build_tokenizer(recorded)
    tokenizer.pad_token = "<unrecorded 9>"
    encoded = tokenizer([SENTENCE], padding="max_length", max_length=len(recorded["ids"]) + 2)
    assert encoded["input_ids"] == [[*recorded["ids"], 9, 9]]


def test_what_is_saved_gives_the_same_ids(tokenizer, recorded, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert dict(again(SENTENCE)) == dict(tokenizer(SENTENCE))
    assert (len(again), again.special_tokens_map) == (len(tokenizer), tokenizer.special_tokens_map)


# ---- vocabularies


@pytest.mark.parametrize("name", FOUND)
def test_the_algorithm_finds_the_published_split(name):
    found = build_tokenizer(RECORDED[name] | {"vocabulary": FOUND[name]})
    encoded = found(SENTENCE)
    assert (encoded["input_ids"], encoded.tokens()) == (RECORDED[name]["ids"], RECORDED[name]["pieces"])
    assert len(found) == RECORDED[name]["tokenizer_size"]


@pytest.mark.parametrize("name", FOUND)
def test_the_answer_plays_no_part_in_it(name):
    """With the recorded ids wrong and the pieces another split, the vocabulary's own ids and split come out."""
    recorded = RECORDED[name]
    other = recorded | {"ids": [7] * 12, "vocabulary": FOUND[name]}
    assert build_tokenizer(other)(SENTENCE)["input_ids"] == recorded["ids"]


@pytest.mark.parametrize("name", sorted(path.stem for path in VOCABULARIES.glob("*.json")))
def test_a_vocabulary_is_of_one_piece(name):
    """Each id and each rank is given once, each merge joins entries to an entry, each file has its sum."""
    vocabulary = read_vocabulary(name)
    ids, ranks = list(vocabulary.ids.values()), [rank for rank, _, _ in vocabulary.merges]
    assert len(set(ids)) == len(ids)
    assert max(ids) < vocabulary.entries
    assert all(one < other for one, other in itertools.pairwise(ranks))
    assert all({left, right, left + right} <= set(vocabulary.ids) for _, left, right in vocabulary.merges)
    assert all(len(digest) == 64 for digest in vocabulary.sha256.values())


def test_gpt2_numbers_its_entries_by_their_merges():
    """256 bytes come first, then what each merge makes, in the order of ranks: each id holds against its rank."""
    vocabulary = read_vocabulary("gpt2")
    assert {left + right: 256 + rank for rank, left, right in vocabulary.merges}.items() <= vocabulary.ids.items()


def test_every_rival_of_an_applied_merge_is_recorded():
    """Two vocabularies made by the same merges record the same of them."""
    assert read_vocabulary("gpt2").merges == read_vocabulary("roberta").merges


# ---- records


def test_an_uncased_tokenizer_lowers_the_sentence():
    pieces = ["[CLS]", *SENTENCE.lower().split(), "[SEP]"]
    ids = [101, 1996, 4248, 2829, 4419, 14523, 2058, 1996, 13971, 3899, 102]
    uncased = build_tokenizer({"algorithm": "wordpiece", "tokenizer_size": 30522, "ids": ids, "pieces": pieces})
    assert uncased(SENTENCE)["input_ids"] == ids


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param({"pieces": BPE.replace("fox", "cat").split()}, "do not spell the sentence", id="pieces"),
        pytest.param({"algorithm": "bpe"}, "known are byte-level-bpe, wordpiece, unigram", id="algorithm"),
        pytest.param({"tokenizer_size": 20000}, "'Ġfox' has id 21831, outside a tokenizer of 20000", id="size"),
        pytest.param(
            {"pieces": BPE.replace("jumps", "jump s").split(), "ids": [*GPT2, 82]},
            "does not give the recorded ids",
            id="merges",
        ),
    ],
)
def test_a_record_that_cannot_be_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_tokenizer(RECORDED["gpt2"] | change)


def test_importing_the_sentence_imports_nothing_heavy():
    code = (
        "import sys, fixtures.published.tokenizer; print(*{'tokenizers', 'torch', 'transformers'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ran.stdout.strip(), ran.stderr) == ("", "")
