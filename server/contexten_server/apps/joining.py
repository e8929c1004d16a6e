"""ES modules joined into one script, for a page that may fetch nothing.

Only what the modules of the dashboard use is understood: `import { a, b as c } from "./file.js"` and `export` before a
function, class or const, each at the beginning of a line. Anything else is refused, so that a test notices.
"""

from __future__ import annotations

import re
from pathlib import Path

_IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.{1,2}/[^"]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async function\*?|function\*?|class|const) (\w+))", re.MULTILINE)
_LEFT = re.compile(r"^\s*(?:import\b|export\b)|\bimport\s*\(|\bimport\.meta\b", re.MULTILINE)
_ENDS_SCRIPT = re.compile(r"</script|<!--", re.IGNORECASE)
_ENDS_STYLE = re.compile(r"</style|@import", re.IGNORECASE)


def join_modules(entry: Path) -> str:
    """The module and all that it imports as one script: each module a function's scope, those first that others need.

    Raises ValueError for what is not understood: another form of import or export, a circle, or text that would end
    the script element that it is put into.
    """
    order: list[Path] = []
    _visit(entry.resolve(), (), order)
    names = {path: f"module_{number}" for number, path in enumerate(order)}
    script = "".join(_scope(path, names) for path in order)
    if _ENDS_SCRIPT.search(script):
        raise ValueError("a module holds text that would end the script element")
    return f'"use strict";\n{script}'


def join_styles(*paths: Path) -> str:
    """Style sheets as one. Raises ValueError for text that would end the style element, or fetch another sheet."""
    style = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    if _ENDS_STYLE.search(style):
        raise ValueError("a style sheet holds text that would end the style element, or imports another")
    return style


def _visit(path: Path, way: tuple[Path, ...], order: list[Path]) -> None:
    if path in order:
        return
    if path in way:
        raise ValueError("modules import each other: " + " -> ".join(step.name for step in (*way, path)))
    for match in _IMPORT.finditer(path.read_text(encoding="utf-8")):
        _visit((path.parent / match[2]).resolve(), (*way, path), order)
    order.append(path)


def _scope(path: Path, names: dict[Path, str]) -> str:
    def bound(match: re.Match[str]) -> str:
        wanted = ", ".join(name.strip().replace(" as ", ": ") for name in match[1].split(",") if name.strip())
        return f"const {{ {wanted} }} = {names[(path.parent / match[2]).resolve()]};\n"

    text = path.read_text(encoding="utf-8")
    exported = ", ".join(_EXPORT.findall(text))
    body = _EXPORT.sub("", _IMPORT.sub(bound, text))
    if left := _LEFT.search(body):
        line = body[: left.start()].count("\n") + 1
        raise ValueError(f"{path.name}, line {line}: a form of import or export that is not understood")
    return f"const {names[path]} = (() => {{\n{body}return {{ {exported} }};\n}})();\n"
