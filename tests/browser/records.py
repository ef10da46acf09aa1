"""Records made up for the tests of the page: a few claims, a few models, every verdict, and strings that mean harm."""

from __future__ import annotations

from typing import Any

SMALL, LARGE, ENCODER = "org/small", "org/large", "org/encoder"
HOSTILE = (
    "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'>\x1b[2J\u202e{{ 7 * 7 }}|`@all`"
)
FIRST, SECOND = "specs/test_03_positional_encoding.py", "specs/test_04_self_attention.py"
SUMS, LATER, ADDED, FAST = (
    f"{FIRST}::test_rows_sum_to_one",
    f"{FIRST}::test_later_tokens_get_no_weight",
    f"{SECOND}::test_positions_are_added",
    f"{SECOND}::test_it_is_fast",
)
CODE = 'def test_rows_sum_to_one(attention):\n    """The weights of a row sum to one."""\n    assert attention\n'


def pictures(scheme: str = "learned") -> dict[str, Any]:
    """What a model with two heads and one layer looks like, as the record keeps it."""
    attention = {"heads": 2, "kv_heads": 1, "d_head": 4, "d_value": 4, "class": "Attention", "weights": {
        "query": [{"name": "layers.0.attention.q.weight", "shape": [8, 8]}],
        "output": [{"name": "layers.0.attention.o.weight", "shape": [8, 8]}]}}  # fmt: skip
    block = {
        "first": 0, "count": 3, "class": "Block", "name": "layers.0", "norm": "pre", "attention": attention,
        "cross_attention": None, "d_ff": 32, "experts": None, "parameters": 768,
    }  # fmt: skip
    stack = {
        "role": "decoder", "layers": 3, "d_model": 8, "seq": 3, "runs": [block], "more_runs": 0,
        "positions": {"name": "wpe.weight", "shape": [16, 8]},
    }  # fmt: skip
    places = {
        "learned": {"scheme": "learned", "vectors": [[-10, 0, 25], [3, 4, -5], [9, 9, 9]]},
        "rotary": {"scheme": "rotary", "distances": [0, 1, 2], "scores": [[0.0, -0.5, 0.25], [0.0, 0.5, 1.0]]},
    }
    return {
        "architecture": {
            "embedding": {"name": "wte.weight", "shape": [100, 8]}, "stacks": [stack],
            "head": {"name": "wte.weight", "shape": [100, 8], "tied": True},
        },
        "tree": {"name": "", "class": "Model", "parameters": 3104, "children": [
            {"name": "layers", "class": "ModuleList", "parameters": 2304, "children": [
                {"name": "0-2", "class": "Block", "parameters": 768, "times": 3, "shapes": {"weight": [8, 8]}}]}]},
        "parameters": {"parts": {"token table": 800, "attention": 768, "feed-forward": 1536}, "bytes": {
            "32 bits": {"token table": 3200, "attention": 3072, "feed-forward": 6144},
            "16 bits": {"token table": 1600, "attention": 1536, "feed-forward": 3072},
            "8 bits": {"token table": 1600, "attention": 768, "feed-forward": 1536},
            "4 bits": {"token table": 1600, "attention": 384, "feed-forward": 768}}},
        "attention": {"source": ["The", "quick", "fox"], "target": ["The", "quick", "fox"], "layers": [3], "maps": [
            {"stack": "decoder", "layer": 0, "cross": False, "heads": 2, "kv_heads": 1, "weights": [
                [[1000, 0, 0], [400, 600, 0], [200, 300, 500]], [[1000, 0, 0], [500, 500, 0], [100, 100, 800]]]}]},
        "positions": places[scheme],
    }  # fmt: skip


