"""A JAX model of any kind as a function of named tensors: Flax NNX, Linen, or a plain function."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lockstep.errors import UserError
from lockstep.port import seen
from lockstep.port.pair import Pair, called, flags
from lockstep.port.seen import Recorder
from lockstep.workloads.taps import replaced_calls

Tensors = Mapping[str, jax.Array]


class Model(Protocol):
    """What every kind of model is to `JaxSide`.

    Attributes:
        tensors: by name: the path in its tree, joined by slashes.
        buffers: names of those that are no parameters.
    """

    tensors: dict[str, Any]
    buffers: frozenset[str]

    def __call__(
        self, tensors: Tensors, batch: Any, train: bool, stream: int, recorder: Recorder
    ) -> tuple[Any, dict[str, jax.Array]]:
        """Return outputs, and the buffers afterwards."""


def adapted(pair: Pair, batch: Any) -> Model:
    """Return a pair's JAX model.

    Raises:
        UserError: it is of no kind that is known.
    """
    model = pair.jax_model
    with contextlib.suppress(ImportError):
        from flax import linen, nnx

        if isinstance(model, nnx.Module):
            return Nnx(pair)
        if isinstance(model, linen.Module):
            return Linen(pair, batch)
    if not callable(model):
        raise UserError(
            f"{pair.path}: jax_model must be a Flax module or a function, "
            f"not {type(model).__name__}"
        )
    return Plain(pair)


def missing_stream(error: Exception) -> str | None:
    """Return what Flax says of a random stream that a model asked for and was not given."""
    if type(error).__name__ != "InvalidRngError":
        return None
    return " ".join(str(error).split())[:160]


def _floating(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


class Plain:
    """A function of a tree of parameters; or a callable tree itself, as Equinox's modules are."""

    buffers: frozenset[str] = frozenset()

    def __init__(self, pair: Pair) -> None:
        self._pair, self._itself = pair, pair.jax_params is None
        tree = pair.jax_model if self._itself else pair.jax_params
        found, self._structure = jax.tree_util.tree_flatten_with_path(tree)
        self._leaves = [("/".join(map(_key, path)), leaf) for path, leaf in found]
        self.tensors = {name: leaf for name, leaf in self._leaves if _floating(leaf)}
        if not self.tensors:
            raise UserError(
                f"{pair.path}: jax_model is a {type(tree).__name__} without arrays; if it is a "
                "function of parameters, set jax_params to their tree"
            )

    def __call__(
        self, tensors: Tensors, batch: Any, train: bool, stream: int, recorder: Recorder
    ) -> tuple[Any, dict[str, jax.Array]]:
        """Call the function; see `Model`."""
        tree = jax.tree_util.tree_unflatten(
            self._structure, [tensors.get(name, leaf) for name, leaf in self._leaves]
        )
        call, model = self._pair.jax_call, self._pair.jax_model
        if self._itself:
            return (call(tree, batch) if call else called(tree, batch, **flags(train))), {}
        if call:
            return call(tree, batch), {}
        known = inspect.signature(model).parameters
        named = {name: value for name, value in flags(train).items() if name in known}
        if isinstance(batch, dict):
            return model(tree, **batch, **named), {}
        batch = batch if isinstance(batch, tuple) else (batch,)
        return model(tree, *batch, **named), {}


def _key(part: Any) -> str:
    for name in ("key", "idx", "name"):
        if hasattr(part, name):
            return str(getattr(part, name))
    return str(part)


class Linen:
    """A `flax.linen` module and its variables."""

    def __init__(self, pair: Pair, batch: Any) -> None:
        from flax.traverse_util import flatten_dict

        self._pair, self._module = pair, pair.jax_model
        variables = pair.jax_params
        if variables is None:
            variables = self._init(batch)
        if "params" not in variables:
            variables = {"params": variables}
        flat = flatten_dict(jax.tree_util.tree_map(lambda leaf: leaf, dict(variables)), sep="/")
        self._flat = {path: getattr(leaf, "value", leaf) for path, leaf in flat.items()}
        short = {path: path.partition("/")[2] for path in self._flat}
        twice = {name for name in short.values() if list(short.values()).count(name) > 1}
        self._paths = {p if short[p] in twice else short[p]: p for p in self._flat}
        self.tensors = {
            n: self._flat[p] for n, p in self._paths.items() if _floating(self._flat[p])
        }
        self.buffers = frozenset(
            name for name in self.tensors if not self._paths[name].startswith("params/")
        )

    def _init(self, batch: Any) -> Any:
        from flax import linen

        keys = {name: jax.random.key(k) for k, name in enumerate(("params", "dropout"))}
        start = linen.init(lambda module: self._call(module, batch, False), self._module)
        # The values will be PyTorch's, or those of a checkpoint.
        shapes = jax.eval_shape(start, keys)
        return jax.tree_util.tree_map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)

    def _call(self, module: Any, batch: Any, train: bool) -> Any:
        call = self._pair.jax_call
        if call is None:
            return called(module, batch, **flags(train))
        if train and self.buffers and "train" not in inspect.signature(call).parameters:
            raise UserError(
                f"{self._pair.path}: jax_call is not told of training, so that running statistics "
                "stay as they are; for --train give it a parameter train, and pass that on"
            )
        return _by_own(call, module, batch, train)

    def __call__(
        self, tensors: Tensors, batch: Any, train: bool, stream: int, recorder: Recorder
    ) -> tuple[Any, dict[str, jax.Array]]:
        """Call the module; see `Model`."""
        from flax import linen
        from flax.traverse_util import flatten_dict, unflatten_dict

        flat = {p: tensors.get(name, self._flat[p]) for name, p in self._paths.items()}
        dtype = next(iter(tensors.values())).dtype
        module = self._module
        own = getattr(module, "dtype", None)
        if own is not None and jnp.issubdtype(own, jnp.floating):
            module = module.clone(dtype=dtype)
        changing = sorted({self._paths[name].split("/")[0] for name in self.buffers})
        keys = {"dropout": jax.random.key(stream)}

        def hear(function: Callable, given: tuple, named: dict, context: Any) -> Any:
            if train and isinstance(context.module, linen.Dropout):
                return given[0] if given else named["inputs"]
            if context.method_name != "__call__" or not context.module.path:
                return function(*given, **named)
            path = "/".join(context.module.path)
            recorder.see(path, seen.IN, (*given, *named.values()))
            output = function(*given, **named)
            recorder.see(path, seen.OUT, output)
            return output

        apply = linen.apply(
            lambda module: self._call(module, batch, train),
            module,
            mutable=changing if train and changing else False,
        )
        with linen.intercept_methods(hear):
            result = apply(unflatten_dict(flat, sep="/"), rngs=keys)
        outputs, changed = result if train and changing else (result, {})
        flat |= flatten_dict(dict(changed), sep="/")
        return outputs, {name: flat[self._paths[name]] for name in self.buffers}


