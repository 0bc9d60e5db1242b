import datetime
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rethinking.errors import InputError
from rethinking.training import hardware
from rethinking.training.hardware import choose_products, has_native_bf16, provenance, resolve_device, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({}, False)],
)
def test_auto_precision_follows_the_processors_capabilities(monkeypatch, capabilities, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_native_bf16(CPU) is native
    assert resolve_precision("auto", CPU) == ("bf16" if native else "fp32")


@pytest.mark.parametrize("native", [True, False])
def test_older_versions_of_pytorch_are_supported(monkeypatch, native):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert has_native_bf16(CPU) is native


def test_a_given_precision_is_used():
    assert [resolve_precision(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert resolve_precision("tf32", torch.device("cuda")) == "tf32"
    with pytest.raises(InputError, match="precision tf32 needs CUDA, not cpu"):
        resolve_precision("tf32", CPU)


@pytest.fixture
def products_as_they_were():
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


@pytest.mark.usefixtures("products_as_they_were")
@pytest.mark.parametrize(("precision", "coarse"), [("fp32", False), ("bf16", False), ("tf32", True)])
def test_products_are_coarse_on_request_only(precision, coarse):
    choose_products(precision)
    assert torch.backends.cuda.matmul.allow_tf32 is coarse
    assert torch.backends.cudnn.allow_tf32 is coarse


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_device_is_refused_and_auto_finds_an_existing_one():
    with pytest.raises(InputError, match="device cuda is not available here"):
        resolve_device("cuda")
    assert resolve_device("auto").type in ("cpu", "mps")


def test_provenance_names_versions_hardware_precision_and_threads():
    made_on = provenance(CPU, "fp32")
    assert made_on["versions"]["torch"] == torch.__version__
    assert made_on["cpu_threads"] == torch.get_num_threads()
    assert made_on["precision"] == "fp32"
    assert made_on["hardware"]


def test_provenance_names_the_day_in_utc():
    day = datetime.date.fromisoformat(provenance(CPU, "fp32")["date"])
    assert abs(day - datetime.datetime.now(datetime.UTC).date()) <= datetime.timedelta(days=1)


def test_provenance_names_the_commit_of_a_checkout_and_none_for_a_copy_inside_another_repository(tmp_path):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def commit() -> str:
        code = "import sys, hardware; print(hardware.provenance(hardware.torch.device('cpu'), 'fp32')['commit'])"
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    (tmp_path / "hardware.py").write_bytes(Path(hardware.__file__).read_bytes())
    assert commit() == "None"
    git("add", "hardware.py")
    git("commit", "--quiet", "--message", "a checkout")
    assert commit() == git("rev-parse", "--short=12", "HEAD")
    with (tmp_path / "hardware.py").open("a") as file:
        file.write("# changed")
    assert commit() == git("rev-parse", "--short=12", "HEAD") + "-dirty"
