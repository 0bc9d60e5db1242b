import mmap
from pathlib import Path

import pytest

from rethinking.errors import InputError
from rethinking.theory import memory
from rethinking.theory.blocks import nbytes, triangle
from rethinking.theory.kernel_machine import KernelMachineConfig

MNIST = (60_000, 1, 28, 28)
CIFAR10 = (50_000, 3, 32, 32)
GIB = 2**30


@pytest.fixture(autouse=True)
def _a_laptop(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 20 * GIB)
    monkeypatch.setattr(memory, "_free_disk", lambda folder: 100 * GIB)


FOLDERS = (Path("runs/factor"), Path("runs/sums"))


def config(**options) -> KernelMachineConfig:
    return KernelMachineConfig(dataset="digits", device="cpu", **options)


def test_all_of_mnist_fits_a_laptops_memory_and_is_kept_as_it_grows():
    plan = memory.plan(config(), MNIST, 10_000, *FOLDERS)
    assert plan.held_factor == nbytes(triangle(60_000))
    assert plan.keep_factor
    assert 8.5 * GIB < plan.memory < 12 * GIB, "8.2 were measured"
    assert plan.said == "6.8 GiB of matrices in memory, kept on disk as they grow"


def test_a_smaller_limit_keeps_the_rest_on_disk():
    plan = memory.plan(config(memory_limit=4.0), MNIST, 10_000, *FOLDERS)
    assert plan.keep_factor
    assert plan.held_factor < 3 * GIB
    assert plan.memory <= 4 * GIB
    assert "the rest on disk" in plan.said


def test_random_convolutional_features_share_the_memory_with_their_sums():
    options = {"features": "random_conv", "filters": 32_000}
    plan = memory.plan(config(**options), CIFAR10, 10_000, *FOLDERS)
    assert plan.held_factor + plan.held_sums <= 16 * GIB
    assert plan.memory < 16 * GIB
    limited = memory.plan(config(**options, memory_limit=6.0), CIFAR10, 10_000, *FOLDERS)
    assert limited.memory <= 6 * GIB
    assert 0 < limited.held_sums < plan.held_sums


@pytest.mark.parametrize("limit", [4.0, 5.0, 8.0, 12.0])
@pytest.mark.parametrize("options", [{"features": "random_conv", "filters": 4000}, {}], ids=["random_conv", "pixels"])
def test_a_limit_also_holds_during_a_search(limit, options):
    options = options | ({"l2": "search"} if options else {})
    if not options and limit < 6:
        return  # more than that is needed
    plan = memory.plan(config(**options, memory_limit=limit), CIFAR10, 10_000, *FOLDERS)
    assert plan.memory <= limit * GIB
    assert min(plan.held_factor, plan.held_sums) >= 0


@pytest.mark.parametrize("limit", [0.5, 1.0])
def test_too_little_memory_is_reported_before_anything_begins(limit):
    with pytest.raises(InputError, match=r"takes at least \d\.\d GiB of memory, and .* are allowed; take fewer images"):
        memory.plan(config(memory_limit=limit), MNIST, 10_000, *FOLDERS)


def test_too_little_memory_and_disk_is_reported_before_anything_begins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "_free_disk", lambda folder: 3 * GIB)
    with pytest.raises(InputError, match=r"6\.8 GiB on the disk of .*, of which 3\.0 are free"):
        memory.plan(config(memory_limit=4.0), MNIST, 10_000, *FOLDERS)
    assert not memory.plan(config(), MNIST, 10_000, *FOLDERS).keep_factor, "memory alone will do"


def test_stored_blocks_are_used_even_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "_free_disk", lambda folder: 3 * GIB)
    asked = config(features="random_conv", filters=1000)
    factor, sums = tmp_path / "factor", tmp_path / "sums"
    fresh = memory.plan(asked, CIFAR10, 10_000, factor, sums)
    assert not fresh.keep_factor
    assert not fresh.keep_sums
    assert "not kept on the way: the disk has 3.0 of" in fresh.said
    for folder in (factor, sums / "500"):
        folder.mkdir(parents=True)
        (folder / "0000.npy").write_bytes(b"x" * 1000)
    again = memory.plan(asked, CIFAR10, 10_000, factor, sums)
    assert again.keep_factor
    assert again.keep_sums


def test_small_problems_are_not_kept():
    assert not memory.plan(config(), (5000, 1, 28, 28), 1000, *FOLDERS).keep_factor


def test_filters_that_are_summed_are_not_counted_again():
    options = {"features": "random_conv", "filters": 2000}
    fresh, after = (memory.operations(config(**options), CIFAR10, 10_000, summed) for summed in (0, 1500))
    solving = memory.operations(config(**options), CIFAR10, 10_000, 2000)
    assert after - solving == pytest.approx((fresh - solving) / 4)
    assert solving == pytest.approx(50_000**3 / 3)


def test_the_options_of_the_filters_count():
    plain, more = (
        config(features="random_conv", filters=1000, filter_options=text)
        for text in (None, "mirror=True, pool_size=15, pool_stride=6")
    )
    responses, products = 2 * 60_000 * 27**2 * 108 * 1000, 1000 * (50_000**2 + 2 * 50_000 * 10_000)
    difference = memory.operations(more, CIFAR10, 10_000) - memory.operations(plain, CIFAR10, 10_000)
    assert difference == pytest.approx(3 * responses + (18 - 8) * products)
    peaks = [memory.plan(one, CIFAR10, 10_000, *FOLDERS).memory for one in (plain, more)]
    assert peaks[1] - peaks[0] >= 4 * (18 - 8) * 500 * 60_000


def test_the_peak_is_measured_anew():
    memory.forget_peak()
    before = memory.peak()
    with mmap.mmap(-1, 200 << 20) as block:  # from the system, whatever this process has freed and kept
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        assert memory.peak() > before + (150 << 20)
    memory.forget_peak()
    assert memory.peak() < before + (100 << 20)
