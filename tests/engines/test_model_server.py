"""The scripted server speaks as OpenAI's client expects."""

from __future__ import annotations

import json
import socket
import struct
import threading
from typing import Any

import anyio
import httpx
import pytest

from .model_server import Call, Cut, Fault, Garbage, Hang, ModelRequest, ModelServer, Reply, Text

openai = pytest.importorskip("openai")

pytestmark = pytest.mark.anyio
QUESTION = [{"role": "user", "content": "What is it?"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def client(server: ModelServer) -> Any:
    return openai.AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0)


async def read(llm: Any, *, is_streamed: bool) -> None:
    answer = await llm.chat.completions.create(model="m", messages=QUESTION, stream=is_streamed)
    if is_streamed:
        async for _ in answer:
            pass


async def test_words_arrive_whole_and_in_pieces(model_server: ModelServer) -> None:
    model_server.script = lambda request: Text(f"You said: {request.last}")
    async with client(model_server) as llm:
        whole = await llm.chat.completions.create(model="m", messages=QUESTION)
        stream = await llm.chat.completions.create(
            model="m", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        pieces = [chunk async for chunk in stream]
    assert whole.choices[0].message.content == "You said: What is it?"
    assert whole.usage.total_tokens == 15
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices) == "You said: What is it?"
    assert pieces[-1].usage.prompt_tokens == 10


async def test_a_tool_is_called_and_its_result_comes_back(model_server: ModelServer) -> None:
    def script(request: ModelRequest) -> Reply:
        return Text(f"It is {request.results[0]}.") if request.results else Call("look", {"at": "it"})

    model_server.script = script
    async with client(model_server) as llm:
        asked = await llm.chat.completions.create(model="m", messages=QUESTION, tools=[TOOL])
        call = asked.choices[0].message.tool_calls[0]
        answer = {"role": "tool", "tool_call_id": call.id, "content": "red"}
        said = [*QUESTION, asked.choices[0].message, answer]
        told = await llm.chat.completions.create(model="m", messages=said, tools=[TOOL])
    assert (call.function.name, call.function.arguments) == ("look", '{"at": "it"}')
    assert told.choices[0].message.content == "It is red."
    assert list(model_server.requests[0].tools) == ["look"]


async def test_replies_in_a_list_come_one_after_another(model_server: ModelServer) -> None:
    model_server.script = [Text("one"), Text("two")]
    async with client(model_server) as llm:
        said = [
            (await llm.chat.completions.create(model="m", messages=QUESTION)).choices[0].message.content
            for _ in range(3)
        ]
    assert said == ["one", "two", "two"]


async def test_faults_are_what_the_client_knows_them_as(model_server: ModelServer) -> None:
    model_server.script = [Fault(429, headers={"retry-after": "7"}), Fault(500), Garbage()]
    async with client(model_server) as llm:
        with pytest.raises(openai.RateLimitError) as limited:
            await llm.chat.completions.create(model="m", messages=QUESTION)
        with pytest.raises(openai.InternalServerError):
            await llm.chat.completions.create(model="m", messages=QUESTION)
        model_server.key = "the right one"
        with pytest.raises(openai.AuthenticationError):
            await llm.chat.completions.create(model="m", messages=QUESTION)
    assert limited.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_a_cut_answer_is_a_broken_connection(model_server: ModelServer, is_streamed: bool) -> None:
    model_server.script = [Cut()]
    async with client(model_server) as llm:
        with pytest.raises((openai.APIConnectionError, httpx.RemoteProtocolError)):
            await read(llm, is_streamed=is_streamed)


async def test_it_knows_when_a_client_gives_up_waiting(model_server: ModelServer) -> None:
    model_server.script = [Hang()]
    async with client(model_server) as llm:
        with anyio.move_on_after(0.2) as patience:
            await llm.chat.completions.create(model="m", messages=QUESTION)
        assert patience.cancelled_caught
        assert await anyio.to_thread.run_sync(model_server.left.wait, 10)


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_it_knows_that_a_client_left_before_the_first_words(
    model_server: ModelServer, *, is_streamed: bool
) -> None:
    has_left = threading.Event()

    def script(_: ModelRequest) -> Reply:
        has_left.wait(10)
        return Hang()

    model_server.script = script
    body = json.dumps({"model": "m", "messages": QUESTION, "stream": is_streamed}).encode()
    host, port = model_server.host.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves with a reset
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        assert await anyio.to_thread.run_sync(model_server.wait_for, 1)
    has_left.set()
    assert await anyio.to_thread.run_sync(model_server.left.wait, 10)
