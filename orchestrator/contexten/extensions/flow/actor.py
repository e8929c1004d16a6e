"""Who asks: recorded with every change as the audit trail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A client, the transport it came by, and the tool or command it used.

    A client's name is its own claim. Who it calls for, `subject`, is there where an authorization server said so; then
    it comes first, and the whole has four parts.
    """

    subject: str = ""
    client: str = "python"
    transport: str = "python"
    tool: str = ""

    def __str__(self) -> str:
        return "/".join(
            part.replace("/", "_")[:100] for part in (self.subject, self.client, self.transport, self.tool) if part
        )


PYTHON = Actor()
"""A Python program that uses the library."""
