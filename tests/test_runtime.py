"""Settings that are made before PyTorch is loaded, in processes of their own."""

import json
import os
import subprocess
import sys

import pytest

NAMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "THP_MEM_ALLOC_ENABLE")
CODE = f"""
import json, os, sys
import rethinking
late = "torch" in sys.modules
print(json.dumps([late, {{name: os.environ.get(name) for name in {NAMES}}}]))
"""


def after_import(**own: str) -> dict[str, str | None]:
    environment = {name: value for name, value in os.environ.items() if name not in (*NAMES, "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=environment | own, capture_output=True, text=True, check=True, timeout=1200)
    late, found = json.loads(done.stdout)
    assert not late, "PyTorch was imported before it could read them"
    return found


def test_threads_spin_briefly_and_tensors_lie_on_huge_pages():
    assert after_import() == {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1", "THP_MEM_ALLOC_ENABLE": "1"}


@pytest.mark.parametrize("name", NAMES)
def test_a_users_own_setting_stays(name: str):
    assert after_import(**{name: "0"})[name] == "0"


def test_a_users_own_wait_policy_stays():
    assert after_import(OMP_WAIT_POLICY="passive") == {
        "GOMP_SPINCOUNT": None,
        "KMP_BLOCKTIME": None,
        "THP_MEM_ALLOC_ENABLE": "1",
    }
