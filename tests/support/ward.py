"""The ward: runs claims on a model that was broken on purpose and says what they found.

A wound is a function that changes a model in place. The claims run as they do for a user, in a pytest of their own in
this process, with the model's own entry and departures. What is not wounded is built once and shared by all patients.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import io
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any
from unittest.mock import patch

import pytest
from torch import nn

from fixtures.claims.model_under_test import Subject
from fixtures.claims.parametrize import ROOT, Bench, install, read_matrix
from fixtures.models.runnable import Runnable
from fixtures.published import entries_file, entry
from fixtures.published.entry import Entry
from fixtures.published.release import recorded
from fixtures.report.record import RECORD
from fixtures.verdicts.facts import Facts

Wound = Callable[[nn.Module], Any]
Results = dict[str, dict[str, Any]]


@functools.cache
def matrix() -> entry.Matrix:
    """The project's own matrix."""
    return read_matrix(ROOT / "models.yaml")


@functools.cache
def chapters() -> dict[str, str]:
    """The chapter of every claim, "04", by the claim's name."""
    places = entries_file.claim_names(ROOT / "specs")
    return {claim: place.removeprefix("specs/test_")[:2] for claim, place in places.items()}


@functools.cache
def healthy(model: str) -> Subject:
    """A model of the matrix as it is."""
    return Subject(recorded(matrix().entries[model]), matrix().traits)


class Patient(Subject):
    """A model with a wound in its miniature, its skeleton, its config or its entry; in all else the healthy one."""

    def __init__(
        self,
        entry: Entry,
        traits: dict[str, entry.Trait],
        *,
        wound: Wound | None = None,
        wound_skeleton: Wound | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(recorded(entry), traits)
        self._wound, self._wound_skeleton, self._config = wound, wound_skeleton, config
        for name, value in (config or {}).items():
            setattr(self.release.config, name, value)

    @cached_property
    def skeleton(self) -> Runnable:
        """The full-size model, wounded."""
        if self._config is None and self._wound_skeleton is None:
            return self._sound(lambda: healthy(self.id).skeleton)
        skeleton = super().skeleton
        skeleton.run()  # it settles how it can be run, for which it may be built anew: that would heal the wound
        return _wounded(skeleton, self._wound_skeleton)

    @cached_property
    def miniature(self) -> Runnable:
        """The small model, wounded."""
        if self._config is None and self._wound is None:
            return self._sound(lambda: healthy(self.id).miniature)
        return _wounded(super().miniature, self._wound)

    @cached_property
    def facts(self) -> Facts:
        """What is observed of the wounded model."""
        if self._config is None and self._wound is None and self._wound_skeleton is None:
            return healthy(self.id).facts
        return super().facts


def _wounded(specimen: Runnable, wound: Wound | None) -> Runnable:
    if wound is not None:
        wound(specimen.model)
        for name, kept in vars(Runnable).items():  # what was seen of it before counts no more
            if isinstance(kept, cached_property):
                vars(specimen).pop(name, None)
    return specimen


class Ward(Bench):
    """A bench with one patient on it."""

    def __init__(self, patient: Subject) -> None:
        super().__init__({patient.id: patient.release}, {})
        self._patient = patient

    def subject(self, model: str) -> Subject:
        """The patient, whoever is asked for."""
        return self._patient


class _Admission:
    def __init__(self, ward: Ward) -> None:
        self._ward, self.results = ward, []  # type: ignore[var-annotated]

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        install(config, self._ward)

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        self.results = config.stash[RECORD].document()["results"]


# What a run inside a run goes without. The last one collects garbage twice, which takes as long as all the rest.
WITHOUT = ("cacheprovider", "xdist", "unraisableexception")


def examine(patient: Subject, *, chapter: str = "", claims: str = "", marks: str = "") -> Results:
    """Run a chapter ("04"), claims by -k or -m expressions, or all there are, on a patient: results by claim name."""
    admission = _Admission(Ward(patient))
    files = [str(path) for path in sorted((ROOT / "specs").glob(f"test_{chapter}*.py"))]
    quiet = [*(f"-pno:{name}" for name in WITHOUT), "-q", "--capture=no", "--tb=no"]
    with contextlib.redirect_stdout(io.StringIO()), _as_known():
        pytest.main(
            [*files, f"--rootdir={ROOT}", f"-c={ROOT / 'pytest.ini'}", *quiet, "-k", claims, "-m", marks],
            plugins=[admission],
        )
    return {result["claim"].rpartition("::")[2]: result for result in admission.results}


@functools.cache
def _plugins() -> list[importlib.metadata.Distribution]:
    """The installed packages that bring plugins of pytest's."""
    return [package for package in importlib.metadata.distributions() if package.entry_points.select(group="pytest11")]


@contextlib.contextmanager
def _as_known() -> Iterator[None]:
    """Let pytest ask nobody anew which plugins are installed, and pytest-benchmark not what git says of the folder."""
    found = _plugins()
    with (
        patch("importlib.metadata.distributions", lambda: found),
        patch("pytest_benchmark.plugin.get_tag", lambda *_: "tag"),
    ):
        yield


def results(
    model: str,
    *,
    wound: Wound | None = None,
    wound_skeleton: Wound | None = None,
    config: Mapping[str, Any] | None = None,
    entry: Mapping[str, Any] | None = None,
    chapter: str = "",
    claims: str = "",
) -> Results:
    """Run claims, as `examine` does, on a broken model of the matrix.

    `config` changes fields of the config that the model is built from; `entry` changes facts of its entry.
    """
    about = dataclasses.replace(matrix().entries[model], **(entry or {}))
    patient = Patient(about, matrix().traits, wound=wound, wound_skeleton=wound_skeleton, config=config)
    return examine(patient, chapter=chapter, claims=claims)
