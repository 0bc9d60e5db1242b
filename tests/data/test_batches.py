import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from rethinking.data import operators, randomization
from rethinking.data.batches import AHEAD, Batches, StreamedBatches, lockstep, read_ahead
from rethinking.data.draws import RandomizedSplit
from rethinking.data.preprocessing import AugmentationDraws, Preprocessing
from rethinking.seeding import generator

CPU = torch.device("cpu")
PIPELINES = {
    "plain": Preprocessing(28),
    "random_crop": Preprocessing(28, random_crop=True),
    "flip_rotate": Preprocessing(28, flip_rotate=True),
    "both": Preprocessing(28, random_crop=True, flip_rotate=True),
}
OPERATORS = ["none", "shuffled_pixels", "random_pixels", "gaussian_pixels"]


def split(operator: str = "none", images: int = 300, on_disk: bool = False, rows: bool = False) -> RandomizedSplit:
    """Random images with labels; `rows` selects some of more images, in the order of `rows`."""
    pixels = torch.randint(256, (images, 3, 32, 32), generator=generator(0, "test"), dtype=torch.uint8)
    labels = torch.arange(images) % 10
    plain = RandomizedSplit(pixels, labels, labels, on_disk=on_disk)
    if rows:
        places = torch.randperm(images, generator=generator(0, "places"))
        plain = replace(plain, images=torch.cat([pixels[places.argsort()], pixels]), rows=places)
    made = operators.create(operator, None, {})
    return randomization.apply(made, plain, None, num_classes=10, positions=28 * 28, seed=0)[0]


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_batch_is_the_pipeline_applied_to_its_rows_one_at_a_time(operator, pipeline, channels_last):
    data, preprocessing = split(operator), PIPELINES[pipeline]
    batches = Batches(data, preprocessing, CPU, channels_last)
    draws = AugmentationDraws.of_epoch(len(data), 5, 3, CPU)
    for rows, images, labels in batches.training_epoch(seed=5, epoch=3, batch_size=128):
        assert torch.equal(labels, data.labels[rows])
        if channels_last:
            assert images.is_contiguous(memory_format=torch.channels_last)
        for position in range(0, len(rows), 40):
            row = rows[position : position + 1]
            own = (
                data.permutation[row]
                if data.permutation is not None and data.permutation.dim() == 2
                else data.permutation
            )
            if preprocessing.augments:
                expected = preprocessing.augmented(data.images[row], draws[row], own)
            else:
                expected = preprocessing.plain(data.images[row], own)
            torch.testing.assert_close(images[position : position + 1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_bfloat16_batches_are_the_float32_ones_rounded(pipeline, channels_last):
    single = Batches(split("random_pixels"), PIPELINES[pipeline], CPU, channels_last)
    rounded = Batches(split("random_pixels"), PIPELINES[pipeline], CPU, channels_last, torch.bfloat16)
    for (_, images, _), (_, of_bf16, _) in zip(
        single.training_epoch(0, 1, 128), rounded.training_epoch(0, 1, 128), strict=True
    ):
        assert of_bf16.stride() == images.stride()
        assert torch.equal(of_bf16, images.bfloat16())


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_in_order_batches_are_never_augmented(pipeline):
    data = split()
    batches = Batches(data, PIPELINES[pipeline], CPU, channels_last=False)
    images = torch.cat([images for images, _ in batches.in_order(77)])
    torch.testing.assert_close(images, PIPELINES["plain"].plain(data.images))
    assert torch.equal(torch.cat([labels for _, labels in batches.in_order(77)]), data.labels)


def test_an_epoch_visits_every_image_once_and_keeps_the_last_partial_batch():
    batches = Batches(split(), PIPELINES["plain"], CPU, channels_last=False)
    rows = [rows for rows, _, _ in batches.training_epoch(0, 1, 128)]
    assert [len(part) for part in rows] == [128, 128, 44]
    assert torch.equal(torch.cat(rows).sort().values, torch.arange(300))


def test_orders_differ_by_epoch_and_seed_and_can_be_replayed():
    batches = Batches(split(), PIPELINES["plain"], CPU, channels_last=False)

    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat([rows for rows, _, _ in batches.training_epoch(seed, epoch, 128)]).tolist()

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(0, 1)), tuple(order(0, 2)), tuple(order(1, 1))}) == 3


def test_randomized_pixels_are_identical_in_every_epoch():
    """An image keeps its pixels in any epoch and any batch; they are not drawn again."""
    batches = Batches(split("random_pixels"), PIPELINES["plain"], CPU, channels_last=True)

    def in_stored_order(epoch: int, batch_size: int) -> torch.Tensor:
        parts = list(batches.training_epoch(0, epoch, batch_size))
        rows, images = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        return images[rows.argsort()]

    assert torch.equal(in_stored_order(1, 128), in_stored_order(2, 50))


def test_augmentation_draws_do_not_depend_on_the_batch_size():
    batches = Batches(split(), PIPELINES["both"], CPU, channels_last=False)

    def in_stored_order(batch_size: int) -> torch.Tensor:
        parts = list(batches.training_epoch(0, 1, batch_size))
        rows, images = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        return images[rows.argsort()]

    torch.testing.assert_close(in_stored_order(128), in_stored_order(31))


