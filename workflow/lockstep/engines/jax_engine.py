"""JAX behind the contract: jit or op by op, one process or a mesh over several."""

import functools
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lockstep.engines import collecting, jax_gradient, jax_module, jax_probe, jax_runtime
from lockstep.engines.contract import PARAMETER_DTYPE, Evaluation, Job, Preparation, Window
from lockstep.engines.jax_checksum import Checksum
from lockstep.engines.jax_optimizer import Optimizer
from lockstep.engines.jax_placement import Placement, local
from lockstep.engines.jax_random import Random
from lockstep.engines.jax_tables import Tables, put, take
from lockstep.engines.touched import shown
from lockstep.workloads import naming, optimizers, taps, weights
from lockstep.workloads.weights import State

Pending = list[tuple[Array, Array]]
Tree = dict[str, Any]

ROWS = 5
"""Of a window that one call cuts out: a program that cuts all fifty takes 1.5 s to compile."""


def start(job: Job) -> "JaxEngine":
    """Configure JAX for a job, before anything is computed, and return its engine."""
    jax_runtime.configure(job)
    return JaxEngine(job)


class JaxEngine:
    """See `lockstep.engines.contract.Engine`.

    Between steps it holds `params` (trained), `kept` (frozen), `buffers` and `slots`, each a flat
    mapping from neutral names to arrays in Flax's layouts; `slots` one of them a slot.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.topology = job.topology
        self.param_dtype = jnp.dtype(PARAMETER_DTYPE[job.variant["precision"]])
        self.native = job.variant["randomness"] == "native"
        self.compiled = job.variant["mode"] == "jit"
        self.functions = job.workload.functions("jax")
        self.placement = Placement(job.topology)
        self._build()

    def _build(self) -> None:
        model, settings = self.job.recipe["model"], self.job.settings
        self.model = jax_module.built(self.functions, model, settings, self.job.workload.name)
        self.names = self.functions.names(model)
        parameters = self.job.workload.parameters(model)
        buffers = self.job.workload.buffers(model)
        # Abstract: op by op it would be a dozen small programs.
        blank = {**self.job.blank(1), **self._own_numbers()}
        example = jax.eval_shape(lambda batch: self.inputs(self._seen(batch)), blank)
        shapes = {p.name: p.shape for p in parameters} | {b.name: b.shape for b in buffers}
        naming.check(self.names, shapes, self.model.shapes(example))
        self.trained = [p.name for p in parameters if p.trained]
        self.frozen = [p.name for p in parameters if not p.trained]
        self.buffers = [b.name for b in buffers]
        self.layers = taps.layers(self.functions, model, self.names, parameters, "/")
        self.optimizer = Optimizer(self.job.recipe["optimizer"], self.job.workload.trained(model))
        self.tables = Tables(self.job, self.placement.replicated)
        mesh, micro = self.placement.mesh, self.job.recipe["accumulation"]
        self._gradient = jax_gradient.of(self._loss, mesh, self.compiled, micro)
        self.checksum = Checksum(self.job)
        scalars = optimizers.scalars(self.job.recipe["optimizer"], 0)
        self.numbers = ("weight", "learning_rate", *scalars, *self._own_numbers())
        self.several = self.job.variant["steps_per_dispatch"]
        self.values: Tree = {}  # until `load`
        kinds = itertools.product(self.job.lengths, {1, self.several})
        self.programs: dict[tuple[int, int], Any] = {k: self._program(k[1]) for k in kinds}
        self._probed: Callable = self._probe
        self._evaluation: Callable = self._evaluation_sums
        self._rows: Callable = self._cut
        self.at_once = min(ROWS, self.job.window_steps)
        if self.compiled:
            self._evaluation = jax.jit(self._evaluation_sums)
            self._probed = jax.jit(self._probe)
            row = (self.placement.split(0), self.placement.replicated)
            self._rows = jax.jit(self._cut, out_shardings=[row] * self.at_once)

    def _own_numbers(self) -> dict[str, Any]:
        return dict(self.job.workload.scalars(self.job.recipe, 0, 1))

    # One step --------------------------------------------------------------------------------

    def _seen(self, batch: Tree) -> Tree:
        """Return a batch as the model is shown it."""
        if not hasattr(self.functions, "augment"):
            return batch
        return self.functions.augment(batch, self.job.recipe, self.job.data)

    def inputs(self, batch: Tree) -> Tree:
        """Return a batch as the model computes with it."""
        if not hasattr(self.functions, "inputs"):
            return batch
        return self.functions.inputs(batch, self.param_dtype)

    def call(
        self, params: Tree, rest: Tree, batch: Tree, train: bool, layers: Collection[str] = ()
    ) -> jax_module.Called:
        """Return what the model gives for what `inputs` gave.

        Args:
            rest: its other tensors: `kept` and `buffers`.
            layers: paths of those whose outputs are wanted.
        """
        tensors = {**params, **rest["kept"], **rest["buffers"]}
        random = Random(batch, train=train, native=self.native)
        return self.model(self.names, tensors, batch, random, train, self.buffers, layers)

    def _loss(
        self, params: Tree, rest: Tree, batch: Tree, numbers: Tree
    ) -> tuple[Array, tuple[Tree, Tree, Tree]]:
        """Return a batch's share of the global mean loss; buffers, outputs and terms."""
        batch = {**batch, **numbers}
        called = self.call(params, rest, self.inputs(shown(batch)), train=True)
        terms = self.terms(called.outputs, batch, numbers["weight"])
        return functools.reduce(jnp.add, terms.values()), (called.buffers, called.outputs, terms)

    def terms(self, outputs: Tree, batch: Tree, weight: Array) -> Tree:
        """Return the named terms of a batch's share of the global mean loss."""
        terms = self.functions.loss(outputs, batch, self.job.recipe)
        return {n: (t * batch["real"].astype(t.dtype)).sum() / weight for n, t in terms.items()}

    def _step(self, state: Tree, batch: Tree, numbers: Tree) -> tuple[Tree, Any]:
        """Return the state after a step, and its loss and checksum."""
        batch = self._seen(batch)
        rows, placed = self.tables.find(batch)
        rest = {"kept": state["kept"], "buffers": state["buffers"]}
        whole = {"params": state["params"], "slots": state["slots"]}
        own = take(rows, whole)
        (buffers, _, terms), grads = self._gradient(own["params"], rest, placed, numbers)
        params, slots = self.optimizer.step(numbers, own["params"], grads, own["slots"])
        after = put(rows, whole, {"params": params, "slots": slots})
        state = {**state, **after, "buffers": buffers}
        return state, (functools.reduce(jnp.add, terms.values()), self.checksum(batch))

    def _program(self, count: int) -> Callable:
        """Return a function that makes the steps of `count` rows of a window, unrolled."""

        def steps(state: Tree, rows: Sequence[tuple[Tree, Array]]) -> tuple[Tree, Any]:
            results = []
            for batch, numbers in rows:
                state, result = self._step(state, batch, self._named(numbers))
                results.append(result)
            losses, checksums = zip(*results)
            return state, (jnp.stack(losses), jnp.stack(checksums))

        if not self.compiled:
            return steps
        # Results are spread over the mesh as the state came, so that they can go in again.
        return jax.jit(steps, donate_argnums=0, out_shardings=self.placement.replicated)

    def _named(self, numbers: Array) -> Tree:
        return {name: numbers[k] for k, name in enumerate(self.numbers)}

    def _cut(self, batch: Tree, numbers: Array, first: int) -> list[tuple[Tree, Array]]:
        """Cut some rows out of a window: within a step, to choose one would take 0.15 ms."""

        def at(array: Array, k: int) -> Array:
            return jax.lax.dynamic_index_in_dim(array, first + k, keepdims=False)

        return [
            ({name: at(array, k) for name, array in batch.items()}, at(numbers, k))
            for k in range(self.at_once)
        ]

    def _window(self, window: Window) -> list[tuple[Tree, Array]]:
        found = {"weight": window.weights, **window.scalars, **window.numbers}
        numbers = np.stack([found[name] for name in self.numbers], axis=1, dtype=np.float64)
        arrays = self.placement.put(window.batch, 1, numbers.astype(self.param_dtype))
        rows: list[tuple[Tree, Array]] = []
        while (done := len(rows)) < self.job.window_steps:
            first = min(done, self.job.window_steps - self.at_once)
            rows += self._rows(*arrays, first)[done - first :]
        return rows

    def stage(self, window: Window) -> Window:
        # Of several processes each must start its programs in the same order.
        alone = self.topology.world_size == 1
        return replace(window, staged=self._window(window)) if alone else window

    def train(self, window: Window) -> Pending:
        rows = window.staged or self._window(window)
        pending, first = [], 0
        while first < window.steps:
            # Anchored at the window's start, so that a resumed run takes the same programs.
            count = self.several if first + self.several <= window.steps else 1
            program = self.programs[window.length, count]
            self.values, result = program(self.values, rows[first : first + count])
            pending.append(result)
            first += count
        return pending

    def fetch(self, pending: Pending) -> tuple[np.ndarray, np.ndarray]:
        # On a CPU each is looked at in 1 us, where `device_get` takes 10: a window has fifty.
        results = pending if jax.default_backend() == "cpu" else jax.device_get(pending)
        losses = np.concatenate([np.asarray(loss) for loss, _ in results]).astype(np.float64)
        return losses, np.concatenate([np.asarray(check) for _, check in results])

    def _evaluation_sums(self, values: Tree, batch: Tree, numbers: Tree) -> tuple[Tree, Tree]:
        batch = {**self._seen(batch), **numbers}
        outputs = self.call(values["params"], values, self.inputs(batch), train=False).outputs
        sums, columns = self.functions.metrics(outputs, batch, self.job.recipe)
        terms = self.functions.loss(outputs, batch, self.job.recipe)
        sums |= {"loss": functools.reduce(jnp.add, terms.values())}
        sums |= {"examples": jnp.ones_like(batch["real"]), "weight": batch["weight"]}
        return {n: (v * batch["real"].astype(v.dtype)).sum() for n, v in sums.items()}, columns

    def evaluate(self, batches: Iterable[Mapping[str, np.ndarray]]) -> Evaluation:
        values = {name: self.values[name] for name in ("params", "kept", "buffers")}
        found, columns = [], collecting.Columns(self.job.workload, self.topology.world_size)
        for arrays in batches:
            numbers = {name: a for name, a in arrays.items() if not a.ndim}
            split = {name: a for name, a in arrays.items() if a.ndim}
            sums, kept = self._evaluation(values, *self.placement.put(split, 0, numbers))
            columns.add({name: local(column) for name, column in kept.items()}, arrays["real"])
            found.append(sums)
        parts = jax.device_get(found)
        totals = {name: float(np.sum([part[name] for part in parts])) for name in parts[0]}
        gathered = columns.gathered(collecting.as_bytes(self.placement.gathered))
        return Evaluation(sums=totals, columns=gathered)

    def probe(self, window: Window) -> dict[str, np.ndarray]:
        values = {name: self.values[name] for name in ("params", "kept", "buffers")}
        return jax_probe.told(self, self._probed(values, *self._window(window)[0]))

    def _probe(self, values: Tree, batch: Tree, numbers: Array) -> Any:
        """Return loss, gradient and checksum as a step has them, and what `jax_probe` sees."""
        batch, params, found = self._seen(batch), values["params"], {}
        rows, placed = self.tables.find(batch)
        aside, grads = self._gradient(take(rows, params), values, placed, self._named(numbers))
        zeros = {name: jnp.zeros_like(params[name]) for name in rows}
        trained = aside, put(rows, zeros, grads)  # of whole tables
        if self.topology.devices == 1:
            found = jax_probe.look(self, params, values, batch, self._named(numbers))
        return trained, self.checksum(batch), found

    # Preparation and state -------------------------------------------------------------------

    def prepare(self) -> Preparation:
        if not self.compiled:
            begin, values = time.perf_counter(), self.values
            for length in self.job.lengths:
                self.fetch(self.train(Window.blank(self.job, length)))
            self.values = values
            seconds = time.perf_counter() - begin
            return Preparation(trace_seconds=0.0, compile_seconds=seconds, cache="none")
        rows = {n: self._window(Window.blank(self.job, n)) for n in self.job.lengths}
        arguments = {key: (self.values, rows[key[0]][: key[1]]) for key in self.programs}
        self.programs, preparation = jax_runtime.compiled(self.programs, arguments)
        return preparation

    def load(self, state: State) -> None:
        state = weights.complete(state, self.job.workload, self.job.recipe)

        def native(role: str, wanted: Iterable[str]) -> Tree:
            own = {name: (name, self.names[name][1]) for name in wanted}
            arrays = naming.to_native({name: state[f"{role}/{name}"] for name in own}, own)
            # Copies: the step donates its state, which must not be the caller's memory.
            return {n: self.placement.replicate(self._typed(a)) for n, a in arrays.items()}

        self.values = {}  # what was held goes first
        self.values = {
            "params": native("param", self.trained),
            "kept": native("param", self.frozen),
            "buffers": native("buffer", self.buffers),
            "slots": {slot: native(slot, own) for slot, own in self.optimizer.slots.items()},
        }

    def _typed(self, array: np.ndarray) -> np.ndarray:
        return array.astype(self.param_dtype, copy=False) if array.dtype.kind == "f" else array

    def state(self) -> dict[str, np.ndarray]:
        values = self.values
        roles = {"param": {**values["params"], **values["kept"]}, **values["slots"]}
        return {
            f"{role}/{name}": value
            for role, arrays in {**roles, "buffer": values["buffers"]}.items()
            for name, value in self.to_neutral(arrays).items()
        }

    def to_neutral(self, arrays: Tree) -> dict[str, np.ndarray]:
        order = [name for name in self.names if name in arrays]
        found = {name: local(arrays[name]) for name in order}
        return naming.to_neutral(found, {name: (name, self.names[name][1]) for name in order})

    # The rest --------------------------------------------------------------------------------

    def agree(self, values: Sequence[int]) -> list[int]:
        told = self.placement.gathered(np.array(values, np.int32))
        return [int(value) for value in np.max(told, axis=0)]

    def facts(self) -> dict[str, Any]:
        return jax_runtime.facts(self.job, self.placement.mesh.size)

    def memory(self) -> dict[str, int]:
        return jax_runtime.memory()

    def close(self) -> None:
        if self.topology.world_size > 1:
            jax.distributed.shutdown()
