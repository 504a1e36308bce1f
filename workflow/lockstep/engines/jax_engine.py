"""JAX behind the contract: jit or op by op, one process or a mesh over several."""

import contextlib
import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.errors import InvalidRngError
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lockstep.datasets import checksum
from lockstep.engines import environment, jax_gradient, jax_optimizer, jax_probe, jax_runtime
from lockstep.engines.contract import (
    COMPUTE_DTYPE,
    PARAMETER_DTYPE,
    Job,
    Preparation,
    Window,
    types,
)
from lockstep.errors import UserError
from lockstep.workloads import augmentation_flax, naming, taps, weights
from lockstep.workloads.contract import AXIS
from lockstep.workloads.weights import State

Pending = list[tuple[Array, Array]]
Tree = dict[str, Any]


def start(job: Job) -> "JaxEngine":
    """Configure JAX for a job, before anything is computed, and return its engine."""
    jax_runtime.configure(job)
    return JaxEngine(job)


class JaxEngine:
    """See `lockstep.engines.contract.Engine`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.topology = job.topology
        self.param_dtype = jnp.dtype(PARAMETER_DTYPE[job.variant["precision"]])
        self.compute_dtype = jnp.dtype(COMPUTE_DTYPE[job.variant["precision"]])
        name = f"lockstep.workloads.{job.workload.name}.flax_model"
        self.functions = importlib.import_module(name)
        self.mesh = Mesh(np.array(jax.devices()[: job.topology.devices]), (AXIS,))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self._build()

    def _build(self) -> None:
        recipe, variant = self.job.recipe, self.job.variant
        self.model = self.functions.build(
            recipe["model"],
            dtype=self.compute_dtype,
            param_dtype=self.param_dtype,
            convolution=variant["convolution"],
            devices=self.mesh.size,
        )
        self.names = self.functions.names(recipe["model"])
        parameters = self.job.workload.parameters(recipe["model"])
        buffers = self.job.workload.buffers(recipe["model"])
        variables = jax.eval_shape(self._initialised, jax.random.key(0), self._blank())
        shapes = {p.name: p.shape for p in parameters} | {b.name: b.shape for b in buffers}
        native = {name: leaf.shape for name, leaf in flatten_dict(variables, sep="/").items()}
        naming.check(self.names, shapes, native)
        self.parameter_names = [p.name for p in parameters]
        self.buffer_names = [b.name for b in buffers]
        model = recipe["model"]
        self.layers = taps.layers(self.functions, model, self.names, parameters, "/")
        self._gradient = jax_gradient.of(self._loss, self.mesh, variant["mode"] == "jit")
        self._probed: Callable = self._probe
        self.transformation = jax_optimizer.transformation(self.job, self.names)
        self.kind = self.job.kind
        pixels = int(np.prod(self.job.example_shape))
        self.bytes = checksum.byte_coefficients(pixels)
        self.slots = checksum.slot_coefficients(recipe["global_batch"])
        self.several = variant["steps_per_dispatch"]
        self.values: Tree = {}  # until `load`
        self.firsts: list[Array] = []
        self.programs: dict[int, Any] = {count: self._program(count) for count in {1, self.several}}
        self._evaluation: Callable = self._evaluation_sums
        if variant["mode"] == "jit":
            self._evaluation = jax.jit(self._evaluation_sums)
            self._probed = jax.jit(self._probe)

    def _blank(self) -> Tree:
        """Return one example as a model's `inputs` finds it, to learn its parameters' shapes by."""
        return {
            "images": np.zeros((1, *self.job.example_shape), np.uint8),
            "labels": np.zeros(1, np.int32),
            "mask": np.ones(1, np.float32),
        }

    def _initialised(self, key: Array, batch: Tree) -> Tree:
        with _own_draws(self.job.workload.name):
            return self.model.init(key, self.functions.inputs(batch, self.param_dtype))

    # One step --------------------------------------------------------------------------------

    def _seen(self, batch: Tree) -> Tree:
        """Return a batch with its images as the model is shown them."""
        images = augmentation_flax.apply(batch["images"], batch.get("crops"), self.kind)
        return {**batch, "images": images}

    def _apply(self, params: Tree, buffers: Tree, batch: Tree, train: bool) -> tuple[Array, Tree]:
        images = self.functions.inputs(batch, self.param_dtype)
        return self.forward(params, buffers, images, train)

    def forward(
        self, params: Tree, buffers: Tree, images: Array, train: bool, **capture: Any
    ) -> tuple[Array, Tree]:
        """Return the logits and what the model has changed: `buffers`, if it did not.

        Args:
            capture: what Flax is to capture on the way, as `Module.apply` takes it.
        """
        variables = {"params": params, **buffers}
        changing = [*(buffers if train else ()), *["intermediates"] * bool(capture)]
        with _own_draws(self.job.workload.name):
            if not changing:
                return self.model.apply(variables, images, train=train), buffers
            return self.model.apply(variables, images, train=train, mutable=changing, **capture)

    def _loss(
        self, params: Tree, buffers: Tree, batch: Tree, count: Array
    ) -> tuple[Array, tuple[Tree, Array]]:
        """Return a batch's share of the global mean loss, the updated buffers and the logits."""
        logits, buffers = self._apply(params, buffers, batch, train=True)
        return self.mean_loss(logits, batch, count), (buffers, logits)

    def mean_loss(self, logits: Array, batch: Tree, count: Array) -> Array:
        losses = self.functions.losses(logits, batch, self.job.recipe)
        return (losses * batch["mask"].astype(losses.dtype)).sum() / count

    def _checksum(self, batch: Tree) -> Array:
        # Byte by byte: XLA needs half the time that it takes over bytes brought into words.
        flat = batch["images"].reshape(batch["images"].shape[0], -1).astype(jnp.uint32)
        rows = (flat * self.bytes).sum(axis=1, dtype=jnp.uint32)
        rows = rows + batch["labels"].astype(jnp.uint32) * jnp.uint32(checksum.LABEL)
        rows = (rows + jnp.uint32(checksum.ONE)) * self.slots
        return (rows * batch["mask"].astype(jnp.uint32)).sum(dtype=jnp.uint32)

    def _step(self, state: Tree, batch: Tree, count: Array, rate: Array) -> tuple[Tree, Any]:
        batch = self._seen(batch)
        params, buffers = state["params"], state["buffers"]
        (loss, (buffers, _)), grads = self._gradient(params, buffers, batch, count)
        updates, optimizer = self.transformation.update(grads, state["optimizer"], params)
        params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        state = {"params": params, "buffers": buffers, "optimizer": optimizer}
        return state, (loss, self._checksum(batch))

    def _program(self, count: int) -> Callable:
        """Return a function that makes `count` steps of a window, unrolled, from row `first`."""

        def steps(state: Tree, window: Tree, first: Array) -> tuple[Tree, Any]:
            results = []
            for k in range(count):
                row = jax.tree.map(lambda a: a[first + k], window)  # noqa: B023
                state, result = self._step(state, row["batch"], row["count"], row["rate"])
                results.append(result)
            losses, checksums = zip(*results)
            return state, (jnp.stack(losses), jnp.stack(checksums))

        if self.job.variant["mode"] != "jit":
            return steps
        # Results are spread over the mesh as the state came, so that they can go in again.
        return jax.jit(steps, donate_argnums=0, out_shardings=self.replicated)

    def train(self, window: Window) -> Pending:
        arrays = self._window(window)
        pending, first = [], 0
        while first < window.steps:
            # Anchored at the window's start, so that a resumed run takes the same programs.
            count = self.several if first + self.several <= window.steps else 1
            self.values, result = self.programs[count](self.values, arrays, self.firsts[first])
            pending.append(result)
            first += count
        return pending

    def fetch(self, pending: Pending) -> tuple[np.ndarray, np.ndarray]:
        # On a CPU each is looked at in 1 us, where `device_get` takes 10: a window has fifty.
        results = pending if jax.default_backend() == "cpu" else jax.device_get(pending)
        losses = np.concatenate([np.asarray(loss) for loss, _ in results]).astype(np.float64)
        return losses, np.concatenate([np.asarray(check) for _, check in results])

    def _evaluation_sums(self, params: Tree, buffers: Tree, batch: Tree) -> dict[str, Array]:
        batch = self._seen(batch)
        logits, _ = self._apply(params, buffers, batch, train=False)
        values = self.functions.metrics(logits, batch)
        values["loss"] = self.functions.losses(logits, batch, self.job.recipe)
        values["examples"] = jnp.ones_like(batch["mask"])
        return {n: (v * batch["mask"].astype(v.dtype)).sum() for n, v in values.items()}

    def evaluate(self, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float]:
        params, buffers = self.values["params"], self.values["buffers"]
        parts = [self._evaluation(params, buffers, self._shard(dict(b), 0)) for b in batches]
        fetched = jax.device_get(parts)
        return {name: float(np.sum([part[name] for part in fetched])) for name in fetched[0]}

    def _probe(self, params: Tree, buffers: Tree, batch: Tree, count: Array) -> Any:
        """Return loss, gradient and checksum as a step has them, and what `jax_probe` sees."""
        batch = self._seen(batch)
        trained = self._gradient(params, buffers, batch, count)
        found = {}
        if self.mesh.size == 1:
            found = jax_probe.look(self, params, buffers, batch, count)
        return trained, self._checksum(batch), found

    def probe(self, window: Window) -> dict[str, np.ndarray]:
        row = jax.tree.map(lambda a: a[0], self._window(window))
        ((loss, (_, logits)), grads), check, found = self._probed(
            self.values["params"], self.values["buffers"], row["batch"], row["count"]
        )
        neutral = self._to_neutral({"params": grads}, self.parameter_names)
        # A compiled program returns a dictionary in the order of its keys.
        ordered = ("input/gradient", *(f"tap/{name}" for name in self.layers))
        return {
            **{key: _local(found[key]).astype(self.param_dtype) for key in ordered if key in found},
            "logits": _local(logits).astype(self.param_dtype),
            "checksum": _local(check),
            "loss": _local(loss).astype(np.float64),
            **{f"grad/{name}": value for name, value in neutral.items()},
        }

    # Preparation and state -------------------------------------------------------------------

    def prepare(self) -> Preparation:
        if self.job.variant["mode"] != "jit":
            begin = time.perf_counter()
            self.fetch(self.train(Window.blank(self.job)))
            seconds = time.perf_counter() - begin
            return Preparation(trace_seconds=0.0, compile_seconds=seconds, cache="none")
        hits = jax_runtime.count_cache_hits()
        arrays = self._window(Window.blank(self.job))
        trace = compilation = 0.0
        memory = {}
        for count, program in self.programs.items():
            begin = time.perf_counter()
            lowered = program.lower(self.values, arrays, self.firsts[0])
            middle = time.perf_counter()
            self.programs[count] = lowered.compile()
            trace += middle - begin
            compilation += time.perf_counter() - middle
            memory = jax_runtime.planned_memory(self.programs[count])
        cache = "warm" if hits() >= len(self.programs) else "cold"
        return Preparation(
            trace_seconds=trace, compile_seconds=compilation, cache=cache, memory=memory
        )

    def load(self, state: State) -> None:
        weights.check(state, self.job.workload, self.job.recipe["model"])
        params = self._to_native(state, "param", self.parameter_names)["params"]
        momentum = self._to_native(state, "momentum", self.parameter_names)["params"]
        optimizer = self.transformation.init(params)
        if self.job.recipe["optimizer"]["momentum"]:
            optimizer = optax.tree_utils.tree_set(optimizer, trace=momentum)
        values = {
            "params": params,
            "buffers": self._to_native(state, "buffer", self.buffer_names),
            "optimizer": optimizer,
        }
        # Copies: the step donates its state, which must not be the caller's memory.
        self.values = jax.tree.map(self._replicate, values)
        self.firsts = [self._replicate(np.array(k, np.int32)) for k in range(self.job.window_steps)]

    def state(self) -> dict[str, np.ndarray]:
        params = self.values["params"]
        momentum = jax.tree.map(jnp.zeros_like, params)
        if self.job.recipe["optimizer"]["momentum"]:
            momentum = optax.tree_utils.tree_get(self.values["optimizer"], "trace")
        roles = {
            "param": self._to_neutral({"params": params}, self.parameter_names),
            "momentum": self._to_neutral({"params": momentum}, self.parameter_names),
            "buffer": self._to_neutral(self.values["buffers"], self.buffer_names),
        }
        return {f"{r}/{name}": value for r, tree in roles.items() for name, value in tree.items()}

    def _to_native(self, state: State, role: str, wanted: Iterable[str]) -> Tree:
        """Return a role's tensors as a Flax tree (`params` and, for buffers, collections)."""
        names = {name: self.names[name] for name in wanted}
        arrays = naming.to_native({name: state[f"{role}/{name}"] for name in names}, names)
        typed = {name: array.astype(self.param_dtype) for name, array in arrays.items()}
        return unflatten_dict(typed, sep="/")

    def _to_neutral(self, tree: Tree, wanted: Iterable[str]) -> dict[str, np.ndarray]:
        arrays = {name: _local(leaf) for name, leaf in flatten_dict(tree, sep="/").items()}
        return naming.to_neutral(arrays, {name: self.names[name] for name in wanted})

    # The rest --------------------------------------------------------------------------------

    def _window(self, window: Window) -> Tree:
        counts = window.counts.astype(self.param_dtype)
        rates = window.learning_rates.astype(self.param_dtype)
        if self.topology.world_size == 1:
            # All at once: each call into JAX takes as long as a small copy.
            places = {"batch": self._sharding(1), "count": self.replicated, "rate": self.replicated}
            arrays = {"batch": dict(window.batch), "count": counts, "rate": rates}
            return jax.device_put(arrays, places)
        return {
            "batch": self._shard(dict(window.batch), 1),
            "count": self._replicate(counts),
            "rate": self._replicate(rates),
        }

    def _sharding(self, axis: int) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXIS))

    def _shard(self, arrays: Tree, axis: int) -> Tree:
        """Put arrays onto the devices, this process's part of the examples on its own."""
        sharding = self._sharding(axis)
        if self.topology.world_size == 1:
            return jax.device_put(arrays, sharding)
        return {n: jax.make_array_from_process_local_data(sharding, a) for n, a in arrays.items()}

    def _replicate(self, array: np.ndarray) -> Array:
        if self.topology.world_size == 1:
            return jax.device_put(jnp.array(array), self.replicated)
        return multihost_utils.host_local_array_to_global_array(
            np.array(array), self.mesh, PartitionSpec()
        )

    def agree(self, values: Sequence[int]) -> list[int]:
        if self.topology.world_size == 1:
            return list(values)
        told = multihost_utils.process_allgather(np.array(values, np.int32))
        return [int(value) for value in np.max(told, axis=0)]

    def facts(self) -> dict[str, Any]:
        jit = self.job.variant["mode"] == "jit"
        kinds = types(self.job.variant["precision"])
        if self.mesh.size > 1 and not jit:
            kinds["gradient_communication_dtype"] = self.compute_dtype.name  # see `jax_gradient`
        return {
            **jax_runtime.facts(),
            "settings": environment.recorded(),
            "devices": self.mesh.size,
            **kinds,
            "compiled": "step" if jit else "nothing",
            "evaluation": self.job.variant["mode"],
        }

    def memory(self) -> dict[str, int]:
        return jax_runtime.memory()

    def close(self) -> None:
        if self.topology.world_size > 1:
            jax.distributed.shutdown()


@contextlib.contextmanager
def _own_draws(workload: str) -> Iterator[None]:
    """Tell a model that draws random numbers of its own what it may not."""
    try:
        yield
    except InvalidRngError as error:
        raise UserError(
            f"{workload}: its Flax model draws random numbers of its own (dropout or noise), which "
            "PyTorch would draw otherwise; remove what draws them"
        ) from error


def _local(array: Array) -> np.ndarray:
    """Return this process's part of an array; all of it where it is replicated."""
    if not isinstance(array, Array):
        return np.array(array)
    if array.is_fully_replicated:
        return np.array(array.addressable_data(0))
    parts = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.array(part.data) for part in parts])
