"""What a run is called and what it asks: hashes of everything that can change its numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from rethinking import registry


class Configuration(Protocol):
    """A resolved configuration, of a network that is trained or of another task.

    name: what it is, in the name of its folder
    identity: the options that can change numbers, but for `dataset`, which is left to the data's name and fingerprint
    """

    @property
    def name(self) -> str: ...
    @property
    def randomization(self) -> str: ...
    @property
    def seed(self) -> int: ...
    def identity(self) -> dict[str, Any]: ...


def run_id(config: Configuration, data_name: str, fingerprint: str) -> str:
    """A readable name and a hash of everything that can change the numbers."""
    hashed = digest({**config.identity(), "dataset": data_name, "fingerprint": fingerprint})
    return f"{config.name}-{data_name}-{registry.plain(config.randomization)}-seed{config.seed}-{hashed}"


def question(config: Configuration, data_name: str, fingerprint: str) -> str:
    """A hash of what is asked, whatever machine and precision answers it."""
    return question_of_identity(config.identity(), data_name, fingerprint)


def question_of_identity(identity: Mapping[str, Any], data_name: str, fingerprint: str) -> str:
    """The hash that `question` gives, from what a configuration's `identity` gave."""
    asked = {**identity, "dataset": data_name, "fingerprint": fingerprint}
    return digest({name: value for name, value in asked.items() if name not in ("device", "precision")})


def digest(identity: Mapping[str, Any]) -> str:
    """Ten letters of the SHA-256 of options by name, in whatever order."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]
