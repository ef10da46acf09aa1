"""The rules of safetensors headers: what the format forbids is refused with the tensor's name, as the library does."""

import json
import struct

import pytest
from safetensors import SafetensorError, safe_open

from fixtures.published.files import SINGLE
from fixtures.published.header_rules import described
from fixtures.published.headers import HeadersError, in_directory
from fixtures.published.small_files import FileError


def one(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


UNSOUND = {
    "too few bytes": {"a": one(shape=(66, 64), offsets=(0, 4))},
    "overlap": {"a": one(), "b": one(offsets=(4, 12))},
    "the same bytes": {"a": one(), "b": one()},
    "a hole": {"a": one(), "b": one(offsets=(9, 17))},
    "not from the first byte": {"a": one(offsets=(8, 16))},
    "reversed": {"a": one(offsets=(8, 0))},
    "negative": {"a": one(offsets=(-8, 0))},
    "unknown type": {"a": one(dtype="F33")},
    "type of a list": {"a": one() | {"dtype": ["F32"]}},
    "negative size": {"a": one(shape=(-1, -2))},
    "a size that is none": {"a": one(shape=(2.0,))},
    "a size that is endless": {"a": one(shape=(float("inf"),))},
    "huge": {"a": one(shape=(2**62, 2**62))},
    "huge and empty": {"a": one(shape=(2**62, 2**62, 0), offsets=(0, 0))},
    "endless offsets": {"a": one(offsets=(0, float("inf")))},
    "one offset": {"a": one(offsets=(0,))},
    "no shape": {"a": {"dtype": "F32", "data_offsets": [0, 8]}},
    "no mapping": {"a": 1},
    "a part of a byte": {"a": one(dtype="F4", shape=(1,), offsets=(0, 0))},
    "text that is none": {"a": one(), "__metadata__": {"a": 1}},
}


def save(folder, header, size=64):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / SINGLE).write_bytes(struct.pack("<Q", len(content)) + content + bytes(size))


@pytest.mark.parametrize("case", UNSOUND)
def test_what_the_format_forbids_is_refused_with_the_name(tmp_path, case):
    with pytest.raises(FileError, match=r"^(a|b|__metadata__|expected __metadata__)"):
        described(UNSOUND[case])
    save(tmp_path, UNSOUND[case])
    with pytest.raises(HeadersError, match=f"^{SINGLE}: expected a safetensors file, found none: ") as caught:
        in_directory(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("case", UNSOUND)
def test_the_library_refuses_it_as_well(tmp_path, case):
    save(tmp_path, UNSOUND[case], size=16)
    with pytest.raises(SafetensorError), safe_open(tmp_path / SINGLE, framework="np"):
        pass


def test_a_name_that_is_twice_is_refused(tmp_path):
    text = json.dumps(one())
    save(tmp_path, f'{{"a": {text}, "a": {text}}}'.encode(), size=8)
    with pytest.raises(HeadersError, match="a: expected each name once, found it twice"):
        in_directory(tmp_path)


def test_bytes_behind_the_last_tensor_are_refused(tmp_path):
    save(tmp_path, {"a": one()}, size=9)
    with pytest.raises(HeadersError, match="the library's own reader refuses it"):
        in_directory(tmp_path)


def test_what_is_cut_off_is_still_named(tmp_path):
    save(tmp_path, {"a": one(), "b": one(offsets=(8, 16))}, size=12)
    found = in_directory(tmp_path)
    assert (list(found.tensors), found.cut) == (["a"], ("b",))


def test_every_type_of_the_format_is_known(tmp_path):
    from fixtures.published.header_rules import BITS

    for dtype, bits in BITS.items():
        save(tmp_path, {"a": one(dtype=dtype, shape=(8,), offsets=(0, bits))}, size=bits)
        with safe_open(tmp_path / SINGLE, framework="np") as content:
            assert list(content.keys()) == ["a"]
        assert in_directory(tmp_path).tensors["a"].dtype == dtype


def test_a_control_sign_in_a_name_is_shown():
    with pytest.raises(FileError, match=r"^a\\x1b\[2J: ") as caught:
        described({"a\x1b[2J": 1})
    assert str(caught.value).isprintable()
