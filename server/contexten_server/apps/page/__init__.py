"""The page of a run as one HTML document that fetches nothing."""

from __future__ import annotations

from pathlib import Path

from contexten_server.apps.joining import join_modules, join_styles

_HERE = Path(__file__).parent
_RUN_VIEW = _HERE.parents[1] / "dashboard" / "assets" / "run"

_DOCUMENT = """\
<!doctype html>
<html lang="en" data-read-only="{read_only}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Contexten Flow</title>
<style>
{style}</style>
</head>
<body>
<main id="app"></main>
<script>
{script}</script>
</body>
</html>
"""


def run_page(*, read_only: bool) -> str:
    """The document. With `read_only` it offers nothing that changes a run."""
    return _DOCUMENT.format(
        read_only="true" if read_only else "false",
        style=join_styles(_RUN_VIEW / "runview.css", _HERE / "app.css"),
        script=join_modules(_HERE / "app.js"),
    )
