"""Wounds: what is broken in a model, in plain torch, to see a claim fail."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

Operands = tuple[Tensor, Tensor, Tensor]
Step = Callable[[Tensor], Tensor]

NAME = "wounded"


def matching(model: nn.Module, pattern: str) -> Iterator[nn.Module]:
    """The modules whose names match a pattern, "*.self_attn"; at least one."""
    found = [module for name, module in model.named_modules() if fnmatch.fnmatch(name, pattern)]
    assert found, f"no module of {type(model).__name__} is called {pattern}"
    yield from found


def attend_with(
    model: nn.Module,
    where: str = "*",
    *,
    operands: Callable[[Tensor, Tensor, Tensor], Operands] | None = None,
    scores: Step | None = None,
    weigh: Step | None = None,
    context: Step | None = None,
) -> None:
    """Make the modules called `where` attend as written out here, with one step changed, the others as they did.

    Shapes are (batch, heads, target, source) for scores and weights, (batch, heads, seq, d_head) for the rest.
    `operands` changes queries, keys and values, `scores` the scaled products before the mask, `weigh` replaces the
    softmax, `context` changes the weighted sums.
    """

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> tuple[Tensor, Tensor]:
        if operands:
            query, key, value = operands(query, key, value)
        scored = query @ key.transpose(-1, -2) * scaling
        scored = scores(scored) if scores else scored
        scored = scored if mask is None else scored + mask
        weights = weigh(scored) if weigh else scored.softmax(dim=-1)
        summed = weights @ value
        return (context(summed) if context else summed), weights

    attend_by(model, where, attend)


def attend_by(model: nn.Module, where: str, attend: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """Make the modules called `where` attend by a function of query, key, value, mask (or None) and scaling.

    It is given and returns what `attend_with` describes: the weighted sums and the weights.
    """
    for module in matching(model, where):
        module.wound = attend  # type: ignore[assignment]
    model.set_attn_implementation(NAME)  # type: ignore[operator]


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **rest: Any
) -> tuple[Tensor, Tensor]:
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
    scaling = rest.get("scaling") or query.shape[-1] ** -0.5
    context, weights = getattr(module, "wound", _attend)(query, key, value, mask, scaling)
    return context.transpose(1, 2).contiguous(), weights


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> tuple[Tensor, Tensor]:
    scores = query @ key.transpose(-1, -2) * scaling
    weights = (scores if mask is None else scores + mask).softmax(dim=-1)
    return weights @ value, weights


ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)


def on_input(model: nn.Module, where: str, change: Step) -> None:
    """Change the hidden states that the modules called `where` are given."""

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

    for module in matching(model, where):
        module.register_forward_pre_hook(hook, with_kwargs=True)


def on_output(model: nn.Module, where: str, change: Step) -> None:
    """Change the (first) tensor that the modules called `where` return."""

    def hook(module: nn.Module, args: tuple, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    for module in matching(model, where):
        module.register_forward_hook(hook)


def on_arguments(model: nn.Module, where: str, **changes: Callable[[Any], Any]) -> None:
    """Change arguments that the modules called `where` are given by keyword."""

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, kwargs | {name: change(kwargs[name]) for name, change in changes.items()}

    for module in matching(model, where):
        module.register_forward_pre_hook(hook, with_kwargs=True)


def mask_of(
    visible: Callable[[Tensor, Tensor], Tensor], target: int, source: int, *, elsewhere: float = -1e9
) -> Tensor:
    """A mask (1, 1, target, source) to be added to scores: `visible` says which key's place a query's place sees.

    Scores of what it does not see are lowered by `elsewhere`.
    """
    allowed = visible(torch.arange(target)[:, None], torch.arange(source)[None, :])
    return torch.zeros(1, 1, target, source).masked_fill(~allowed, elsewhere)


def see(model: nn.Module, where: str, visible: Callable[[Tensor, Tensor], Tensor], *, elsewhere: float = -1e9) -> None:
    """Give the modules called `where` a mask of their own over the text they are given."""

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        seq = (args[0] if args else kwargs["hidden_states"]).shape[1]
        kept = (args[0], None, *args[2:]) if len(args) > 1 else args
        return kept, kwargs | {"attention_mask": mask_of(visible, seq, seq, elsewhere=elsewhere)}

    for module in matching(model, where):
        module.register_forward_pre_hook(hook, with_kwargs=True)
