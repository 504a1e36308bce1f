"""A Flax model, Linen or NNX, as a function of flat mappings from neutral names to arrays."""

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, NamedTuple

import jax
from flax import linen, nnx
from flax.errors import InvalidRngError
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from lockstep.errors import UserError
from lockstep.workloads.contract import Settings
from lockstep.workloads.naming import Names
from lockstep.workloads.taps import replaced_calls

Arrays = Mapping[str, Array]
Instead = Callable[..., Any]
"""Computes a layer: from its path, its module, its own call, and what that is called with."""


class Called(NamedTuple):
    """What a model gives: outputs, its buffers afterwards, and outputs of layers by their path."""

    outputs: dict[str, Array]
    buffers: dict[str, Array]
    layers: dict[str, Array]


def built(
    functions: ModuleType, model: Mapping[str, Any], settings: Settings, workload: str
) -> "Linen | Nnx":
    """Return a workload's model, which has no values yet."""
    lazy = []

    def build() -> Any:
        module = functions.build(model, settings)
        if isinstance(module, linen.Module):
            lazy.append(module)
            return None
        return module

    # An NNX model makes its tensors at once, of which the shapes suffice.
    abstract = nnx.eval_shape(build)
    return Linen(lazy[0], functions, workload) if lazy else Nnx(abstract, functions, workload)


class Linen:
    """A `flax.linen` model."""

    def __init__(self, module: linen.Module, functions: ModuleType, workload: str) -> None:
        self._module, self._functions, self._workload = module, functions, workload

    @contextlib.contextmanager
    def replaced(self, paths: Collection[str], instead: Instead) -> Iterator[None]:
        """Have `instead` compute the layers of some paths while the block runs."""

        def intercept(own: Callable, arguments: tuple, more: dict[str, Any], context: Any) -> Any:
            path = "/".join(context.module.path)
            if path not in paths or context.method_name != "__call__":
                return own(*arguments, **more)
            return instead(path, context.module, own, *arguments, **more)

        with linen.intercept_methods(intercept):
            yield

    def shapes(self, batch: Arrays) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor by Flax's name, given what a forward pass reads."""

        def start(key: Array, batch: Arrays) -> Any:
            def call(module: Any) -> Any:
                return self._functions.forward(module, batch, None, False)

            with _own_draws(self._workload):
                return linen.init(call, self._module)(key)

        found = jax.eval_shape(start, jax.random.key(0), batch)
        return {name: leaf.shape for name, leaf in flatten_dict(found, sep="/").items()}

    def __call__(
        self,
        names: Names,
        tensors: Arrays,
        batch: Arrays,
        random: Any,
        train: bool,
        buffers: Collection[str],
        taps: Collection[str] = (),
    ) -> Called:
        """Call the model.

        Args:
            names: Flax's names.
            tensors: parameters and buffers by neutral name, in Flax's layouts.
            buffers: names of the buffers.
            taps: paths of the layers whose outputs are wanted.
        """
        collections = {names[name][0].split("/")[0] for name in buffers}
        changing = [*(collections if train else ()), *["intermediates"] * bool(taps)]
        variables = unflatten_dict({names[n][0]: t for n, t in tensors.items()}, sep="/")

        def call(module: Any) -> dict[str, Array]:
            return self._functions.forward(module, batch, random, train)

        def is_tap(module: Any, method: str) -> bool:
            return method == "__call__" and "/".join(module.path) in taps

        apply = linen.apply(
            call,
            self._module,
            mutable=changing or False,
            capture_intermediates=is_tap if taps else False,
        )
        with _own_draws(self._workload):
            result = apply(variables)
        outputs, changed = result if changing else (result, {})
        flat = {**flatten_dict(variables, sep="/"), **flatten_dict(dict(changed), sep="/")}
        return Called(
            outputs,
            {name: flat[names[name][0]] for name in buffers},
            # Of a layer that is called more than once the last.
            {p: flat[f"intermediates/{p}/__call__"][-1] for p in taps
             if f"intermediates/{p}/__call__" in flat},
        )  # fmt: skip


class Nnx:
    """A `flax.nnx` model: its parameters are `nnx.Param`, every other variable is a buffer."""

    def __init__(self, module: nnx.Module, functions: ModuleType, workload: str) -> None:
        self._functions = functions
        self._graph, state = nnx.split(module)
        self._leaves = {_path(path): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
        draws = [name for name, (_, leaf) in self._leaves.items() if isinstance(leaf, nnx.RngState)]
        if draws:
            raise _draws_itself(workload)
        self._replaced: Callable[[nnx.Module], AbstractContextManager] = contextlib.nullcontext

    @contextlib.contextmanager
    def replaced(self, paths: Collection[str], instead: Instead) -> Iterator[None]:
        """Have `instead` compute the layers of some paths while the block runs."""
        self._replaced = functools.partial(_replaced, paths=paths, instead=instead)
        try:
            yield
        finally:
            self._replaced = contextlib.nullcontext

    def shapes(self, batch: Arrays) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor by Flax's name."""
        return {name: tuple(leaf.shape) for name, (_, leaf) in self._leaves.items()}

    def __call__(
        self,
        names: Names,
        tensors: Arrays,
        batch: Arrays,
        random: Any,
        train: bool,
        buffers: Collection[str],
        taps: Collection[str] = (),
    ) -> Called:
        """Call the model; see `Linen`."""
        own = {names[name][0]: tensor for name, tensor in tensors.items()}
        flat = {path: leaf.replace(own[name]) for name, (path, leaf) in self._leaves.items()}
        module = nnx.merge(self._graph, nnx.from_flat_state(flat))
        found: dict[str, Array] = {}

        def listened(path: str, layer: Any, own: Callable, *arguments: Any, **more: Any) -> Any:
            output = own(*arguments, **more)
            if isinstance(output, Array):
                found[path] = output
            return output

        with self._replaced(module), _replaced(module, taps, listened):
            outputs = self._functions.forward(module, batch, random, train)
        after = {_path(p): leaf for p, leaf in nnx.to_flat_state(nnx.split(module)[1])}
        return Called(outputs, {name: after[names[name][0]][...] for name in buffers}, found)


def _path(path: tuple[Any, ...]) -> str:
    return "/".join(map(str, path))


@contextlib.contextmanager
def _replaced(module: nnx.Module, paths: Collection[str], instead: Instead) -> Iterator[None]:
    """Have `instead` compute some layers of a model: Python finds `__call__` on the class."""
    wanted = {id(layer): _path(path) for path, layer in nnx.iter_modules(module)}
    wanted = {key: path for key, path in wanted.items() if path in paths}
    kinds = {type(layer) for _, layer in nnx.iter_modules(module) if id(layer) in wanted}

    def replace(own: Callable) -> Callable:
        def call(self: Any, *arguments: Any, **more: Any) -> Any:
            if id(self) not in wanted:
                return own(self, *arguments, **more)
            itself = functools.partial(own, self)
            return instead(wanted[id(self)], self, itself, *arguments, **more)

        return call

    with replaced_calls(kinds, replace):
        yield


@contextlib.contextmanager
def _own_draws(workload: str) -> Iterator[None]:
    """Tell a model that draws random numbers of its own what it may not."""
    try:
        yield
    except InvalidRngError as error:
        raise _draws_itself(workload) from error


def _draws_itself(workload: str) -> UserError:
    return UserError(
        f"{workload}: its Flax model draws random numbers of its own (dropout or noise), which "
        "PyTorch would draw otherwise; draw them from `random`, which `forward` is given"
    )
