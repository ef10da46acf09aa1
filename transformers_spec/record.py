"""The record of a run as typed objects: what was claimed, of which model, with which verdict and evidence.

They hold what report.json holds, and `to_dict` gives it back. They import nothing of what they are a record of.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

Verdict = Literal["holds", "departs", "fails", "not run", "does not apply"]
RAN = ("holds", "departs", "fails")


@dataclass(frozen=True)
class Suite:
    """What a run was: versions of the libraries, device, start (ISO 8601, UTC), seconds, and whether all was run."""

    versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    device: str = "cpu"
    started: str = ""
    seconds: float = 0.0
    complete: bool = False
    why: str = ""
    """Why the run is no success although no claim failed; empty where it is one, or where a claim failed."""
    left_out: Mapping[str, int] = field(default_factory=dict, hash=False)
    """By mark, how many claims on its models a plain run left out."""


@dataclass(frozen=True)
class Claim:
    """A claim: its id (file::function), chapter, its statement, and where the lesson says it."""

    id: str
    statement: str
    chapter: str = ""
    lesson: str = ""

    @property
    def name(self) -> str:
        """The function's name, which `select` of `check` takes."""
        return self.id.rpartition("::")[2]


@dataclass(frozen=True)
class Facts:
    """What was observed of a model. None: it was not observed, or the model has no such thing."""

    family: str | None = None
    layers: int | None = None
    encoder_layers: int | None = None
    attention_layers: int | None = None
    d_model: int | None = None
    d_embedding: int | None = None
    vocab_size: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    d_head: int | None = None
    d_ff: int | None = None
    d_expert: int | None = None
    experts: int | None = None
    experts_active: int | None = None
    positions: str | None = None
    projections: str | None = None
    norm: str | None = None
    tied_embeddings: bool | None = None
    window: int | None = None
    parameters: int | None = None
    others: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """All else that the record has, by name: bytes of the weights, bytes of the cache for a token, and so on."""

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Facts:
        """Take the facts of a model as report.json has them."""
        known, others = _parted(cls, facts)
        return cls(**known, others=others)

    def to_dict(self) -> dict[str, Any]:
        """The facts that were observed, by name."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "others"}
        return {name: value for name, value in known.items() if value is not None} | dict(self.others)


@dataclass(frozen=True)
class Model:
    """A model of the run: its id, where it came from (matrix, hub, directory, config), and its observed facts."""

    id: str
    origin: str
    facts: Facts


@dataclass(frozen=True)
class Result:
    """What became of one claim on one model.

    `reason` is a sentence for every verdict but holds. `expected` and `observed` have what was compared, by what it
    was, as small JSON: numbers, strings, shapes as lists, two tensors as tolerance and largest difference. `variant`
    names further parameters of the claim, as "length 512", where it has any.
    """

    claim: str
    model: str
    verdict: Verdict
    reason: str = ""
    expected: Mapping[str, Any] = field(default_factory=dict, hash=False)
    observed: Mapping[str, Any] = field(default_factory=dict, hash=False)
    seconds: float = 0.0
    variant: str = ""

    @property
    def name(self) -> str:
        """The claim's function name."""
        return self.claim.rpartition("::")[2]


@dataclass(frozen=True)
class Record:
    """The record of a run: claims in reading order, models, and a result for every claim and model."""

    suite: Suite
    claims: tuple[Claim, ...]
    models: tuple[Model, ...]
    results: tuple[Result, ...]
    schema: int = 1

    @property
    def model(self) -> Model:
        """The only model of the run; ValueError where it has another number of them."""
        if len(self.models) != 1:
            raise ValueError(f"expected the record of one model, found {len(self.models)}; see `models`")
        return self.models[0]

    @property
    def counts(self) -> dict[str, int]:
        """How many results there are of each verdict."""
        return dict(Counter(result.verdict for result in self.results))

    @property
    def passed(self) -> bool:
        """Whether at least one claim ran, all were run that were selected, and each holds or departs as declared."""
        ran = [result for result in self.results if result.verdict in RAN]
        return bool(ran) and self.suite.complete and not self.of("fails")

    def of(self, verdict: Verdict) -> tuple[Result, ...]:
        """The results of one verdict, in reading order."""
        return tuple(result for result in self.results if result.verdict == verdict)

    def claim(self, id: str) -> Claim:
        """The claim of a result; LookupError where the record has none of this id."""
        found = next((claim for claim in self.claims if claim.id == id), None)
        if found is None:
            raise LookupError(f"expected the id of one of {len(self.claims)} claims, found {id!r}")
        return found

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Record:
        """Take a document of the shape that report.json has; what only its page needs is left out."""
        return cls(
            suite=_made(Suite, document["suite"]),
            claims=tuple(_made(Claim, claim) for claim in document["claims"]),
            models=tuple(
                Model(id=model["id"], origin=model["origin"], facts=Facts.of(model["facts"]))
                for model in document["models"]
            ),
            results=tuple(_made(Result, result) for result in document["results"]),
            schema=document["schema"],
        )

    def to_dict(self) -> dict[str, Any]:
        """The record in the shape of report.json, of JSON's own types alone."""
        return {
            "schema": self.schema,
            "suite": asdict(self.suite),
            "claims": [asdict(claim) for claim in self.claims],
            "models": [{"id": m.id, "origin": m.origin, "facts": m.facts.to_dict()} for m in self.models],
            "results": [asdict(result) for result in self.results],
        }

    def to_json(self, indent: int | None = 1) -> str:
        """The same as a text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)


Made = TypeVar("Made", Suite, Claim, Result)


def _made(cls: type[Made], values: Mapping[str, Any]) -> Made:
    return cls(**_parted(cls, values)[0])


def _parted(cls: type, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values that the class has fields for, and the others."""
    names = {f.name for f in fields(cls)} - {"others"}
    known = {name: value for name, value in values.items() if name in names}
    return known, {name: value for name, value in values.items() if name not in names}
