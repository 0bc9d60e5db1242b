"""The catalogue of networks: how to build each, its defaults, and the images it takes. Your own networks join it here.

`--model` takes a name from the catalogue, `FILE.py:FUNCTION` or `package.module:FUNCTION`. The function returns an
`nn.Module` that maps float images (batch, channels, height, width) to logits (batch, classes). It gets `num_classes`
and `input_shape`, (channels, height, width), if it has these parameters. No network has to be registered; `register`
gives it a name and its own defaults:

    from rethinking.models.catalogue import register

    @register("resnet9", learning_rate=0.1)
    def resnet9(num_classes, input_shape): ...

PyTorch is imported when a network is built, because the command line needs only names and defaults.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from rethinking import registry
from rethinking.errors import InputError, in_one_line
from rethinking.models import signature
from rethinking.registry import Registry
from rethinking.source import place_of

if TYPE_CHECKING:
    from torch import nn

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Network:
    """A network by its function, with its defaults.

    function: the function that builds it, or its path `package.module:FUNCTION`
    learning_rate, weight_decay, init: the defaults that `ExperimentConfig` leaves to the network
    sides: smallest and largest side of the square images it takes, in pixels; None if it takes any images
    stackable: whether several copies can train as one computation, or side by side in threads; else they train one by
        one
    faster_together: the devices on which several copies train faster together than one by one
    """

    name: str
    function: Callable[..., Any] | str
    learning_rate: float = 0.01
    weight_decay: float = 0.0005
    init: str = "own"
    sides: tuple[int, int] | None = None
    stackable: bool = False
    faster_together: tuple[str, ...] = ()

    @property
    def is_own(self) -> bool:
        """Whether it is a user's own, so that its source and initial values are part of a run's identity."""
        return self.name not in PAPER

    @property
    def loaded(self) -> Callable[..., Any]:
        """The function. Raises `InputError` if it cannot be imported."""
        return registry.load(self.function) if isinstance(self.function, str) else self.function

    def build(self, num_classes: int, input_shape: signature.Shape, options: Mapping[str, Any]) -> nn.Module:
        """Returns a new network. Raises `InputError` if its function fails or returns no network."""
        from torch import nn

        arguments = self.arguments(num_classes, input_shape, options)
        model = self._call({**arguments, **options})
        if not isinstance(model, nn.Module):
            raise InputError(f"{self.name} must return a torch.nn.Module, not {type(model).__name__}")
        return model

    def arguments(self, num_classes: int, input_shape: signature.Shape, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments that its function gets from the data, by name.

        A function that takes any keyword passes them to the class it builds, so parameters of the class count too.
        Raises `InputError` if an option is the name of such an argument.
        """
        from torch import nn

        function = self.loaded
        if isinstance(function, nn.Module):
            raise InputError(
                f"{self.name} is a network, not a function that builds one; give a function, such as one that returns"
                " copy.deepcopy of the network"
            )
        parameters = signature.parameters_of(function)
        arguments = signature.by_our_names(parameters, num_classes, input_shape)
        if twice := arguments.keys() & options.keys():
            raise InputError(f"{min(twice)} is the data's, not an option of {self.name}; leave it out")
        arguments |= signature.by_other_names(parameters, num_classes, input_shape, (*arguments, *options))
        if signature.takes_any_keyword(parameters):
            arguments |= self._arguments_of_class(num_classes, input_shape, arguments, options)
        return arguments

    def _arguments_of_class(
        self, num_classes: int, input_shape: signature.Shape, arguments: Mapping[str, Any], options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns the arguments for the class that its function builds; none if the function refuses them."""
        from rethinking.seeding import global_streams

        key = (self, num_classes, input_shape, repr(options))
        if key not in _of_class:
            _of_class[key] = {}
            with global_streams(0, "first built"), contextlib.suppress(InputError):  # the run's draws stay the same
                parameters = signature.parameters_of_class(type(self._call({**arguments, **options})))
                given = (*arguments, *options)
                if more := signature.by_other_names(parameters, num_classes, input_shape, given):
                    self._call({**arguments, **options, **more})
                    _of_class[key] = more
        return _of_class[key]

    def _call(self, arguments: Mapping[str, Any]) -> Any:
        """Returns what its function returns. Raises `InputError` if the function fails."""
        function = self.loaded
        folder = registry.folder_of(function)
        try:
            with registry.beside(folder) if folder else contextlib.nullcontext():
                return function(**arguments)
        except Exception as error:  # a user's function may raise any type
            if self.name in PAPER:
                raise
            raise InputError(f"{self.name} cannot be built: {in_one_line(error)}{place_of(error)}") from error


_of_class: dict[tuple[object, ...], dict[str, Any]] = {}


NETWORKS: Registry[Network] = Registry("model_name", "rethinking.networks")


def register(name: str, **defaults: Any) -> Callable[[Function], Function]:
    """Registers the decorated function under `name`, with defaults as in `Network`.

    Raises `ValueError` for a name that the package itself uses.
    """

    def add(function: Function) -> Function:
        NETWORKS.register(name)(Network(name, function, **defaults))
        return function

    return add


def find(name: str) -> Network:
    """Returns the network of that name or path. Raises `InputError` if there is none."""
    found: Any = _adopted.get(name) or NETWORKS.find(name)
    if isinstance(found, Network):
        return found
    if not callable(found):
        raise InputError(f"{name} must be a function that returns a network, not {type(found).__name__}")
    known = (network for _, network in NETWORKS.registered() if network.function is found)
    return replace(next(known, Network(name, found)), name=name)


def adopt(function: Callable[..., Any]) -> str:
    """Makes a function or network given in Python known in this process. Returns its name, as `--model` takes it.

    If it is a network, an `nn.Module`, every run trains a copy: the current weights are the initial ones.
    """
    nn = sys.modules.get("torch.nn")  # without PyTorch there is no network yet
    if nn is not None and isinstance(function, nn.Module):
        return _adopt_copies_of(function)
    if not callable(function):
        raise InputError(
            f"a network must be a function that builds one, or an nn.Module, not {type(function).__name__}"
        )
    inner = function
    while hasattr(inner, "func"):  # functools.partial
        inner = inner.func
    module, name = inspect.getmodule(inner), getattr(inner, "__qualname__", type(inner).__qualname__)
    file = getattr(module, "__file__", None)
    where = file if getattr(module, "__name__", "__main__") == "__main__" and file else getattr(module, "__name__", "")
    path = registry.absolute(f"{where or '__main__'}:{name}")
    known = next((network for _, network in NETWORKS.registered() if network.function is function), None)
    _adopted[path] = replace(known, name=path) if known else Network(path, function)
    return path


def has_bound_arguments(name: str) -> bool:
    """Whether the name is that of a `functools.partial` given in Python, so that some arguments are already bound."""
    return name in _adopted and hasattr(_adopted[name].function, "func")


def _adopt_copies_of(network: nn.Module) -> str:
    """Names the network by class and content, so that two networks of one class stay apart."""
    from rethinking.models.inspection import digest

    original = copy.deepcopy(network).cpu()  # later changes of the given network do not count

    def build() -> nn.Module:
        return copy.deepcopy(original)

    kind = type(network)
    path = f"{kind.__module__}:<{kind.__qualname__} {digest(build, original)[:8]}>"
    _adopted[path] = Network(path, build)
    return path


_adopted: dict[str, Network] = {}

# The five networks of Table 1. Appendix A gives the learning rates. The paper gives no numbers for weight decay, "the
# default coefficient for each model", and no initial weights.
for _name, _module, _learning_rate, _weight_decay, _init, _faster_together in (
    ("small_inception", "inception", 0.1, 0.0005, "he", ()),
    # With He's initialization and the paper's learning rate this network's loss is not finite within an epoch.
    ("small_inception_no_bn", "inception", 0.1, 0.0005, "lecun", ()),
    # With He's initialization this network's test accuracy is five points below Table 1's (docs/differences.md).
    ("small_alexnet", "alexnet", 0.01, 0.0005, "pytorch", ("cuda",)),
    ("mlp_1x512", "mlp", 0.01, 0.0001, "he", ("cpu", "cuda")),
    ("mlp_3x512", "mlp", 0.01, 0.0001, "he", ("cpu", "cuda")),
):
    NETWORKS.register(_name)(
        Network(
            _name,
            f"rethinking.models.{_module}:{_name}",
            _learning_rate,
            _weight_decay,
            _init,
            sides=(28, 224),
            stackable=True,
            faster_together=_faster_together,
        )
    )

PAPER = NETWORKS.reserve()
