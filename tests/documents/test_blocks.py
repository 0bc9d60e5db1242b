"""Every block of code in the documents runs, or is parsed where it says what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.documents.blocks import blocks, commands, follow

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_of_a_document_runs(document: Path, tmp_path: Path):
    follow(document, tmp_path)


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
    assert printed == "ours\nours\n3 ours\n\n"


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
        ("```bash\nfalse\n```", ""),
        ("```bash\nrethinking train --modle x\n```", "unknown option"),
        ("```bash\nrethinking train --modle x &\nwait\n```", "unknown option"),
        ("<!-- needs: cifar10 -->\n```bash\npython train.py --modle x\n```", "unknown option"),
        (LOOP, "--lr takes FLOAT"),,
        ("<!-- needs: cifar10 -->\n```bash\npython reproduce.py table9\n```", "table9"),
        ("<!-- needs: cifar10 -->\n```bash\nrethinking test mlp_1x512 --epoch 3\n```", "unknown option"),
        ("<!-- needs: cifar10 -->\n```bash\nrethinking cache --remove_al\n```", "unknown option"),
        ("<!-- needs: time -->\n```bash\npython benchmarks/growth.py --unheard 3\n```", ""),
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
