"""What a person sees while a run goes."""

import pytest
from rich.console import Console
from rich.table import Table

from rethinking.console import Shortened


@pytest.mark.parametrize("height", [6, 12, 20])
def test_a_table_too_tall_for_the_terminal_keeps_its_heading_and_its_last_rows(height):
    seen = under_the_live_line(20, height)
    assert len(seen) == height - 1
    assert seen[0].strip() == "title"
    assert seen.count("⋮") == 1
    last_rows = [line.strip() for line in seen[seen.index("⋮") + 1 :]]
    assert last_rows == [f"row {row}" for row in range(20)][-len(last_rows) :]
    assert len(last_rows) >= height // 2


def test_a_table_that_fits_is_whole():
    seen = under_the_live_line(20, 40)
    assert [line.strip() for line in seen if "row" in line] == [f"row {row}" for row in range(20)]
    assert "⋮" not in seen


def under_the_live_line(rows: int, height: int) -> list[str]:
    table = Table("", title="title", box=None, show_header=False)
    for row in range(rows):
        table.add_row(f"row {row}")
    console = Console(width=40, height=height)
    with console.capture() as captured:
        console.print(Shortened(table))
    return captured.get().splitlines()