def _by_own(call: Callable, module: Any, batch: Any, train: bool) -> Any:
    """Return what a pair's own `jax_call` gives, which may ask whether the model is trained."""
    if "train" in inspect.signature(call).parameters:
        return call(module, batch, train=train)
    return call(module, batch)


class Nnx:
    """A `flax.nnx` module: its parameters are `nnx.Param`, other variables are buffers."""

    def __init__(self, pair: Pair) -> None:
        from flax import nnx

        self._pair = pair
        self._graph, state = nnx.split(pair.jax_model)
        self._leaves = {
            "/".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(state)
        }
        self.tensors = {
            name: leaf[...]
            for name, (_, leaf) in self._leaves.items()
            if not isinstance(leaf, nnx.RngState) and _floating(leaf[...])
        }
        self.buffers = frozenset(
            name for name in self.tensors if not isinstance(self._leaves[name][1], nnx.Param)
        )

    def __call__(
        self, tensors: Tensors, batch: Any, train: bool, stream: int, recorder: Recorder
    ) -> tuple[Any, dict[str, jax.Array]]:
        """Call the module; see `Model`."""
        from flax import nnx

        flat = {}
        for name, (path, leaf) in self._leaves.items():
            if name in tensors:
                flat[path] = leaf.replace(tensors[name])
            elif isinstance(leaf, nnx.RngCount):
                flat[path] = leaf.replace(leaf[...] + jnp.asarray(stream, leaf[...].dtype))
            else:
                flat[path] = leaf.replace(leaf[...])  # as new: it may be traced now
        module = nnx.merge(self._graph, nnx.from_flat_state(flat))
        dtype = next(iter(tensors.values())).dtype
        for _, layer in nnx.iter_modules(module):
            own = getattr(layer, "dtype", None)
            if own is not None and own == jnp.float32:
                setattr(layer, "dtype", dtype)  # noqa: B010
            if train and isinstance(layer, nnx.Dropout):
                layer.rate = 0.0
        (module.train if train else module.eval)()
        with _heard(module, recorder):
            if self._pair.jax_call:
                outputs = _by_own(self._pair.jax_call, module, batch, train)
            else:
                outputs = called(module, batch, **flags(train))
        after = {
            "/".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(nnx.split(module)[1])
        }
        return outputs, {name: after[name][...] for name in self.buffers}


@contextlib.contextmanager
def _heard(module: Any, recorder: Recorder) -> Iterator[None]:
    """Let a recorder hear the module's layers: Python finds `__call__` on the class."""
    from flax import nnx

    layers = {
        id(layer): "/".join(map(str, path)) for path, layer in nnx.iter_modules(module) if path
    }
    kinds = {type(layer) for _, layer in nnx.iter_modules(module)}
    kinds = {kind for kind in kinds if hasattr(kind, "__call__")}  # noqa: B004  # of the class
    inside: list[int] = []

    def heard(own: Callable) -> Any:
        @functools.wraps(own)  # so that its flags are found
        def call(self: Any, *given: Any, **named: Any) -> Any:
            path = layers.get(id(self))
            if path is None or id(self) in inside:  # or its class calls that which it extends
                return own(self, *given, **named)
            recorder.see(path, seen.IN, (*given, *named.values()))
            inside.append(id(self))
            try:
                output = own(self, *given, **named)
            finally:
                inside.remove(id(self))
            recorder.see(path, seen.OUT, output)
            return output

        return call

    with replaced_calls(kinds, heard):
        yield
