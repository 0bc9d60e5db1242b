"""Names runs and their questions by hashes of everything that can change their numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from rethinking import registry


class Configuration(Protocol):
    """A resolved configuration of a run: of a network's training or of another task."""

    @property
    def name(self) -> str:
        """The name of the network or task in the name of the run's folder."""

    @property
    def randomization(self) -> str:
        """The name or path of the randomization operator."""

    @property
    def seed(self) -> int:
        """The seed of the run."""

    def identity(self) -> dict[str, Any]:
        """Returns the options that can change numbers, without `dataset`.

        The data's name and fingerprint stand for `dataset`.
        """


def run_id(config: Configuration, data_name: str, fingerprint: str) -> str:
    """Returns the name of a run's folder: readable words and a hash of everything that can change the numbers."""
    hashed = digest({**config.identity(), "dataset": data_name, "fingerprint": fingerprint})
    return f"{config.name}-{data_name}-{registry.plain(config.randomization)}-seed{config.seed}-{hashed}"


def question(config: Configuration, data_name: str, fingerprint: str) -> str:
    """Returns a hash of what a run measures. Runs on other machines and in other precisions have the same hash."""
    return question_of_identity(config.identity(), data_name, fingerprint)


def question_of_identity(identity: Mapping[str, Any], data_name: str, fingerprint: str) -> str:
    """Returns the hash of `question` from a configuration's `identity()`."""
    options = {**identity, "dataset": data_name, "fingerprint": fingerprint}
    return digest({name: value for name, value in options.items() if name not in ("device", "precision")})


def digest(identity: Mapping[str, Any]) -> str:
    """Returns the first ten hexadecimal digits of the SHA-256 of options by name. Their order does not matter."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]
