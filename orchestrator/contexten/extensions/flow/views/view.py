"""What all answers share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class View(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def data(self) -> dict[str, Any]:
        """The view as JSON data, without fields that are absent."""
        return self.model_dump(mode="json", exclude_none=True)


class IssueView(View):
    """One problem in what was given."""

    path: str = Field(description="JSON Pointer into what was given")
    code: str
    message: str
    expected: Any = None
    got: Any = None
    suggestion: str | None = None
    patch: list[dict[str, Any]] | None = Field(None, description="RFC 6902 operations that mend it")
