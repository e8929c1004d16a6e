"""OpenAI-compatible servers, without taking a broken answer for a whole one."""

from __future__ import annotations

from typing import Any

from strands.models.openai import OpenAIModel
from strands.types.streaming import StreamEvent
from typing_extensions import override

_NO_REASON = "end_turn"  # what Strands puts where a stream ended without a finish_reason; no server says so


class BrokenAnswer(ConnectionError):
    """A stream ended before the model had."""


class WholeAnswers(OpenAIModel):
    """Strands takes a stream that simply stops as a finished answer; this raises BrokenAnswer."""

    @override
    def format_chunk(self, event: dict[str, Any], **kwargs: Any) -> StreamEvent:
        if event["chunk_type"] == "message_stop" and event["data"] == _NO_REASON:
            raise BrokenAnswer("the answer ended before the model said that it had finished")
        return super().format_chunk(event, **kwargs)
