"""What an attempt uses of models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from ..agents.protocol import AttemptContext, Json
from ..settings import ModelPrice

PriceOf = Callable[[str], ModelPrice | None]


@dataclass(slots=True)
class _Used:
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Usage:
    """Counted by model."""

    def __init__(self) -> None:
        self._by_model: defaultdict[str, _Used] = defaultdict(_Used)

    @property
    def calls(self) -> int:
        """Of all models."""
        return sum(used.calls for used in self._by_model.values())

    @property
    def tokens(self) -> int:
        """Of all models, in and out."""
        return sum(used.input_tokens + used.output_tokens for used in self._by_model.values())

    def called(self, model: str) -> None:
        """A model was called, whatever came of it."""
        self._by_model[model].calls += 1

    def spent(self, model: str, *, input_tokens: int, output_tokens: int) -> None:
        """A call took so many tokens."""
        used = self._by_model[model]
        used.input_tokens += input_tokens
        used.output_tokens += output_tokens

    def tell(self, context: AttemptContext, price_of: PriceOf) -> None:
        """Tell the journal, with what it cost where a price is known."""
        for model, used in self._by_model.items():
            told: dict[str, Json] = {
                "model": model,
                "model_calls": used.calls,
                "input_tokens": used.input_tokens,
                "output_tokens": used.output_tokens,
            }
            price = price_of(model)
            if price is not None:
                told["cost_usd"] = round(price.cost(used.input_tokens, used.output_tokens), 9)
            context.record("task.usage", told)
