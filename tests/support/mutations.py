"""Mutations of the library's code: what a wrong line in a model's code would do, put in while a release is examined.

`python -m tests.support.mutations` examines every mutated release and writes docs/mutations.md: which claims see which
mutation. What stands there is kept, so that a run that was stopped goes on; names of mutations are looked at anew.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from fixtures.claims.model_under_test import Subject
from fixtures.claims.parametrize import ROOT
from fixtures.models.runnable import Runnable
from fixtures.published.entries_file import CONFIGS
from fixtures.published.release import at_path, recorded
from tests.support.ward import Results, examine, matrix
from tests.support.wounds import matching

TABLE = ROOT / "docs" / "mutations.md"
USUAL = "not (loading or quantization or gpu or weights or benchmark)"
CHAPTERS = "0[1-7]", "10"
STRANGER, ENTRY = "no entry", "entry"


@dataclass(frozen=True)
class Code:
    """Where an architecture's code has what mutations change: modules by patterns of their names."""

    model: str
    module: str
    norm: str
    network: str
    attention: str
    places: str = ""
    inner: str = ""

    @property
    def library(self) -> Any:
        """The library's module of this architecture."""
        return importlib.import_module(f"transformers.models.{self.module}.modeling_{self.module}")


CODE = {
    "opt": Code("facebook/opt-125m", "opt", "*.self_attn_layer_norm", "*.fc2", "*.self_attn", "*.embed_positions"),
    "gpt2": Code("openai-community/gpt2", "gpt2", "*.ln_1", "*.mlp", "*.attn", "*.wpe"),
    "llama": Code("meta-llama/Llama-3.1-8B", "llama", "*.input_layernorm", "*.mlp", "*.self_attn"),
    "qwen3": Code("Qwen/Qwen3-0.6B", "qwen3", "*.input_layernorm", "*.mlp", "*.self_attn"),
    "neox": Code("EleutherAI/pythia-1.4b", "gpt_neox", "*.input_layernorm", "*.mlp", "*.attention"),
    "deepseek": Code("deepseek-ai/DeepSeek-V3", "deepseek_v3", "*.input_layernorm", "*.mlp", "*.self_attn"),
    "mixtral": Code("mistralai/Mixtral-8x7B-v0.1", "mixtral", "*.input_layernorm", "*.mlp", "*.self_attn"),
    "bert": Code(
        "google-bert/bert-base-cased",
        "bert",
        "*.attention.output.LayerNorm",
        "*.layer.?.output.dense",
        "*.attention.self",
        "*.position_embeddings",
    ),
    "bart": Code("facebook/bart-base", "bart", "*.self_attn_layer_norm", "*.fc2", "*.self_attn", "*.embed_positions"),
    "t5": Code("google-t5/t5-small", "t5", "*.layer.0.layer_norm", "*.DenseReluDense", "*.SelfAttention"),
    "gemma2": Code("google/gemma-2-2b", "gemma2", "*.input_layernorm", "*.mlp", "*.self_attn"),
}
CAUSAL, WRITERS = ("opt", "gpt2", "llama"), ("opt", "llama", "bart")
EVERY = ("opt", "llama", "bert", "t5")
LEARNED, TURNED = ("opt", "gpt2", "bert", "bart"), ("llama", "qwen3", "neox", "mixtral")


@dataclass(frozen=True)
class Mutation:
    """A wrong line: patches of the library while a model is built and run, or a wound of every model built of it."""

    sentence: str
    on: tuple[str, ...]
    patches: Callable[[Code], list[Any]] = lambda code: []
    wound: Callable[[nn.Module, Code], Any] | None = None
    equivalent: str = ""


# ---- attention, written out, with one step changed


