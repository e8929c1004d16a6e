"""The MCP App as hosts discover it: capability, tools that are bound to it, the page, and its joined modules."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID
from mcp_types import TextResourceContents

from contexten_server.apps import RUN_PAGE
from contexten_server.apps.joining import join_modules, join_styles
from contexten_server.apps.page import run_page
from contexten_server.assembly import build_server
from contexten_tools import App

pytestmark = pytest.mark.anyio


async def test_the_extension_is_advertised_and_two_tools_are_bound_to_the_page(live: Any, era: str) -> None:
    async with live.client(era) as client:
        if era != "legacy":  # its handshake has no place for extensions; hosts go by the tools
            assert client.server_capabilities.extensions == {EXTENSION_ID: {}}
        tools = (await client.list_tools()).tools
    bound = {tool.name: tool.meta for tool in tools if tool.meta is not None}
    binding = {"ui": {"resourceUri": RUN_PAGE}}
    assert bound == {"execute_flow": binding, "get_flow_status": binding}


async def test_the_page_is_listed_and_read_with_its_type_and_an_empty_list_of_domains(live: Any, era: str) -> None:
    async with live.client(era) as client:
        (listed,) = [one for one in (await client.list_resources()).resources if str(one.uri) == RUN_PAGE]
        (read,) = (await client.read_resource(RUN_PAGE)).contents
    assert listed.mime_type == read.mime_type == APP_MIME_TYPE
    assert read.meta == {"ui": {"csp": {}, "prefersBorder": True}}
    assert read.text.startswith("<!doctype html>")


async def test_a_host_without_apps_gets_the_whole_answer_as_text(live: Any, era: str) -> None:
    async with live.client(era) as client:
        result = await client.call_tool("execute_flow", {"workflow_def": live.flow(live.value_task()), "wait_s": 20})
    assert '"state":"completed"' in result.content[0].text
    assert '"output":{"value":42}' in result.content[0].text


async def test_a_read_only_server_shows_runs_on_a_page_that_offers_no_actions(live: Any) -> None:
    server = build_server(App(service=live.service, settings=live.app.settings, read_only=True))
    tools = await server.list_tools()
    async with Client(server) as client:
        (read,) = (await client.read_resource(RUN_PAGE)).contents
    assert isinstance(read, TextResourceContents)
    assert [tool.name for tool in tools if tool.meta] == ["get_flow_status"]
    assert 'data-read-only="true"' in read.text
    assert 'data-read-only="false"' in run_page(read_only=False)


def test_the_page_fetches_nothing() -> None:
    page = run_page(read_only=False)
    for sign in ("src=", "href=", "@import", "url(", "fetch(", "XMLHttpRequest", "innerHTML", "eval("):
        assert sign not in page, sign
    assert len(page) < 150_000  # hosts hold it for each result that they show


def test_a_server_starts_without_reading_the_page() -> None:
    program = (
        "import sys, contexten_server.apps.page as page\n"
        "def read(**_): raise SystemExit('the page was put together')\n"
        "page.run_page = read\n"
        "import contexten_server.apps.extension as extension\n"
        "extension.RunApp(read_only=False)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, text=True).returncode == 0


def write(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.js").write_text(text)
    return folder / "entry.js"


def run(script: str) -> str:
    node = shutil.which("node") or pytest.skip("needs Node.js: install the program `node`")
    return subprocess.run([node, "-e", script], capture_output=True, check=True, text=True).stdout.strip()


def test_joined_modules_keep_their_scopes_and_run_once_in_the_order_of_need(tmp_path: Path) -> None:
    entry = write(
        tmp_path,
        entry='import { one as first } from "./a.js";\nimport { two } from "./b.js";\n'
        'console.log(first(), two, LOCAL());\nfunction LOCAL() {\n  return "entry";\n}\n',
        a='import { two } from "./b.js";\nconst LOCAL = "a";\nexport function one() {\n  return LOCAL + two;\n}\n',
        b='console.log("once");\nconst LOCAL = "b";\nexport const two = LOCAL;\nexport class Unused {}\n',
    )
    assert run(join_modules(entry)).split() == ["once", "ab", "b", "entry"]


@pytest.mark.parametrize(
    "text",
    [
        'import all from "./a.js";\n',
        'import * as all from "./a.js";\n',
        'import "./a.js";\n',
        'const a = await import("./a.js");\n',
        "export default 1;\n",
        "const a = 1;\nexport { a };\n",
        'console.log("</script>");\n',
        "// <!-- \n",
    ],
)
def test_what_the_joiner_does_not_understand_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"not understood|end the script"):
        join_modules(write(tmp_path, entry=text, a="export const a = 1;\n"))


def test_modules_that_import_each_other_are_refused_with_the_circle(tmp_path: Path) -> None:
    entry = write(
        tmp_path, entry='import { a } from "./a.js";\n', a='import { b } from "./entry.js";\nexport const a = 1;\n'
    )
    with pytest.raises(ValueError, match=r"entry\.js -> a\.js -> entry\.js"):
        join_modules(entry)


def test_a_style_sheet_that_would_end_its_element_is_refused(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.css"
    sheet.write_text("/* </style> */")
    with pytest.raises(ValueError, match="style element"):
        join_styles(sheet)
