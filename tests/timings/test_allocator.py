"""The allocator: what is freed while timings run is kept, and given back afterwards."""

import resource

import pytest

from fixtures.timings import allocator

torch = pytest.importorskip("torch")
NUMBERS = 2**26
LARGE = 4 * NUMBERS  # bytes: glibc asks the system for each tensor as large as this
glibc = pytest.mark.skipif(not allocator.keeps(), reason="the C library here is not glibc")


def left_behind(numbers=NUMBERS):
    """How much more of this process is in memory once a large tensor has come and gone."""

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    before = resident()
    torch.ones(numbers)
    return resident() - before


@glibc
def test_freed_memory_is_kept_inside_and_given_back_outside():
    assert left_behind() < 0.1 * LARGE
    with allocator.keeping():
        assert left_behind() > 0.9 * LARGE
        assert left_behind(NUMBERS * 9 // 10) < 0.1 * LARGE  # it lies where the last one lay
        allocator.give_back()
        assert left_behind() > 0.9 * LARGE
    assert left_behind() < 0.1 * LARGE
    with allocator.keeping():
        assert left_behind() > 0.9 * LARGE  # so what was kept had been given back


def test_another_library_goes_on_as_it_is(monkeypatch):
    """Where the C library takes no such advice, nothing is kept and nothing breaks."""
    monkeypatch.setattr(allocator, "_library", lambda: None)
    assert not allocator.keeps()
    with allocator.keeping():
        allocator.give_back()
