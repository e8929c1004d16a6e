from __future__ import annotations

import base64
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow.agents.tools.file_reader import FileReader
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.outside.folders import Folders, Place
from contexten.extensions.flow.settings import FlowSettings

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[Any]]


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    return folder


@pytest.fixture
def files(run_tools: Run, allowed: Path) -> Run:
    async def run(*tools: str, settings: dict[str, Any] | None = None, **parameters: Any) -> Any:
        return await run_tools(*tools, settings={"allow_paths": (allowed,), **(settings or {})}, **parameters)

    return run


async def refusal(call: Awaitable[Any], *, kind: str = "invalid") -> str:
    with pytest.raises(AttemptError) as caught:
        await call
    assert caught.value.kind == kind
    return caught.value.message


async def test_text_comes_back_as_it_was_written(files: Run, allowed: Path) -> None:
    assert await files("file_writer", path="a/b/note.txt", content="gr\u00fc\u00df\n") == {
        "path": "a/b/note.txt",
        "bytes": 7,
    }
    assert (allowed / "a/b/note.txt").read_text() == "gr\u00fc\u00df\n"
    assert await files("file_reader", path="a/b/note.txt") == "gr\u00fc\u00df\n"
    assert await files("file_reader", path=str(allowed / "a/b/note.txt"), format="lines") == ["gr\u00fc\u00df"]


async def test_data_is_written_as_json_and_read_by_the_ending(files: Run, allowed: Path) -> None:
    await files("file_writer", path="d.json", content={"a": [1, None]})
    assert (allowed / "d.json").read_text() == '{\n  "a": [\n    1,\n    null\n  ]\n}\n'
    assert await files("file_reader", path="d.json") == {"a": [1, None]}


async def test_null_is_content_too(files: Run, allowed: Path) -> None:
    await files("file_writer", path="n.json", content=None)
    assert (allowed / "n.json").read_text() == "null\n"


async def test_rows_are_written_and_read_as_csv(files: Run, allowed: Path) -> None:
    rows = [{"id": 1, "note": 'say "hi", twice'}, {"id": 2, "tags": ["x"]}]
    await files("file_writer", path="r.csv", content=rows, format="csv")
    assert (allowed / "r.csv").read_text() == 'id,note,tags\n1,"say ""hi"", twice",\n2,,"[""x""]"\n'
    assert await files("file_reader", path="r.csv") == [
        {"id": "1", "note": 'say "hi", twice', "tags": ""},
        {"id": "2", "note": "", "tags": '["x"]'},
    ]


async def test_bytes_travel_as_base64(files: Run, allowed: Path) -> None:
    content = bytes(range(256))
    await files("file_writer", path="b.bin", content=base64.b64encode(content).decode(), format="bytes")
    assert (allowed / "b.bin").read_bytes() == content
    assert base64.b64decode(await files("file_reader", path="b.bin", format="bytes")) == content
    assert "base64" in await refusal(files("file_writer", path="c.bin", content="not base64!", format="bytes"))


async def test_a_pipeline_copies_a_file(files: Run, allowed: Path) -> None:
    (allowed / "x.txt").write_text("old")
    await files("file_reader", "file_writer", path="x.txt", append=True)
    assert (allowed / "x.txt").read_text() == "oldold"


async def test_appending_adds_and_replacing_replaces(files: Run, allowed: Path) -> None:
    for content, append in (("a\n", True), ("b\n", True), ("c\n", False), ("d\n", True)):
        await files("file_writer", path="log.txt", content=content, append=append)
    assert (allowed / "log.txt").read_text() == "c\nd\n"


