"""Fixtures of the suite's own tests."""

import pytest

RARE = ("registry", "seeds")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark that says which claims a counterexample is for."""
    config.addinivalue_line("markers", "breaks(*claims): The test breaks a model so that these claims fail.")
    config.addinivalue_line(
        "markers",
        "slow: The test is one of a file that takes runs of its own, or seconds; -m 'not slow' leaves it out.",
    )
    config.addinivalue_line("markers", "seeds: The test trains every model of chapter 11 with other seeds.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes unless -m asks for it: every architecture, and training with other seeds."""
    rare = [mark for mark in RARE if mark not in config.getoption("markexpr")]
    left = {item for item in items for mark in rare if item.get_closest_marker(mark)}
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=list(left))


@pytest.fixture
def fails(request: pytest.FixtureRequest):
    """Break a model and see the claims of the `breaks` mark fail, and no others of their chapters but `also`.

    Called as `fails(model, wound=..., also=(...), why="words of the failure's reason")`; see ward.results for the rest.
    """
    from tests.support.ward import chapters, matrix, results

    def check(model: str, *, also: tuple[str, ...] = (), why: str = "", **breakage) -> None:
        claims = request.node.get_closest_marker("breaks").args
        assert model in matrix().entries, f"no such model in the matrix: {model}"
        failed: dict[str, str] = {}
        for chapter in sorted({chapters()[claim] for claim in claims}):
            found = results(model, chapter=chapter, **breakage)
            failed |= {name: r["reason"] for name, r in found.items() if r["verdict"] == "fails"}
        assert set(failed) == {*claims, *also}, (sorted(failed), failed)
        for claim in claims:
            assert why in failed[claim], failed[claim]

    return check


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Write a small specification of three models and two chapters; its runs have lines of 120 columns."""
    from tests.support import small

    monkeypatch.setenv("COLUMNS", "120")
    small.write(pytester)
    return pytester


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory):
    """The wheel of the project."""
    from tests.support.package import build

    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory: pytest.TempPathFactory):
    """Run a program, `installed("python", *words, at=folder)`, of an environment with the wheel in it."""
    from tests.support.package import Environment

    return Environment(tmp_path_factory.mktemp("installed"), wheel)
