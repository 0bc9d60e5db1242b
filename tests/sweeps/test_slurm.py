"""The script of `docs/sweeps.md` for an array of SLURM jobs, run as several processes on one folder."""

import os
import subprocess
import sys
from pathlib import Path

from rethinking import load_run
from rethinking.experiments import archive
from tests.conftest import ROOT
from tests.documents.blocks import blocks

JOBS = 3
GRID = """
model: mlp_1x512
dataset: digits
corruption_prob: [0, 1]
num_epochs: 2
train_subset: 200
"""


def script() -> str:
    (found,) = [block.text for block in blocks(ROOT / "docs" / "sweeps.md") if "#SBATCH" in block.text]
    return found


def test_the_jobs_of_an_array_share_the_list(tmp_path: Path):
    (tmp_path / "grid.yaml").write_text(GRID)
    program = tmp_path / "bin" / "rethinking"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "src/rethinking/__main__.py"}" "$@"\n')
    program.chmod(0o755)
    jobs = [
        subprocess.Popen(
            ["bash", "-c", script()],
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{program.parent}:{os.environ['PATH']}",
                "SLURM_CPUS_PER_TASK": "1",
                "SLURM_ARRAY_TASK_ID": str(job),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for job in range(JOBS)
    ]
    printed = [job.communicate()[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * JOBS, printed
    runs = [load_run(folder) for folder in (tmp_path / "runs").iterdir()]
    assert len(runs) == 2 * 5, "two levels at the five seeds of the script"
    for run in runs:
        assert run.finished
        assert len(run.metrics) == 2
        assert len(list((run.path / "tensorboard").iterdir())) == 1, "a run that is trained twice has two of them"
    kept = archive.read(tmp_path / "swept" / "slurm")
    assert {run.path.name for run in runs} == kept.keys()
    assert all(evidence.finished for evidence in kept.values())
    shown = {text.split("Sweep over")[1] for text in printed}
    assert len(shown) == 1, "all print the same table"
    assert "5 seeds" in shown.pop()
