"""Writes the tables of a benchmark into a hand-written page, between two marks."""

from __future__ import annotations

from pathlib import Path


def write_tables(page: Path, tables: str, *, by: str) -> None:
    """Put ``tables`` between the marks of ``by`` in ``page``; a page without the marks gets them at its end."""
    start, end = f"<!-- tables: written by benchmarks/{by} -->", "<!-- end of tables -->"
    before, mark, rest = page.read_text().partition(start) if page.exists() else ("", "", "")
    after = rest.partition(end)[2] if mark else "\n"
    page.write_text(f"{before}{start}\n{tables.strip()}\n{end}{after}")