async def test_replacing_keeps_the_mode_and_leaves_nothing_else_behind(files: Run, allowed: Path) -> None:
    target = allowed / "m.txt"
    target.write_text("old")
    target.chmod(0o640)
    await files("file_writer", path="m.txt", content="new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert [entry.name for entry in allowed.iterdir()] == ["m.txt"]


async def test_a_failed_write_leaves_the_old_file_and_no_part(
    files: Run, allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (allowed / "f.txt").write_text("old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = await refusal(files("file_writer", path="f.txt", content="new"), kind="resource")
    assert "no space left" in message
    assert (allowed / "f.txt").read_text() == "old"
    assert [entry.name for entry in allowed.iterdir()] == ["f.txt"]


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "a/../../secret.txt",
        "/etc/passwd",
        "{tmp}/secret.txt",
        "{tmp}/allowed2/x",
        "link/secret.txt",
        "out",
    ],
)
async def test_a_path_outside_is_refused_and_not_shown(files: Run, allowed: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "allowed2").mkdir()
    (allowed / "link").symlink_to(tmp_path)
    (allowed / "out").symlink_to(tmp_path / "secret.txt")
    given = path.format(tmp=tmp_path)
    for call in (files("file_reader", path=given), files("file_writer", path=given, content="x")):
        message = await refusal(call)
        assert "outside the folders" in message
        assert str(tmp_path) not in message.replace(repr(given), "")
    assert (tmp_path / "secret.txt").read_text() == "secret"


async def test_links_within_the_folders_work(files: Run, allowed: Path) -> None:
    (allowed / "real").mkdir()
    (allowed / "real/x.txt").write_text("x")
    (allowed / "alias").symlink_to("real")
    assert await files("file_reader", path="alias/x.txt") == "x"
    await files("file_writer", path="alias/x.txt", content="y")
    assert (allowed / "real/x.txt").read_text() == "y"


async def test_an_allowed_folder_may_itself_be_a_link(run_tools: Run, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    settings = {"allow_paths": (tmp_path / "alias",)}
    await run_tools("file_writer", settings=settings, path="x.txt", content="x")
    assert await run_tools("file_reader", settings=settings, path=str(tmp_path / "alias/x.txt")) == "x"


def test_a_link_put_in_place_after_the_check_leads_nowhere(
    allowed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (allowed / "folder").symlink_to(tmp_path)
    (allowed / "file").symlink_to(tmp_path / "secret.txt")
    folders = Folders([allowed])
    for names in (("folder", "secret.txt"), ("file",)):
        monkeypatch.setattr(Folders, "locate", lambda self, given, names=names: Place(allowed, names))
        for attempt in (
            lambda: folders.read("x", max_bytes=100),
            lambda: folders.write("x", b"changed"),
            lambda: folders.append("x", b"changed"),
        ):
            with pytest.raises(AttemptError) as caught:
                attempt()
            assert caught.value.kind == "invalid"
    assert (tmp_path / "secret.txt").read_text() == "secret"


@pytest.mark.parametrize("path", ["missing.txt", "file.txt/x", ".", "folder", "a\0b", "x" * 300, "folder/"])
async def test_what_cannot_be_read_says_so(files: Run, allowed: Path, path: str) -> None:
    (allowed / "file.txt").write_text("x")
    (allowed / "folder").mkdir()
    message = await refusal(files("file_reader", path=path))
    assert str(allowed) not in message


@pytest.mark.parametrize("path", [".", "folder", "folder/", "file.txt/x", "new/"])
async def test_what_cannot_be_written_says_so(files: Run, allowed: Path, path: str) -> None:
    (allowed / "file.txt").write_text("x")
    (allowed / "folder").mkdir()
    await refusal(files("file_writer", path=path, content="x"))


async def test_a_pipe_without_a_writer_does_not_hang(files: Run, allowed: Path) -> None:
    os.mkfifo(allowed / "pipe")
    with anyio.fail_after(30):
        assert "not a regular file" in await refusal(files("file_reader", path="pipe"))
        await refusal(files("file_writer", path="pipe", content="x"))
        await refusal(files("file_writer", path="pipe", content="x", append=True))


async def test_sizes_are_capped(files: Run, allowed: Path) -> None:
    settings = {"max_output_bytes": 1024}
    (allowed / "big.txt").write_bytes(b"x" * 1025)
    assert "1024" in await refusal(files("file_reader", settings=settings, path="big.txt"))
    assert "1024" in await refusal(files("file_writer", settings=settings, path="b.txt", content="x" * 1025))


async def test_without_allowed_folders_the_error_says_how_to_allow_one(run_tools: Run) -> None:
    assert "CONTEXTEN_FLOW_ALLOW_PATHS" in await refusal(run_tools("file_reader", path="x"))


async def test_content_must_be_given_or_come_before(files: Run) -> None:
    assert "parameters/content" in await refusal(files("file_writer", path="x"))


@pytest.mark.parametrize(
    ("content", "format"),
    [("{", "json"), ('{"a": NaN}', "json"), ("[" * 5000, "json"), ("a,a\n1,2\n", "csv"), ("a\n1,2\n", "csv")],
)
async def test_content_that_does_not_fit_the_format_is_invalid(
    files: Run, allowed: Path, content: str, format: str
) -> None:
    (allowed / "x").write_text(content)
    await refusal(files("file_reader", path="x", format=format))


async def test_any_bytes_can_be_read_as_text(files: Run, allowed: Path) -> None:
    (allowed / "x").write_bytes(b"\xef\xbb\xbfa\xff\xed\xa0\x80b")
    text = await files("file_reader", path="x")
    text.encode()
    assert text.startswith("a\ufffd")
    assert text.endswith("b")


def test_creation_warns_of_a_literal_path_outside(allowed: Path) -> None:
    reader = FileReader(FlowSettings(allow_paths=(allowed,)))
    assert [issue.path for issue in reader.warnings({"path": "/etc/passwd"})] == ["/path"]
    assert not reader.warnings({"path": "x/y.txt"})
    assert not reader.warnings({"path": "/{{ inputs.path }}"})
    assert not reader.warnings({})
