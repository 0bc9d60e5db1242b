"""Serves `against_jax.py`: the same networks, batches and update in JAX.

A Python with JAX runs it. Its arguments are MODEL, PRECISION (fp32 or bf16), FORM (epoch: one jitted `lax.scan`; step:
each step jitted) and IMAGES. As in this project, whitened images lie on the device, and each epoch gathers its batches
in a new order.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BATCH, SIDE, CLASSES = 128, 28, 10
Layer = tuple[jax.Array, jax.Array]
State = tuple[list[Layer], list[Layer]]  # parameters and their momentum
HIDDEN = {"mlp_1x512": 1, "mlp_3x512": 3}


def network(model: str, draws: np.random.Generator) -> list[Layer]:
    """Draws He-initialized weights and zero biases: convolutions first, then linear layers."""
    shapes = [(5, 5, 3, 64), (5, 5, 64, 64)] if model not in HIDDEN else []
    sizes = [3 * SIDE * SIDE, *[512] * HIDDEN[model], CLASSES] if model in HIDDEN else [64 * 7 * 7, 384, 192, CLASSES]
    return [layer(draws, shape) for shape in [*shapes, *itertools.pairwise(sizes)]]


def layer(draws: np.random.Generator, shape: tuple[int, ...]) -> Layer:
    """Draws He-initialized weights of this shape, and zero biases."""
    scale = np.float32((2 / math.prod(shape[:-1])) ** 0.5)
    return jnp.asarray(draws.standard_normal(shape, dtype=np.float32) * scale), jnp.zeros(shape[-1])


def mlp_logits(parameters: list[Layer], images: jax.Array) -> jax.Array:
    """Computes the logits of an MLP, from images of shape (n, values)."""
    *hidden, (weight, bias) = parameters
    for layer_weight, layer_bias in hidden:
        images = jax.nn.relu(images @ layer_weight + layer_bias)
    return images @ weight + bias


def alexnet_logits(parameters: list[Layer], images: jax.Array) -> jax.Array:
    """Computes the logits in NHWC; local response normalization is a product with a band matrix, in float32."""
    images = images.reshape(-1, SIDE, SIDE, 3)
    position = np.arange(64)
    band = jnp.asarray((abs(position[:, None] - position[None, :]) <= 4) * np.float32(0.001 / 9))
    for weight, bias in parameters[:2]:
        images = lax.conv_general_dilated(images, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        window = ((0, 0), (1, 1), (1, 1), (0, 0))
        images = lax.reduce_window(images + bias, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), window)
        wide = jax.nn.relu(images).astype(jnp.float32)
        images = (wide * (1 + jnp.square(wide) @ band) ** -0.75).astype(images.dtype)
    return mlp_logits(parameters[2:], images.reshape(len(images), -1))


def main(model: str, precision: str, form: str, count: str) -> None:
    """Prints what it is in a line of JSON, then the mean seconds of an epoch for each line on standard input."""
    draws, images = np.random.default_rng(0), int(count)
    dtype = jnp.bfloat16 if precision == "bf16" else jnp.float32
    logits_of = mlp_logits if model in HIDDEN else alexnet_logits
    parameters = network(model, draws)
    velocity = jax.tree.map(jnp.zeros_like, parameters)
    pixels = jnp.asarray(draws.standard_normal((images, 3 * SIDE * SIDE), dtype=np.float32)).astype(dtype)
    labels = jnp.asarray(draws.integers(CLASSES, size=images))

    def loss_of(parameters: list[Layer], batch: jax.Array, targets: jax.Array) -> jax.Array:
        lowered = jax.tree.map(lambda one: one.astype(dtype), parameters)
        log_probabilities = jax.nn.log_softmax(logits_of(lowered, batch).astype(jnp.float32))
        return -jnp.take_along_axis(log_probabilities, targets[:, None], axis=1).mean()

    def step(state: State, rows: jax.Array) -> tuple[State, jax.Array]:
        parameters, velocity = state
        loss, gradients = jax.value_and_grad(loss_of)(parameters, pixels[rows], labels[rows])
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradients)
        parameters = jax.tree.map(lambda p, v: p - 1e-12 * v, parameters, velocity)
        return (parameters, velocity), loss

    whole = jax.jit(lambda state, order: lax.scan(step, state, order), donate_argnums=0)
    single = partial(jax.jit, donate_argnums=0)(step)
    state = (parameters, velocity)

    def epoch() -> float:
        nonlocal state
        started = time.perf_counter()
        order = jnp.asarray(draws.permutation(images).reshape(-1, BATCH))
        if form == "epoch":
            state, losses = whole(state, order)
        else:
            losses = []
            for rows in order:
                state, loss = single(state, rows)
                losses.append(loss)
        jax.block_until_ready((state, losses))
        return time.perf_counter() - started

    epoch()
    print(json.dumps({"images": images, "jax": jax.__version__}), flush=True)
    for line in sys.stdin:
        seconds = [epoch()]
        while sum(seconds) < float(line.split()[1]):
            seconds.append(epoch())
        print(json.dumps({"seconds": sum(seconds) / len(seconds)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
