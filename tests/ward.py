"""The ward: runs claims on a model that was broken on purpose and says what they found.

A wound is a function that changes a model in place. The claims run as they do for a user, in a pytest of their own in
this process, with the model's own entry and departures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import pytest
from torch import nn

from fixtures import entries
from fixtures.matrix import BENCH, ROOT, Bench, install, read_matrix
from fixtures.record import RECORD
from fixtures.releases import recorded
from fixtures.specimen import Specimen
from fixtures.subject import Subject

Wound = Callable[[nn.Module], Any]


@functools.cache
def matrix() -> entries.Matrix:
    """The project's own matrix."""
    return read_matrix(ROOT / "models.yaml")


class Patient(Subject):
    """A model of the matrix with a wound in its miniature, in its skeleton, or in both."""

    wound: Wound | None = None
    wound_skeleton: Wound | None = None
    settings: Mapping[str, Any] = {}

    @cached_property
    def skeleton(self) -> Specimen:
        """The full-size model, wounded."""
        return self._wounded(self.__class__.__mro__[1].skeleton.func(self), self.wound_skeleton)  # type: ignore[attr-defined]

    @cached_property
    def miniature(self) -> Specimen:
        """The small model, wounded."""
        return self._wounded(self.__class__.__mro__[1].miniature.func(self), self.wound)  # type: ignore[attr-defined]

    @staticmethod
    def _wounded(specimen: Specimen, wound: Wound | None) -> Specimen:
        if wound is not None:
            wound(specimen.model)
        return specimen


class Ward(Bench):
    """A bench with one patient on it."""

    def __init__(self, patient: Patient) -> None:
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


def results(
    model: str,
    *,
    wound: Wound | None = None,
    wound_skeleton: Wound | None = None,
    config: Mapping[str, Any] | None = None,
    entry: Mapping[str, Any] | None = None,
    chapter: str = "",
    claims: str = "",
) -> dict[str, dict[str, Any]]:
    """Run a chapter ("04") or claims (a -k expression) on a broken model of the matrix: results by claim name.

    `config` changes fields of the config that the model is built from; `entry` changes facts of its entry.
    """
    about = dataclasses.replace(matrix().entries[model], **(entry or {}))
    patient = Patient(recorded(about), matrix().traits)
    patient.wound, patient.wound_skeleton = wound, wound_skeleton
    for name, value in (config or {}).items():
        setattr(patient.release.config, name, value)
    admission = _Admission(Ward(patient))
    files = [str(path) for path in sorted((ROOT / "specs").glob(f"test_{chapter}*.py"))]
    quiet = ["-p", "no:cacheprovider", "-p", "no:xdist", "-q", "--capture=no", "--tb=no"]
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(
            [*files, f"--rootdir={ROOT}", f"-c={ROOT / 'pytest.ini'}", *quiet, "-k", claims], plugins=[admission]
        )
    return {result["claim"].rpartition("::")[2]: result for result in admission.results}


__all__ = ["BENCH", "matrix", "results"]
