"""The JAX side of a pair: its tensors, and what it computes, layer by layer.

It is called op by op, with `jax.disable_jit`: what is inside of a compiled function or of a scan
over layers has values then, too.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lockstep.errors import UserError
from lockstep.port import jax_models, seen
from lockstep.port.pair import Pair, cause_of, shapes
from lockstep.port.seen import Called, Recorder

DTYPES = {"float64": jnp.float64, "float32": jnp.float32, "bfloat16": jnp.bfloat16}
TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
)


class JaxSide:
    """A Flax model, or a function with its tree of parameters, of a pair."""

    name = "JAX"

    def __init__(self, pair: Pair) -> None:
        self.pair, self._precision = pair, pair.looked_at
        with self._blamed("cannot be built from the batch"), self._wide():
            self.model = jax_models.adapted(pair, self.batch(pair.looked_at))
        self._values = {
            name: np.asarray(a).astype(np.float32, copy=False)
            for name, a in self.model.tensors.items()
        }
        if pair.jax_checkpoint:
            self._values = _restored(pair.jax_checkpoint, self._values)
        self.buffers = [name for name in self._values if name in self.model.buffers]
        self._loaded: dict[str, jax.Array] = {}
        self.note: str | None = None

    def values(self) -> dict[str, np.ndarray]:
        """Return all tensors by name, float32."""
        return self._values

    def load(self, values: Iterable[tuple[str, np.ndarray]], precision: str) -> None:
        """Hold these values by name, in a precision; and its own of those that are not named."""
        self._precision, self._loaded, dtype = precision, {}, DTYPES[precision]
        with self._wide():
            self._loaded = {name: jnp.array(value, dtype) for name, value in values}
            for name in self._values.keys() - self._loaded.keys():
                self._loaded[name] = jnp.array(self._values[name], dtype)

    def batch(self, precision: str) -> Any:
        """Return the batch as JAX arrays: floating ones in a precision."""

        def convert(value: Any) -> Any:
            array = np.asarray(value)
            if array.dtype.kind == "f":
                return jnp.asarray(array, DTYPES[precision])
            return jnp.asarray(array.astype(np.int32) if array.dtype == np.int64 else array)

        return self.pair.converted(convert)

    def order(self) -> dict[str, int]:
        """Return when each module is called first, by its path; computes nothing if it can.

        Raises:
            UserError: it cannot be called with the batch.
        """
        precision = self.pair.looked_at
        self.load((), precision)
        recorder = Recorder(None, read)
        with self._wide(), seen.listening(recorder), self._called(), jax.disable_jit():
            try:
                jax.eval_shape(
                    lambda values, batch: self.model(values, batch, False, 0, recorder)[0],
                    self._loaded,
                    self.batch(precision),
                )
            except Exception as error:  # what is no matter of tracing, the call itself says best
                if isinstance(error, TRACED):
                    self.note = f"the JAX model's control flow depends on data: {cause_of(error)}"
                recorder = Recorder(None, read)
                self.forward(precision, recorder)
        return recorder.order

    def forward(
        self, precision: str, recorder: Recorder, *, train: bool = False, stream: int = 0
    ) -> Called:
        """Call the model as it is loaded, and tell what its layers give.

        Args:
            stream: of random numbers, which an evaluation should not draw.

        Raises:
            UserError: it cannot be called with the batch.
        """
        with self._wide(), self._called(), jax.disable_jit(), seen.listening(recorder):
            outputs, buffers = self.model(
                self._loaded, self.batch(precision), train, stream, recorder
            )
        found = {n: x for n, x in seen.leaves(outputs) if jnp.issubdtype(x.dtype, jnp.floating)}
        return Called(
            {name: _numpy(output) for name, output in found.items()},
            {name: _numpy(buffer) for name, buffer in buffers.items()},
        )

    def gradients(
        self, precision: str, scalar: Callable[[Any, Any], jax.Array], *, train: bool = False
    ) -> dict[str, np.ndarray]:
        """Return the gradient of a scalar of the outputs, by parameter.

        Args:
            scalar: of outputs and batch.
        """
        silent = Recorder((), read)
        with self._wide(), self._blamed("has no gradient"):
            batch = self.batch(precision)
            rest = {n: v for n, v in self._loaded.items() if n in self.model.buffers}
            wanted = {n: v for n, v in self._loaded.items() if n not in rest}

            def value(parameters: dict[str, jax.Array]) -> jax.Array:
                outputs, _ = self.model({**rest, **parameters}, batch, train, 0, silent)
                return scalar(outputs, batch)

            found = jax.jit(jax.grad(value))(wanted)
        return {name: _numpy(gradient) for name, gradient in found.items()}

    def recorder(self, wanted: Any) -> Recorder:
        """Return what takes note of this side's layers."""
        return Recorder(wanted, read)

    @contextlib.contextmanager
    def _wide(self) -> Iterator[None]:
        """Let JAX have 64 bits while float64 is computed, and only then, as a model's user does."""
        before = jax.config.read("jax_enable_x64")
        jax.config.update("jax_enable_x64", self._precision == "float64")
        try:
            yield
        finally:
            jax.config.update("jax_enable_x64", before)

    def _called(self) -> contextlib.AbstractContextManager:
        return self._blamed(f"cannot be called with the batch ({shapes(self.pair.batch)})")

    @contextlib.contextmanager
    def _blamed(self, what: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            stream = jax_models.missing_stream(error)
            if stream:
                raise UserError(
                    f"{self.pair.path}: jax_model asks for a random stream "
                    f"({stream}) that it is not given; set jax_params to the "
                    "variables that model.init makes with it, or call it without in jax_call"
                ) from error
            raise UserError(f"{self.pair.path}: jax_model {what}: {cause_of(error)}") from error


def read(value: Any) -> np.ndarray | None:
    """Return an array's value as NumPy has it; None of a tracer that has none.

    Inside of `jax.vmap` an array stands for one example's, and has those of all examples.
    """
    axis = getattr(value, "batch_dim", None)
    if axis is not None and not isinstance(value.val, jax.core.Tracer):
        return np.moveaxis(_numpy(value.val), axis, 0)
    return None if isinstance(value, jax.core.Tracer) else _numpy(value)


def _numpy(value: Any) -> np.ndarray:
    return np.asarray(value.astype(jnp.float32) if value.dtype == jnp.bfloat16 else value)


def _restored(path: Path, expected: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    try:
        if path.suffix == ".npz":
            with np.load(path) as stored:
                found = dict(stored)
        else:
            import safetensors.numpy

            found = safetensors.numpy.load_file(path)
    except Exception as error:
        raise UserError(f"{path}: not a readable checkpoint ({cause_of(error)})") from error
    found = {name.replace(".", "/").removeprefix("params/"): a for name, a in found.items()}
    for name in sorted(expected.keys() | found.keys()):
        if name not in found or name not in expected:
            missing = "is missing" if name not in found else "is not in the model"
            raise UserError(f"{path}: not a checkpoint of jax_model: {name} {missing}")
        if found[name].shape != expected[name].shape:
            raise UserError(
                f"{path}: not a checkpoint of jax_model: {name} has shape "
                f"{found[name].shape}, not {expected[name].shape}"
            )
    return {name: np.array(found[name], np.float32) for name in expected}
