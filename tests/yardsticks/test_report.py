"""The benchmark's table says truly whether a bar was reached, and keeps the rest of its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.report import MAIN, Row, machine, markdown, markers, write_page

BEGIN, END = markers(MAIN)
THROUGHPUT = Row(
    name="one flow", ours=600.0, unit="flows/s", against=1000.0, against_name="ceiling", bar=0.5, bar_is_floor=True
)
MEMORY = Row(name="memory", ours=251.0, unit="MiB", against=None, against_name="", bar=250, bar_is_floor=False)


def test_throughput_reaches_a_bar_from_above() -> None:
    assert THROUGHPUT.ratio == pytest.approx(0.6)
    assert THROUGHPUT.ok
    assert not replace(THROUGHPUT, ours=499.0).ok


def test_an_absolute_bar_is_reached_from_below() -> None:
    assert not MEMORY.ok
    assert replace(MEMORY, ours=250.0).ok


def test_the_table_says_which_bar_was_missed() -> None:
    lines = markdown([THROUGHPUT, MEMORY], "2 cores").splitlines()
    assert lines[-2] == "| one flow | 600 flows/s | 1,000 flows/s (ceiling) | 0.6x | ≥ 0.5x | yes |"
    assert lines[-1] == "| memory | 251 MiB |  | 251 MiB | ≤ 250 MiB | no |"


def test_a_figure_without_a_bar_is_shown_and_misses_none() -> None:
    row = replace(MEMORY, bar=None)
    assert row.ok
    assert markdown([row], "2 cores").splitlines()[-1] == "| memory | 251 MiB |  | 251 MiB |  |  |"


def test_a_page_keeps_tables_of_several_names(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    write_page([THROUGHPUT], "2 cores", page)
    write_page([MEMORY], "2 cores", page, name="engines")
    write_page([THROUGHPUT], "4 cores", page)
    text = page.read_text(encoding="utf-8")
    assert text.count("one flow") == text.count("memory") == text.count("4 cores") == text.count("2 cores") == 1


def test_only_what_stands_between_the_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# Speed\n\nbefore\n\n{BEGIN}\nold\n{END}\n\nafter\n", encoding="utf-8")

    write_page([MEMORY], "2 cores", page)
    write_page([THROUGHPUT], "2 cores", page)

    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Speed\n\nbefore\n\n")
    assert text.endswith(f"{END}\n\nafter\n")
    assert "old" not in text
    assert "memory" not in text
    assert text.count("one flow") == 1


def test_a_page_without_markers_gets_them(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("# Speed\n", encoding="utf-8")

    write_page([THROUGHPUT], "2 cores", page)

    assert page.read_text(encoding="utf-8").startswith(f"# Speed\n\n{BEGIN}\n")


def test_the_machine_is_told_without_its_places(tmp_path: Path) -> None:
    where = machine(tmp_path)
    assert "cores" in where
    assert "SQLite" in where
    assert str(tmp_path) not in where
