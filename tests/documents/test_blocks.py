"""Every block of code in the documents runs, or is parsed where it says what it needs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.documents.blocks import blocks, commands, follow, followed_once

README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DOCS = ROOT / "docs"
CHECKED = (README, DOCS / "python.md", DOCS / "data.md", DOCS / "testing.md")  # by the tests that follow them below
OTHERS = sorted({CONTRIBUTING, *DOCS.rglob("*.md")} - {*CHECKED})


@pytest.mark.parametrize("document", OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_of_a_document_runs(document: Path, tmp_path_factory: pytest.TempPathFactory):
    _, printed = followed_once(tmp_path_factory, document)
    assert len(printed) == len(blocks(document))


def test_the_readmes_lines_print_what_it_says(tmp_path: Path):
    """The same words; where the hardware rounds otherwise, numbers near those."""
    _, outputs = follow(README, tmp_path)
    (printed,) = filter(None, outputs)
    (shown,) = [block.text for block in blocks(README) if block.language == "text"]
    number = r"\d[\d,]*(?:\.\d+)?"
    in_words, in_readme = (re.sub(number, "N", text).split() for text in (printed, shown))
    assert in_words == in_readme, printed
    measured, written = (
        [float(found.replace(",", "")) for found in re.findall(number, text)] for text in (printed, shown)
    )
    assert all(is_near(*numbers) for numbers in zip(measured, written, strict=True)), printed


def is_near(measured: float, written: float) -> bool:
    """Epochs and percentages may differ by a quarter or by one; correlations and bounds by a twentieth."""
    return abs(measured - written) <= (max(written / 4, 1) if written > 3 else written / 20)


def test_the_page_from_python_prints_what_it_says(tmp_path: Path):
    document = DOCS / "python.md"
    names, outputs = follow(document, tmp_path)
    one, again, many, memorizing = outputs
    assert "mlp_1x512-digits-random_labels-seed0" in one
    assert again == "30\n"
    assert sorted(line[0] for line in many.splitlines()) == list("0123")
    assert memorizing.splitlines() == ["tensor(True)"] * 2
    first = names["memorizing_network"](names["points"], names["targets"])
    assert f"{sum(weights.numel() for weights in first.parameters()):,} weights" in blocks(document)[-1].text


def test_the_page_on_data_reads_and_randomizes_what_it_says(tmp_path: Path):
    names, _ = follow(DOCS / "data.md", tmp_path)
    assert names["result"].result["dataset"] == "small_digits-resize28"
    assert names["result"].final["test_accuracy"] > 0.5
    assert torch.equal(names["record"].labels, names["made"].record.labels)
    assert 0.85 < names["record"].changed.double().mean() < 0.95, "nine of ten draws are other classes"
    assert names["noisy"].data[0].shape == (1500, 8, 8)
    assert names["noisy"].data[0].dtype == np.uint8
    assert names["test_labels"].tolist() == names["labels"][1500:].tolist()
    assert 0.2 < names["partly"].record.changed.double().mean() < 0.34


def test_the_page_on_testing_leaves_what_it_says(tmp_path: Path):
    names, _ = follow(DOCS / "testing.md", tmp_path)
    report = names["report"]
    right = names["logits"].argmax(1).numpy() == names["y"][200:]
    assert right.mean() == pytest.approx(report["true"].final["test_accuracy"], abs=0.011), "one image is 0.01"
    assert list(report) == list(names["table"]["condition"]) == ["true", "random", "0.5", "shuffled_pixels"]
    assert report["random"].final["exact_train_accuracy"] == report.run("random", 0).final["exact_train_accuracy"]
    text = (DOCS / "testing.md").read_text(encoding="utf-8")
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left - {".lock"} == set(re.findall(r"`([a-z]+\.[a-z]+)`", text.partition("## Files it writes")[2]))


def test_a_reader_may_follow_start_and_train_in_one_folder(tmp_path: Path):
    for document in (DOCS / "index.md", DOCS / "training.md"):
        follow(document, tmp_path)
    assert len([*(tmp_path / "runs").glob("mlp_1x512-digits-*")]) == 2, "the second page takes up the runs of the first"


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


IN_LISTS = """
Text

<!-- needs: a GPU -->
```bash
python train.py
```

- one

    ```python
    x = 1
    ```

<!-- needs: no block -->

Text

```text
shown
```
"""


def test_blocks_are_found_in_lists_and_with_their_markers(tmp_path: Path):
    found = blocks(page(tmp_path, IN_LISTS))
    assert [(block.place, block.language, block.text, block.needs) for block in found] == [
        ("page.md:5", "bash", "python train.py\n", "a GPU"),
        ("page.md:11", "python", "x = 1\n", ""),
        ("page.md:19", "text", "shown\n", ""),
    ]


WHOLE_PAGE = """
```python
# ours.py
print("ours")
VALUE = 3
```
```python
from ours import VALUE
```
```bash
python ours.py > printed &
wait
cat printed
```
```python
print(VALUE, open("printed").read())
```
"""


def test_names_files_and_the_folder_last_for_a_whole_page(tmp_path: Path):
    names, printed = follow(page(tmp_path, WHOLE_PAGE), tmp_path)
    assert names["VALUE"] == 3
    assert printed == ["", "ours\n", "ours\n", "3 ours\n\n"]


LOOP = """<!-- needs: cifar10 -->
```bash
for seed in 0 1; do
  A=1 rethinking train --seed $seed --lr x > out
done
```
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```\npython train.py\n```", "unknown language ''"),
        ("    indented", "unknown language ''"),
        ("```sh\nls\n```", "unknown language 'sh'"),
        ("```python\n1 / 0\n```", "division by zero"),
        ("<!-- needs: a GPU -->\n```python\nx = = 1\n```", "invalid syntax"),
        ("```bash\npip install .\n```", "put <!-- needs: ... --> before the block"),
        ("```bash\nfalse\n```", "exit status 1"),
        ("```bash\nrethinking train --modle x\n```", "unknown option"),
        ("```bash\nrethinking train --modle x &\nwait\n```", "unknown option"),
        ("<!-- needs: cifar10 -->\n```bash\npython train.py --modle x\n```", "unknown option"),
        (LOOP, "--lr takes FLOAT"),
        ("<!-- needs: cifar10 -->\n```bash\npython reproduce.py table9\n```", "table9"),
        ("<!-- needs: cifar10 -->\n```bash\nrethinking test mlp_1x512 --epoch 3\n```", "unknown option"),
        ("<!-- needs: cifar10 -->\n```bash\nrethinking cache --remove_al\n```", "unknown option"),
        ("<!-- needs: time -->\n```bash\npython benchmarks/growth.py --unheard 3\n```", "2"),
        ("<!-- needs: make -->\n```bash\nmake dmeo\n```", "the Makefile lacks"),
        ("<!-- needs: it -->\n```bash\nunheard\n```", "unknown command"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, said: str):
    with pytest.raises((Exception, SystemExit), match=said) as told:
        follow(page(tmp_path, text), tmp_path)
    assert told.value.__notes__ == ["in the block at page.md:" + ("2" if text.startswith("<!--") else "1")]


SHELL = """
A=1 rethinking train --seed 3 \\
  --force &
for seed in 0 1; do
  python train.py --seed $seed | tail -1
done
wait
# no command
"""


def test_commands_are_taken_out_of_shell_syntax():
    assert list(commands(SHELL)) == [
        ["rethinking", "train", "--seed", "3", "--force"],
        ["python", "train.py", "--seed", "0"],
        ["tail", "-1"],
    ]