def attending(
    *,
    operands: Callable[..., tuple[Tensor, Tensor, Tensor]] | None = None,
    mask: Callable[..., Tensor | None] | None = None,
    factor: float = 1.0,
    weigh: Callable[[Tensor, Tensor | None], Tensor] | None = None,
    context: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[Code], list[Any]]:
    """Patch an architecture's attention; `mask` is given the module, the mask and the scores."""

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **rest: Any,
    ) -> tuple[Tensor, Tensor]:
        shared = query.shape[1] // key.shape[1]
        if shared > 1:
            key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
        if operands:
            query, key, value = operands(query, key, value)
        scores = query @ key.transpose(-1, -2) * ((query.shape[-1] ** -0.5 if scaling is None else scaling) * factor)
        if rest.get("position_bias") is not None:
            scores = scores + rest["position_bias"]
        bias = mask(module, attention_mask, scores) if mask and attention_mask is not None else attention_mask
        scores = scores if bias is None else scores + bias
        weights = weigh(scores, bias) if weigh else scores.softmax(dim=-1)
        summed = weights @ value
        summed = context(summed) if context else summed
        return summed.transpose(1, 2).contiguous(), weights

    return lambda code: [patch.object(code.library, "eager_attention_forward", attend)]


def causal(scores: Tensor, ahead: int = 0) -> Tensor:
    """A mask (target, source) that hides what is more than `ahead` places ahead."""
    target, source = scores.shape[-2:]
    i, j = torch.arange(target)[:, None] + source - target, torch.arange(source)[None]
    return torch.zeros(target, source).masked_fill(j > i + ahead, torch.finfo(torch.float32).min)


def visible(scores: Tensor, mask: Tensor | None) -> Tensor:
    """One where a score is seen, (batch, heads, target, source)."""
    return torch.ones_like(scores) if mask is None else (mask > -1).to(scores.dtype).expand_as(scores)


def _open_one_head(module: nn.Module, mask: Tensor, scores: Tensor) -> Tensor:
    opened = mask.expand_as(scores).clone()
    opened[:, 0] = 0
    return opened


def _far(module: nn.Module, mask: Tensor, scores: Tensor) -> Tensor:
    target, source = scores.shape[-2:]
    distance = torch.arange(source)[None] - torch.arange(target)[:, None] - source + target
    return mask.masked_fill(distance > 10, 0.0)


def _window(module: nn.Module, mask: Tensor, scores: Tensor) -> Tensor:
    shifted = torch.cat([mask[..., 1:], mask[..., -1:]], dim=-1)
    hidden = (mask < -1) & (causal(scores) > -1)
    return torch.where(hidden, shifted, mask)


def _context_head(drop: bool) -> Callable[[Tensor], Tensor]:
    def change(context: Tensor) -> Tensor:
        context = context.clone()
        context[:, 0] = 0 if drop else context[:, 1]
        return context

    return change


# ---- modules, by their names


def on_output(pattern: str, change: Callable[..., Tensor]) -> Callable[[nn.Module, Code], None]:
    """Change what modules return; `change` is given the module, what it was given, and what it returns."""

    def wound(model: nn.Module, code: Code) -> None:
        for module in _chosen(model, code, pattern):
            module.forward = _changed(
                module, change
            )  # within the call, as a wrong line would be: a hook comes after it

    return wound


def _changed(module: nn.Module, change: Callable[..., Tensor]) -> Callable[..., Any]:
    whole = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = whole(*args, **kwargs)
        given = args[0] if args else next((v for v in kwargs.values() if isinstance(v, Tensor)), None)
        if isinstance(output, tuple):
            return (change(module, given, output[0]), *output[1:])
        return change(module, given, output)

    return forward


def _chosen(model: nn.Module, code: Code, pattern: str) -> list[nn.Module]:
    if pattern == "embedding":
        table = model.get_input_embeddings().weight  # type: ignore[operator]
        return [m for m in model.modules() if isinstance(m, nn.Embedding) and m.weight is table]
    if pattern in ("blocks", "last block"):
        lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
        stacks = [each for each in lists if type(each[0]).__name__.endswith(("Layer", "Block"))]
        outer = [each for each in stacks if not any(each in other.modules() for other in stacks if other is not each)]
        return [block for each in outer for block in each] if pattern == "blocks" else [outer[-1][-1]]
    return [*matching(model, getattr(code, pattern, pattern))]


