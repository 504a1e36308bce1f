"""A trained model in JAX, a function from stored bytes to logits, and the routes out of it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import Array

from lockstep.deploy.reading import OUTPUT, Answer, Arrays, reads
from lockstep.engines import jax_module
from lockstep.engines.contract import Job
from lockstep.engines.jax_random import Random
from lockstep.workloads.weights import State

PACKAGE, GRAPH = "model.stablehlo", "model.onnx"
PACKAGES, EXPORTERS = ("jax", "jaxlib"), ("onnx", "jax2onnx")
OPSET = 20

Tensors = Mapping[str, Array]


class Served:
    """From a batch's arrays to logits: preprocessing, model and nothing else.

    Convolutions are XLA's own: no exporter knows what another lowering spells out as one.
    """

    def __init__(self, job: Job, state: State) -> None:
        self.functions = job.workload.functions("jax")
        self.job, model = job, job.recipe["model"]
        self.dtype = jnp.dtype(job.settings.param_dtype)
        self.model = jax_module.built(self.functions, model, job.settings, job.workload.name)
        self.names = self.functions.names(model)
        self.buffers = [buffer.name for buffer in job.workload.buffers(model)]
        self.tensors = {name: self._tensor(name, state) for name in self.names}

    def _tensor(self, name: str, state: State) -> Array:
        layout = self.names[name][1]
        value = state.get(f"param/{name}", state.get(f"buffer/{name}"))
        assert value is not None
        value = layout.apply(value) if layout else value
        return jnp.asarray(value, self.dtype if value.dtype.kind == "f" else value.dtype)

    def __call__(self, tensors: Tensors, batch: Mapping[str, Array]) -> Array:
        """Return the logits of a batch."""
        if hasattr(self.functions, "augment"):
            batch = self.functions.augment(batch, self.job.recipe, self.job.data)
        if hasattr(self.functions, "inputs"):
            batch = self.functions.inputs(batch, self.dtype)
        random = Random(batch, train=False, native=False)
        called = self.model(self.names, tensors, batch, random, False, self.buffers)
        return called.outputs[OUTPUT]

    def fixed(self, batch: Mapping[str, Array]) -> Array:
        """Return the logits of a batch, with the weights as constants."""
        return self(self.tensors, batch)


def configure(precision: str, threads: int, caches: Path) -> None:
    """Compute in a precision; XLA takes as many threads as this process has CPUs.

    Programs are compiled anew in each process: they are small, and served elsewhere.
    """
    jax.config.update("jax_enable_x64", precision == "float64")
    jax.config.update("jax_default_matmul_precision", "highest")


def bound(route: str) -> bool:
    """Return whether a route's artefact is native code for this CPU."""
    return False


def questions(job: Job, state: State, batch: Arrays) -> list[str]:
    """Return the names of the arrays of a batch that the model reads."""
    return reads(lambda some: jax.eval_shape(Served(job, state).fixed, some), batch)


def eager(job: Job, state: State) -> Answer:
    """Return what answers op by op."""
    served = Served(job, state)
    return lambda batch: np.asarray(served(served.tensors, dict(map(_put, batch.items()))))


def _put(item: tuple[str, np.ndarray]) -> tuple[str, Array]:
    return item[0], jnp.asarray(item[1])


def compiled(job: Job, state: State) -> Answer:
    """Return what answers by `jax.jit`, a program for each batch size."""
    served = Served(job, state)
    program = jax.jit(served.__call__)
    return lambda batch: np.asarray(program(served.tensors, dict(batch)))


def export(job: Job, state: State, batch: Arrays, folder: Path) -> dict[str, Any]:
    """Write a serialised StableHLO program for any batch size."""
    (size,) = jax.export.symbolic_shape("b")
    shapes = {n: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype) for n, a in batch.items()}
    program = jax.export.export(jax.jit(Served(job, state).fixed))(shapes)
    (folder / PACKAGE).write_bytes(program.serialize())
    return {"nodes": program.mlir_module().count("stablehlo.")}


def load(folder: Path) -> Answer:
    """Return what answers by a serialised program, compiled for each batch size."""
    program = jax.jit(jax.export.deserialize(bytearray((folder / PACKAGE).read_bytes())).call)
    return lambda batch: np.asarray(program(dict(batch)))


def onnx(job: Job, state: State, batch: Arrays, folder: Path) -> dict[str, Any]:
    """Write an ONNX graph, by jax2onnx."""
    import jax2onnx
    import onnx as files

    # It warns of inner arrays whose types it does not know, which nothing needs.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)

    names, served = list(batch), Served(job, state)

    def positional(*arrays: Array) -> Array:
        return served.fixed(dict(zip(names, arrays)))

    shapes = [jax.ShapeDtypeStruct(("B", *a.shape[1:]), a.dtype) for a in batch.values()]
    graph = jax2onnx.to_onnx(
        positional,
        shapes,
        opset=OPSET,
        enable_double_precision=job.variant["precision"] == "float64",
        input_names=names,
        output_names=[OUTPUT],
    )
    files.save(graph, str(folder / GRAPH))
    return {}
