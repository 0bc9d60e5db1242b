from pathlib import Path

import pytest
import torch

from rethinking.errors import RunError
from rethinking.theory import blocks
from rethinking.theory.blocks import Blocks, nbytes, spans, triangle

SHAPES = [(2, 3), (2, 5), (1, 6)]


def filled(folder: Path | None, held: float = float("inf")) -> Blocks:
    made = Blocks(SHAPES, folder, held)
    for index, shape in enumerate(SHAPES):
        made[index] = torch.full(shape, float(index))
    return made


def test_block_rows_cover_the_lower_triangle_with_half_the_memory(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 4)
    assert spans(10) == [(0, 4), (4, 8), (8, 10)]
    assert triangle(10) == [(4, 4), (4, 8), (2, 10)]
    assert nbytes(triangle(10)) == 4 * (16 + 32 + 20)
    assert nbytes(triangle(1000)) < 0.51 * 4 * 1000**2


@pytest.mark.parametrize("held", [float("inf"), 70.0, 0.0])
def test_the_next_process_finds_the_stored_blocks(tmp_path: Path, held):
    filled(tmp_path, held)
    again = Blocks(SHAPES, tmp_path, held)
    assert again.finished == 3
    for index, shape in enumerate(SHAPES):
        assert torch.equal(again[index], torch.full(shape, float(index)))


def test_memory_stays_within_the_limit(tmp_path: Path):
    made = filled(tmp_path, held=24.0)  # the first block has as many
    for path in tmp_path.iterdir():
        path.unlink()
    assert made.finished == 1
    assert torch.equal(made[0], torch.zeros(2, 3))
    with pytest.raises(RunError, match=r"0001\.npy is damaged or missing"):
        made[1]


def test_without_a_folder_blocks_stay_in_memory_and_are_not_stored():
    assert filled(None, held=0.0).finished == 3
    assert Blocks(SHAPES).finished == 0


def test_blocks_count_as_finished_up_to_the_first_missing_one(tmp_path: Path):
    filled(tmp_path)
    (tmp_path / "0001.npy").unlink()
    assert Blocks(SHAPES, tmp_path).finished == 1


@pytest.mark.parametrize("content", [b"", b"no array", "truncated"])
def test_a_damaged_file_is_reported_with_what_to_do(tmp_path: Path, content):
    filled(tmp_path)
    path = tmp_path / "0001.npy"
    path.write_bytes(path.read_bytes()[:-4] if content == "truncated" else content)
    with pytest.raises(RunError, match=r"0001\.npy is damaged or missing: delete its folder"):
        Blocks(SHAPES, tmp_path)[1]


def test_a_block_is_never_half_written(tmp_path: Path, monkeypatch):
    made = Blocks(SHAPES, tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save", full)
    with pytest.raises(RunError, match="No space left on device; what was saved stays"):
        made[0] = torch.zeros(2, 3)
    assert list(tmp_path.iterdir()) == []