def again(model: nn.Module, code: Code) -> None:
    """Run the last block a second time over what it returned."""
    block = _chosen(model, code, "last block")[0]
    once = block.forward

    def twice(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        first = once(hidden_states, *args, **kwargs | {"past_key_values": None})
        return once(first[0] if isinstance(first, tuple) else first, *args, **kwargs)

    block.forward = twice


def _untie(model: nn.Module, code: Code) -> None:
    head = model.get_output_embeddings()  # type: ignore[operator]
    head.weight = nn.Parameter(head.weight.detach().clone())


def _own_sequence(model: nn.Module, code: Code) -> None:
    for block in matching(model, "*decoder.layers.?" if code.module == "bart" else "decoder.block.?"):
        whole = block.forward

        def forward(hidden_states: Tensor, *args: Any, whole: Any = whole, **kwargs: Any) -> Any:
            kwargs["encoder_hidden_states"] = hidden_states
            kwargs["encoder_attention_mask"] = None
            args = tuple(None if isinstance(a, Tensor) and a.ndim == 4 else a for a in args)
            args = tuple(hidden_states if isinstance(a, Tensor) and a.ndim == 3 else a for a in args)
            kwargs = {k: v for k, v in kwargs.items() if k != "encoder_hidden_states" or hidden_states not in args}
            return whole(hidden_states, *args, **kwargs)

        block.forward = forward


def _other_base(model: nn.Module, code: Code) -> None:
    for module in model.modules():
        frequencies = getattr(module, "inv_freq", None)
        if isinstance(frequencies, Tensor):
            module.inv_freq = frequencies ** (math.log(5e5 * 7) / math.log(5e5))


def _turn(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Callable[[Code], list[Any]]:
    def patches(code: Code) -> list[Any]:
        turn = code.library.apply_rotary_pos_emb

        def turned(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
            return turn(q, k, *change(cos, sin), *args, **kwargs)

        return [patch.object(code.library, "apply_rotary_pos_emb", turned)]

    return patches


def _cache(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Code], list[Any]]:
    from transformers.cache_utils import DynamicLayer

    update = DynamicLayer.update

    def changed(self: Any, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        kept = update(self, keys, values, *args, **kwargs)
        return tuple(change(old, new) for old, new in zip(kept, (keys, values), strict=True))  # type: ignore[return-value]

    return lambda code: [patch.object(DynamicLayer, "update", changed)]


def _rolled(module: nn.Module, given: Any, output: Tensor) -> Tensor:
    return output.roll(1, dims=-2)


def _mixed(module: nn.Module, given: Any, output: Tensor) -> Tensor:
    flat = output if output.ndim > 2 else output[None]
    return (0.5 * flat + 0.5 * torch.cat([flat[:, :1], flat[:, :-1]], dim=1)).reshape(output.shape)


def _without_gain(module: Any, given: Any, output: Tensor) -> Tensor:
    bias = getattr(module, "bias", None)
    return (output if bias is None else output - bias) / module.weight


def _another_activation(model: nn.Module, code: Code) -> None:
    bending = ("torch.nn.modules.activation", "transformers.activations")
    found = [m for m in _chosen(model, code, "last block")[0].modules() if type(m).__module__ in bending]
    found[-1].forward = torch.tanh


def _capped(model: nn.Module, code: Code) -> None:
    head = model.get_output_embeddings()  # type: ignore[operator]
    head.forward = _changed(head, lambda module, given, output: torch.tanh(output))


def _in_turn(code: Code) -> list[Any]:
    return [patch.object(code.library, "repeat_kv", lambda vectors, times: vectors.repeat(1, times, 1, 1))]


def _router(change: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple, output: Any) -> Any:
        return change(*output)

    def wound(model: nn.Module, code: Code) -> None:
        for module in matching(model, "*.gate"):
            module.register_forward_hook(hook)

    return wound


def _padding_visible(module: nn.Module, mask: Tensor, scores: Tensor) -> Tensor | None:
    return causal(scores) if getattr(module, "is_causal", False) else None


MUTATIONS = {
    "mask removed": Mutation("No mask hides what comes later.", CAUSAL, attending(mask=lambda m, mask, s: None)),
    "mask shifted": Mutation(
        "A token sees one token ahead.", CAUSAL, attending(mask=lambda m, mask, s: causal(s, ahead=1))
    ),
    "mask of one layer removed": Mutation(
        "The second layer has no mask.",
        CAUSAL,
        attending(mask=lambda m, mask, s: None if m.layer_idx == 1 else mask),
    ),
    "leak in one head": Mutation("One head sees what comes later.", CAUSAL, attending(mask=_open_one_head)),
    "leak beyond ten tokens": Mutation("Tokens more than ten places ahead are seen.", CAUSAL, attending(mask=_far)),
    "window off by one": Mutation("A window is a token wider.", ("gemma2",), attending(mask=_window)),
    "cap left out": Mutation("Nothing caps the scores.", ("gemma2",), attending()),
    "padding attended": Mutation("Padding is attended to.", EVERY, attending(mask=_padding_visible)),
    "scale": Mutation("Scores are one and a half times as large.", ("gpt2", *EVERY), attending(factor=1.5)),
    "softmax axis": Mutation("Softmax goes over the queries.", EVERY, attending(weigh=lambda s, m: s.softmax(-2))),
    "rows": Mutation("The weights of a row sum to 0.9.", EVERY, attending(weigh=lambda s, m: s.softmax(-1) * 0.9)),
    "uniform weights": Mutation(
        "All that is seen gets the same weight.",
        EVERY,
        attending(weigh=lambda s, m: visible(s, m) / visible(s, m).sum(-1, keepdim=True)),
    ),
    "uniform scores": Mutation(
        "The scores are zero before the mask.", EVERY, attending(operands=lambda q, k, v: (q * 0, k, v))
    ),
    "key and value swapped": Mutation(
        "Keys are handed on, values compared.",
        ("opt", "bert"),
        attending(operands=lambda q, k, v: (q, v, k)),
        equivalent="Which of two matrices of one shape is called the key's is a name; files alone tell.",
    ),
    "head copied": Mutation("The first head's result is the second's.", EVERY, attending(context=_context_head(False))),
    "head dropped": Mutation("The first head's result is zero.", EVERY, attending(context=_context_head(True))),
    "dropout left on": Mutation(
        "A tenth of what attention returns is dropped out.",
        ("opt", "llama"),
        attending(context=lambda c: nn.functional.dropout(c, 0.1, training=True)),
    ),
    "cross-attention to itself": Mutation(
        "The target attends to itself in place of the source.", ("bart", "t5"), wound=_own_sequence
    ),
    "positions dropped": Mutation(
        "Position vectors are zero.", LEARNED, wound=on_output("places", lambda m, g, out: out * 0)
    ),
    "positions shifted": Mutation("A place reads its neighbour's vector.", LEARNED, wound=on_output("places", _rolled)),
    "positions added twice": Mutation(
        "Position vectors are added twice.", LEARNED, wound=on_output("places", lambda m, g, out: out * 2)
    ),
    "rotation dropped": Mutation(
        "Queries and keys are not turned.", TURNED, _turn(lambda cos, sin: (cos * 0 + 1, sin * 0))
    ),
    "rotation backwards": Mutation("Queries and keys turn the other way.", TURNED, _turn(lambda cos, sin: (cos, -sin))),
    "rotary base": Mutation("The rotation has another base.", TURNED, wound=_other_base),
    "residual missing": Mutation(
        "A block returns what it adds alone.", EVERY, wound=on_output("blocks", lambda m, given, out: out - given)
    ),
    "residual doubled": Mutation(
        "A block adds its input twice.", EVERY, wound=on_output("blocks", lambda m, given, out: out + given)
    ),
    "layer skipped": Mutation(
        "The last block hands on its input.", EVERY, wound=on_output("last block", lambda m, given, out: given * 1)
    ),
    "layer doubled": Mutation("The last block runs twice.", ("opt", "llama", "bert"), wound=again),
    "norm missing": Mutation(
        "The norm beside attention does nothing.", EVERY, wound=on_output("norm", lambda m, given, out: given * 1)
    ),
    "norm without its gain": Mutation(
        "The norm beside attention ignores its gain.", EVERY, wound=on_output("norm", _without_gain)
    ),
    "feed-forward mixes places": Mutation(
        "A token's network reads its neighbour.", ("gpt2", "llama", "bert", "t5"), wound=on_output("network", _mixed)
    ),
    "norm applies its gain twice": Mutation(
        "The norm beside attention multiplies by its gain again.",
        EVERY,
        wound=on_output("norm", lambda m, given, out: out * m.weight),
    ),
    "norm over all tokens": Mutation(
        "The norm beside attention divides all tokens by one root.",
        EVERY,
        wound=on_output("norm", lambda m, given, out: m.weight * given / given.pow(2).mean().sqrt()),
    ),
    "another activation": Mutation("The last network bends its numbers by a tanh.", EVERY, wound=_another_activation),
    "scores capped": Mutation("A tanh keeps the scores below one.", EVERY, wound=_capped),
    "turned and lengthened": Mutation(
        "Queries and keys are a tenth longer when turned.", TURNED, _turn(lambda cos, sin: (cos * 1.1, sin * 1.1))
    ),
    "groups in turn": Mutation(
        "Keys and values serve the heads in turn, not groups of neighbours.", ("llama", "qwen3", "mixtral"), _in_turn
    ),
    "last block leaks": Mutation(
        "The last block lets a tenth of its input by.",
        EVERY,
        wound=on_output("last block", lambda m, given, out: out + 0.1 * given),
    ),
    "embedding scaled": Mutation(
        "Looked-up vectors are doubled.", EVERY, wound=on_output("embedding", lambda m, g, out: out * 2)
    ),
    "embedding shifted": Mutation("A token gets its neighbour's vector.", EVERY, wound=on_output("embedding", _rolled)),
    "tying broken": Mutation("The head has a copy of the table.", ("opt", "gpt2", "bert"), wound=_untie),
    "router constant": Mutation(
        "The router chooses the first experts for every token.",
        ("mixtral",),
        wound=_router(lambda raw, score, at: (raw, score, torch.arange(at.shape[-1]).expand_as(at).contiguous())),
    ),
    "second expert ignored": Mutation(
        "The second expert's result counts for nothing.",
        ("mixtral",),
        wound=_router(lambda raw, s, at: (raw, torch.cat([s[..., :1], s[..., 1:] * 0], -1), at)),
    ),
    "cache off by one": Mutation(
        "The oldest token in the cache is read as the newest but one.",
        WRITERS,
        _cache(lambda old, new: old if old.shape[-2] == new.shape[-2] else old[..., :-1, :].roll(1, -2)),
    ),
    "cache not updated": Mutation(
        "The cache hands back what it was just given.",
        WRITERS,
        _cache(lambda old, new: torch.cat([old[..., : -new.shape[-2], :] * 0, new], dim=-2)),
    ),
}


class Mutant(Subject):
    """A release whose code has a wrong line: its skeleton and its miniature both."""

    def __init__(self, mutation: Mutation, code: Code, how: str) -> None:
        entry = matrix().entries[code.model]
        super().__init__(recorded(entry) if how == ENTRY else at_path(CONFIGS / f"{code.model}.json"), matrix().traits)
        if entry.runs_as:  # the class that writes, where the config names the body alone
            self.release.config.architectures = [entry.runs_as]
        self._mutation, self._code = mutation, code

    @cached_property
    def skeleton(self) -> Runnable:
        """The full-size model, wounded."""
        made = super().skeleton
        made.run()  # it settles how it can be run
        return self._wounded(made)

    @cached_property
    def miniature(self) -> Runnable:
        """The small model, wounded."""
        return self._wounded(super().miniature)

    def _wounded(self, made: Runnable) -> Runnable:
        if self._mutation.wound is not None:
            self._mutation.wound(made.model, self._code)
            for name in ("trace", "repeated", "parameters", "names", "module_names"):
                vars(made).pop(name, None)
        return made


@contextmanager
def mutated(mutation: Mutation, code: Code) -> Iterator[None]:
    """The library with a mutation's patches."""
    with ExitStack() as stack:
        for each in mutation.patches(code):
            stack.enter_context(each)
        yield


def survey(name: str, architecture: str, how: str = STRANGER, chapter: str = "") -> Results:
    """Examine one mutated release, without an entry or with its own, by the claims of one chapter or of several."""
    mutation, code = MUTATIONS[name], CODE[architecture]
    found: Results = {}
    with mutated(mutation, code):
        patient = Mutant(mutation, code, how)
        for each in [chapter] if chapter else CHAPTERS:
            results = examine(patient, chapter=each, marks=USUAL)
            assert results, f"no claim of chapter {each} ran on {code.model}, {name}"
            found |= results
    return found


def claims_that_fail(found: Results) -> list[str]:
    """The claims that fail, in the order in which they are read."""
    return [claim.removeprefix("test_") for claim, result in found.items() if result["verdict"] == "fails"]


# ---- the table

HEAD = """\
# Which claims see which mutation

A mutation is a wrong line in the library's code of an architecture, put in at run time by `tests/support/mutations.py`.
Each mutated release is examined without an entry, as `--model` would. The last column counts the claims of chapters 1
to 7 and 10 that fail, and names the first three. Made by `python -m tests.support.mutations`; a test keeps it true.

| mutation | architecture | claims that fail |
|---|---|---|
"""
ROW = re.compile(r"\| (?P<name>[^|]+) \| (?P<on>\w+) \| (?P<seen>.*) \|")


def summary(found: Results) -> str:
    """What a row says of the claims that fail."""
    claims = claims_that_fail(found)
    return f"{len(claims)}: {', '.join(claims[:3])}" if claims else "**none**"


def rows() -> dict[tuple[str, str], str]:
    """What the table has."""
    lines = TABLE.read_text(encoding="utf-8").splitlines() if TABLE.is_file() else []
    found = (ROW.fullmatch(line) for line in lines)
    return {(row["name"], row["on"]): row["seen"] for row in found if row and row["name"] in MUTATIONS}


def written(table: dict[tuple[str, str], str]) -> str:
    """The table as text, and what survives."""
    order = [(name, on) for name, mutation in MUTATIONS.items() for on in mutation.on]
    lines = [f"| {name} | {on} | {table[name, on]} |" for name, on in order if (name, on) in table]
    survivors = [f"* {name}, {on}: {_why(name)}" for name, on in order if table.get((name, on)) == "**none**"]
    survival = ["", "## What survives", "", *(survivors or ["Nothing does."])]
    return HEAD + "\n".join([*lines, *survival]) + "\n"


def _why(name: str) -> str:
    return MUTATIONS[name].equivalent or "no claim sees it yet."


def main(names: list[str]) -> None:
    """Examine what the table has not, or the named mutations anew, and write the table after each."""
    table = {key: failing for key, failing in rows().items() if key[0] not in names}
    TABLE.parent.mkdir(exist_ok=True)
    for name, mutation in MUTATIONS.items():
        for on in mutation.on:
            if (name, on) not in table and (not names or name in names):
                table[name, on] = summary(survey(name, on))
                TABLE.write_text(written(table), encoding="utf-8")
                print(name, on, table[name, on], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
