"""Loaders: from_pretrained with something changed, to see claims about loading fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedModel


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Change every model's from_pretrained: `change(load, cls, folder, **kwargs)`, where `load` is the usual one."""
    usual = PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def install(change: Callable[..., Any]) -> None:
        def changed(cls: Any, folder: Any, **kwargs: Any) -> Any:
            return change(lambda *args, **more: usual(cls, *args, **more), cls, folder, **kwargs)

        monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(changed))

    return install
