"""Pages whose words are written by hand and whose tables by a benchmark, between two marks."""

from __future__ import annotations

from pathlib import Path


def write_tables(page: Path, tables: str, *, by: str) -> None:
    """Put ``tables`` between the marks of ``by`` in ``page``; a page without them is begun with them."""
    begin, end = f"<!-- tables: written by benchmarks/{by} -->", "<!-- end of tables -->"
    before, mark, rest = page.read_text().partition(begin) if page.exists() else ("", "", "")
    after = rest.partition(end)[2] if mark else "\n"
    page.write_text(f"{before}{begin}\n{tables.strip()}\n{end}{after}")
