"""What the tokens of language models cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """USD for a million tokens."""

    input_usd: float
    output_usd: float

    @classmethod
    def parse(cls, text: str) -> ModelPrice:
        """Read `0.15/0.60`. Raises ValueError where it is nothing such."""
        parts = text.split("/")
        try:
            price = cls(*(float(part) for part in parts))
        except (TypeError, ValueError):
            raise ValueError(f"{text!r} is no price: write input/output, such as 0.15/0.60") from None
        if not (0 <= price.input_usd < 1e6 and 0 <= price.output_usd < 1e6):
            raise ValueError(f"{text!r}: a price is from 0")
        return price

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Of so many tokens, in USD."""
        return (input_tokens * self.input_usd + output_tokens * self.output_usd) / 1e6
