"""The steps between the data set and the network (Appendix A), on whole batches, on the device.

The order is: scale to 0-1, crop, augment, whiten, permute. Whitening uses the mean and standard deviation, which a
permutation of positions does not change. So permutations come last and combine with every other step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rethinking.seeding import generator

MAX_ROTATION = 25.0  # degrees, Section 3
ZERO_PADDING = 4  # pixels per side, before a random crop of images that are no larger than the crop


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing steps of one run.

    crop_size: side of the square crop, or its height and width, in pixels
    min_std: floor of the standard deviation in whitening, or 'tensorflow' for 1/sqrt(number of values)
    random_crop, flip_rotate: the augmentations, which act on training batches only
    """

    crop_size: int | tuple[int, int]
    min_std: float | str = 1e-8
    random_crop: bool = False
    flip_rotate: bool = False

    @property
    def augments(self) -> bool:
        """Whether training batches are augmented."""
        return self.random_crop or self.flip_rotate

    def plain(self, images: Tensor, permutation: Tensor | None = None) -> Tensor:
        """Preprocesses without augmentation.

        images: (n, channels, height, width) on the 0-255 scale; the result is float32 (n, channels, crop, crop)
        permutation: as in `RandomizedSplit`, for these images
        """
        return permute_pixels(whiten(scale(centre_crop(images, self.crop_size)), self.min_std), permutation)

    def augmented(self, images: Tensor, draws: AugmentationDraws, permutation: Tensor | None = None) -> Tensor:
        """Preprocesses with the augmentation `draws` of these images; shapes as in `plain`."""
        size = sides(self.crop_size)
        if self.random_crop and any(side <= cropped for side, cropped in zip(images.shape[-2:], size, strict=True)):
            images = F.pad(images, [ZERO_PADDING] * 4)
        margins = [side - cropped for side, cropped in zip(images.shape[-2:], size, strict=True)]
        # Margins stay Python numbers: a tensor of margins would be copied to the device for every batch.
        down, across = (
            drawn * (margin + 1) if self.random_crop else torch.full_like(drawn, margin // 2)
            for margin, drawn in zip(margins, draws.corner.unbind(dim=1), strict=True)
        )
        corners = torch.stack([down, across], dim=1).long()
        if self.flip_rotate:
            cropped = crop_flip_rotate(images, corners, self.crop_size, draws.flip, draws.angle)
        else:
            cropped = crop(images, corners, self.crop_size)
        return permute_pixels(whiten(scale(cropped), self.min_std), permutation)


@dataclass(frozen=True)
class AugmentationDraws:
    """One epoch's augmentation draws, one row per image.

    corner: position of the crop in [0, 1), float32 (n, 2)
    flip: whether the image is mirrored, bool (n,)
    angle: rotation in degrees, float32 (n,)
    """

    corner: Tensor
    flip: Tensor
    angle: Tensor

    @classmethod
    def of_epoch(cls, images: int, seed: int, epoch: int, device: torch.device) -> AugmentationDraws:
        """Draws for each of `images` images in `epoch`. The draws do not depend on the order of batches."""
        uniform = torch.rand(4, images, generator=generator(seed, "augmentation", epoch)).to(device)
        return cls(uniform[:2].T.contiguous(), uniform[2] < 0.5, (uniform[3] * 2 - 1) * MAX_ROTATION)

    def __getitem__(self, rows: Tensor) -> AugmentationDraws:
        return AugmentationDraws(self.corner[rows], self.flip[rows], self.angle[rows])


def scale(images: Tensor) -> Tensor:
    """Scales 0-255 to 0-1, float32."""
    return images.float() / 255.0


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns the height and width of a crop: a square if one side is given."""
    return (size, size) if isinstance(size, int) else size


def centre_crop(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Cuts out the centre: (..., h, w) to (..., height, width), for `size` a side or (height, width)."""
    height, width = sides(size)
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]


def crop(images: Tensor, corners: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Cuts out windows of `size` at `corners`: (n, c, h, w) to (n, c, height, width).

    corners: (top, left) of each window, int64 (n, 2)
    """
    down, across = (torch.arange(side, device=images.device) for side in sides(size))
    image = torch.arange(len(images), device=images.device)[:, None, None]
    rows, columns = corners[:, 0, None] + down, corners[:, 1, None] + across
    return images.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def crop_flip_rotate(
    images: Tensor, corners: Tensor, size: int | tuple[int, int], flip: Tensor, angle: Tensor
) -> Tensor:
    """Cuts out the window at `corners`, mirrors it where `flip`, and rotates it counter-clockwise by `angle` degrees.

    The rotation is about the window's centre, in one bilinear look-up. Pixels just outside the window fill its rotated
    corners; beyond the image it is black. Shapes as in `crop`; the result is float32.
    """
    height, width = sides(size)
    down, across = (torch.arange(side, device=images.device) - (side - 1) / 2 for side in (height, width))
    y, x = torch.meshgrid(down, across, indexing="ij")
    radians = angle[:, None, None] * (math.pi / 180)
    cos, sin = radians.cos(), radians.sin()
    # The source of the value at (y, x), first in the mirrored window, rows counted downwards, then in the window.
    source_y = cos * y + sin * x
    source_x = (cos * x - sin * y) * torch.where(flip, -1.0, 1.0)[:, None, None]
    # `grid_sample` takes coordinates in which -1 and 1 are the first and last pixel.
    grid_x = (corners[:, 1, None, None] + (width - 1) / 2 + source_x) * (2 / (images.shape[-1] - 1)) - 1
    grid_y = (corners[:, 0, None, None] + (height - 1) / 2 + source_y) * (2 / (images.shape[-2] - 1)) - 1
    grid = torch.stack([grid_x, grid_y], dim=-1)
    return F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def whiten(images: Tensor, min_std: float | str) -> Tensor:
    """Computes (x - mean) / max(std, min_std) over all values of each image (Appendix A); `std` is the population's.

    The first value of each image is subtracted beforehand. This changes only the rounding, and gives zeros for a flat
    image. An image has the same result in every batch. PyTorch would share the sum of a large image among threads if it
    were alone, so a single image is computed as two.
    """
    if len(images) == 1:
        return whiten(images.expand(2, -1, -1, -1), min_std)[:1]
    floor = 1.0 / math.sqrt(images[0].numel()) if isinstance(min_std, str) else min_std
    shifted = images - images[:, :1, :1, :1]
    centred = shifted - shifted.mean(dim=(1, 2, 3), keepdim=True)
    std = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return centred / std.clamp_min(floor)


def permute_pixels(images: Tensor, permutation: Tensor | None) -> Tensor:
    """Permutes positions: output position p of every channel takes the value at input position permutation[p].

    images: (n, channels, height, width)
    permutation: as in `RandomizedSplit`; None changes nothing
    """
    if permutation is None:
        return images
    flat = images.flatten(2)
    if permutation.dim() == 1:
        return flat[:, :, permutation.long()].reshape(images.shape)
    index = permutation.long()[:, None, :].expand(-1, flat.shape[1], -1)
    return flat.gather(2, index).reshape(images.shape)