def record(*, transformers: str = "5.23.0") -> dict[str, Any]:
    """A run of four claims on three models, in which every verdict occurs."""
    facts = {"family": "decoder-only", "layers": 3, "d_model": 8, "heads": 2, "positions": "learned", "norm": "pre"}
    models = [
        {"id": SMALL, "origin": "matrix", "facts": {**facts, "parameters": 3_104}, "pictures": pictures()},
        {"id": LARGE, "origin": "matrix", "facts": {**facts, "positions": "rotary", "parameters": 9_000_000},
         "pictures": pictures("rotary")},
        {"id": ENCODER, "origin": "matrix", "facts": {**facts, "family": "encoder-only", "parameters": 500_000}},
    ]  # fmt: skip
    verdicts = {
        SUMS: {SMALL: ("holds", ""), LARGE: ("holds", ""), ENCODER: ("holds", "")},
        LATER: {SMALL: ("holds", ""), LARGE: ("fails", "3 weights"), ENCODER: ("does not apply", "It has no decoder.")},
        ADDED: {SMALL: ("holds", ""), LARGE: ("departs", "Nothing is added."), ENCODER: ("holds", "")},
        FAST: dict.fromkeys((SMALL, LARGE, ENCODER), ("not run", "There is no GPU here.")),
    }
    statements = {
        SUMS: "The weights of a row sum to one.",
        LATER: "Every later token gets a weight of zero.",
        ADDED: "Positions are added to the token embeddings.",
        FAST: "It is fast.",
    }
    ran = {"expected": {"shape": {"batch": 1, "seq": 10}}, "observed": {"shape": [1, 10]}, "seconds": 0.012345678}
    idle: dict[str, Any] = {"expected": {}, "observed": {}, "seconds": 0.0}
    return {
        "schema": 1,
        "suite": {
            "versions": {"python": "3.11.7", "transformers": transformers, "torch": "2.13.0"},
            "device": "cpu", "started": "2026-11-23T20:00:00+00:00", "seconds": 3.5, "complete": True,
        },
        "chapters": [
            {"id": FIRST, "title": "Positions", "text": "Where a word stands has to be told.\n\nIn `many` ways."},
            {"id": SECOND, "title": "Attention", "text": "Each token looks at others."},
        ],
        "claims": [
            {"id": claim, "chapter": "Chapter", "statement": statement, "lesson": "in its middle", "code": CODE}
            for claim, statement in statements.items()
        ],
        "models": models,
        "results": [
            {"claim": claim, "model": model, "verdict": verdict, "reason": reason,
             **(ran if verdict in ("holds", "departs", "fails") else idle)}
            for claim, by_model in verdicts.items() for model, (verdict, reason) in by_model.items()
        ],
    }  # fmt: skip


def of_one(model: str = LARGE) -> dict[str, Any]:
    """The same run of one model alone."""
    made = record()
    made["models"] = [each for each in made["models"] if each["id"] == model]
    made["results"] = [result for result in made["results"] if result["model"] == model]
    return made


def hostile() -> dict[str, Any]:
    """A record in which every string that somebody else chooses is markup, script and control characters."""
    made = record()

    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {HOSTILE if key in ("query", "token table") else key: poison(item) for key, item in value.items()}
        if isinstance(value, list):
            return [poison(item) for item in value]
        return HOSTILE if isinstance(value, str) else value

    for model in made["models"]:
        made["results"] = [{**r, "model": HOSTILE} if r["model"] == SMALL else r for r in made["results"]]
        if model["id"] == SMALL:
            scheme = model["pictures"]["positions"]["scheme"]
            model.update(
                id=HOSTILE, facts={HOSTILE: HOSTILE, **poison(model["facts"])}, pictures=poison(model["pictures"])
            )
            model["facts"]["parameters"] = 3_104
            model["pictures"]["positions"]["scheme"] = scheme
    for result in made["results"]:
        result["reason"] = HOSTILE
        result["expected"] = result["observed"] = {HOSTILE: [HOSTILE]}
    for claim in made["claims"]:
        claim.update(statement=HOSTILE, lesson=HOSTILE, code=HOSTILE, more=HOSTILE)
    for chapter in made["chapters"]:
        chapter.update(title=HOSTILE, text=HOSTILE)
    made["suite"]["device"] = HOSTILE
    made["suite"]["versions"]["torch"] = HOSTILE
    return made
