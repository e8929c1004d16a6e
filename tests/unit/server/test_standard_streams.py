"""Lines from a pipe, whatever way they are cut."""

import os
from collections.abc import AsyncIterator

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contexten_server.standard_streams import WireLines, WireWriter

pytestmark = pytest.mark.anyio


async def lines_of(data: bytes, sizes: list[int]) -> list[str]:
    """What is read of `data` written in pieces of those sizes."""
    read, write = os.pipe()
    try:
        lines = aiter(WireLines(read))
        while data:
            size = sizes.pop(0) if sizes else len(data)
            os.write(write, data[: max(1, size)])
            data = data[max(1, size) :]
        os.close(write)
        with anyio.fail_after(30):
            return await _all(lines)
    finally:
        os.close(read)


async def _all(lines: AsyncIterator[str]) -> list[str]:
    return [line async for line in lines]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"))), st.lists(st.integers(1, 20)))
def test_lines_come_as_they_were_written(texts: list[str], sizes: list[int]) -> None:
    data = "".join(text + "\n" for text in texts).encode()
    found = anyio.run(lines_of, data, list(sizes), backend="asyncio")
    assert found == [text for text in texts if text.strip()]


async def test_a_last_line_without_an_end_is_read() -> None:
    assert await lines_of(b"one\ntwo", []) == ["one", "two"]


async def test_bytes_that_are_no_text_do_not_end_the_reading() -> None:
    assert await lines_of(b"\xff\xfe\ntwo\n", []) == ["\ufffd\ufffd", "two"]


async def test_a_writer_whose_reader_left_says_so_and_raises_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        writer = WireWriter(write)
        await writer.write("lost\n")
        assert writer.closed.is_set()
        await writer.write("lost too\n")
    finally:
        os.close(write)