def test_runs_in_lockstep_each_have_the_order_and_images_of_their_own_seed_and_epoch():
    """Epochs, seeds and labels differ, as after one run was interrupted."""
    first, second = (Batches(split(name), PIPELINES["both"], CPU, False) for name in ("none", "random_pixels"))
    second.labels = (second.labels + 1) % 10
    runs = [(first, 0, 3), (second, 0, 5), (first, 1, 3), (second, 1, 1)]
    splits, seeds, epochs = zip(*runs, strict=True)
    alone = [each.training_epoch(seed, epoch, 128) for each, seed, epoch in runs]
    for together, *own in zip(lockstep(splits, seeds, epochs, 128), *alone, strict=True):
        for place, (rows, images, labels) in enumerate(own):
            assert torch.equal(together.rows[place], rows)
            assert torch.equal(together.images[place], images)
            assert torch.equal(together.labels[place], labels)


def test_runs_that_see_the_same_in_the_same_order_share_one_batch_of_images():
    one = Batches(split(), PIPELINES["plain"], CPU, channels_last=False)
    other = one.relabelled(replace(split(), labels=(split().labels + 3) % 10))
    alone = one.training_epoch(2, 4, 128)
    for together, (rows, images, labels) in zip(lockstep([one, other], (2, 2), (4, 4), 128), alone, strict=True):
        assert torch.equal(together.rows, rows.expand(2, -1))
        assert torch.equal(together.images, images[None])
        assert torch.equal(together.labels, torch.stack([labels, (labels + 3) % 10]))


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("pipeline", ["plain", "both"])
@pytest.mark.parametrize(("channels_last", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_batches_read_ahead_equal_those_in_memory_bit_for_bit(operator, pipeline, rows, channels_last, dtype):
    """The last batch has one image, or fewer than the others."""
    made = PIPELINES[pipeline], CPU, channels_last, dtype
    resident = Batches(split(operator, 129), *made)
    streamed = StreamedBatches(split(operator, 129, on_disk=True, rows=rows), *made)
    pairs = [
        *zip(resident.training_epoch(1, 2, 64), streamed.training_epoch(1, 2, 64), strict=True),
        *zip(resident.in_order(50), streamed.in_order(50), strict=True),
    ]
    assert len(pairs) == 6
    for expected, read in pairs:
        for one, other in zip(expected, read, strict=True):
            assert torch.equal(one, other)
            assert one.stride() == other.stride()
    some = torch.tensor([128, 3, 3])
    assert torch.equal(resident.images(some), streamed.images(some))


@pytest.mark.parametrize("operator", OPERATORS)
def test_draws_for_images_on_disk_have_the_same_fingerprint(operator):
    whole = replace(split(operator), redrawn=True)
    part = replace(split(operator, on_disk=True, rows=True), redrawn=True)
    assert whole.fingerprint() == part.fingerprint()


@pytest.mark.parametrize("shape", [(3, 120, 120), (1, 28, 28)])
def test_an_image_is_whitened_alike_in_every_batch(shape):
    """This holds for one large image too, whose sum PyTorch would divide among threads."""
    images = torch.rand(65, *shape, generator=generator(0, "test"))
    plain = Preprocessing(shape[1:])
    together = plain.plain(images)
    for size in (1, 2, 16, 64):
        assert torch.equal(torch.cat([plain.plain(part) for part in images.split(size)]), together)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_runs_in_lockstep_may_have_images_on_disk_and_in_memory():
    first = Batches(split(), PIPELINES["both"], CPU, False)
    second = StreamedBatches(split("random_pixels", on_disk=True), PIPELINES["both"], CPU, False)
    twin = Batches(split("random_pixels"), PIPELINES["both"], CPU, False)
    mixed = lockstep([first, second, second], (0, 0, 1), (1, 1, 4), 128)
    expected = lockstep([first, twin, twin], (0, 0, 1), (1, 1, 4), 128)
    for one, other in zip(mixed, expected, strict=True):
        assert all(torch.equal(*parts) for parts in zip(one, other, strict=True))
    streamed = StreamedBatches(split(on_disk=True), PIPELINES["plain"], CPU, False)
    other_labels = streamed.relabelled(replace(split(), labels=(split().labels + 3) % 10))
    assert other_labels.shows_images_of(streamed)
    (images,) = {len(batch.images) for batch in lockstep([streamed, other_labels], (2, 2), (4, 4), 128)}
    assert images == 1, "read once for both"
    assert not readers()


def test_the_stated_number_of_batches_is_read_ahead():
    begun: list[int] = []
    reading = read_ahead(lambda part: begun.append(int(part)) or int(part) * 10, torch.arange(20).split(1))
    assert not readers(), "nothing is read before the first is asked for"
    assert next(reading) == 0
    assert max(begun) <= AHEAD
    assert [*reading] == [10 * part for part in range(1, 20)]
    assert begun == [*range(20)]
    assert not readers()


def test_an_error_while_reading_ahead_is_raised_unchanged_at_its_batch():
    wrong = OSError("the disk is gone")

    def read(part: torch.Tensor) -> int:
        if int(part) == 2:
            raise wrong
        return int(part)

    reading = read_ahead(read, torch.arange(20).split(1))
    assert [next(reading), next(reading)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone") as raised:
        next(reading)
    assert raised.value is wrong
    assert not readers()


@pytest.mark.parametrize("of", ["training_epoch", "in_order", "lockstep"])
def test_the_reading_thread_ends_when_no_more_batches_are_taken(of):
    streamed = StreamedBatches(split(on_disk=True), PIPELINES["plain"], CPU, False)
    batches: dict[str, Iterator[object]] = {
        "training_epoch": streamed.training_epoch(0, 1, 10),
        "in_order": streamed.in_order(10),
        "lockstep": lockstep([streamed, streamed], (0, 1), (1, 1), 10),
    }
    next(batches[of])
    assert len(readers()) == (2 if of == "lockstep" else 1)
    batches[of].close()
    assert not readers()
