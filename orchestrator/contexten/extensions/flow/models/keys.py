"""Keys that went out of this process, kept out of what is told."""

from __future__ import annotations

import os

from .providers import PROVIDERS

MIN_KEY_CHARS = 4  # a shorter one is no key, and masking it would spoil words


class Keys:
    """Grows only: a key that was rotated may still turn up in what a server says of it."""

    def __init__(self, shown: str = "the model's key") -> None:
        """`shown` stands in brackets where a key was."""
        self._shown = f"[{shown}]"
        self._seen: set[str] = set()

    def note(self, *keys: str | None) -> None:
        """From now on these are masked."""
        self._seen.update(key for key in keys if key is not None and len(key) >= MIN_KEY_CHARS)

    def note_environment(self) -> None:
        """From now on what the providers' own variables hold is masked: their libraries read those by themselves."""
        self.note(*(os.environ.get(provider.key) for provider in PROVIDERS.values() if provider.key is not None))

    def mask(self, text: str) -> str:
        """The text without them."""
        for key in sorted(self._seen, key=len, reverse=True):
            text = text.replace(key, self._shown)
        return text
