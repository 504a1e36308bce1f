"""A trained model in PyTorch, a function from stored bytes to logits, and the routes out of it."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lockstep.deploy.reading import OUTPUT, Answer, Arrays, reads
from lockstep.engines.contract import Job
from lockstep.engines.torch_random import Random
from lockstep.workloads import naming
from lockstep.workloads.weights import State

PACKAGE, PROGRAM, GRAPH = "model.pt2", "program.pt2", "model.onnx"
PACKAGES, EXPORTERS = ("torch",), ("onnx", "onnxscript")
OPSET = 20


class Served(torch.nn.Module):
    """From a batch's arrays to logits: preprocessing, model and nothing else."""

    def __init__(self, job: Job, state: State) -> None:
        super().__init__()
        self.functions = job.workload.functions("torch")
        self.job = job
        self.dtype = getattr(torch, job.settings.param_dtype)
        model = job.recipe["model"]
        self.model = self.functions.build(model, job.settings).to(self.dtype).eval()
        tensors = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        names = self.functions.names(model)
        own = {name: state[_role(name, state)] for name in names}
        with torch.no_grad():
            for target, array in naming.to_native(own, names).items():
                tensors[target].copy_(torch.from_numpy(np.ascontiguousarray(array)))
                tensors[target].requires_grad_(False)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of a batch."""
        if hasattr(self.functions, "augment"):
            batch = self.functions.augment(batch, self.job.recipe, self.job.data)
        if hasattr(self.functions, "inputs"):
            batch = self.functions.inputs(batch, self.dtype)
        random = Random(batch, train=False, native=False)
        logits: Tensor = self.functions.forward(self.model, batch, random, False)[OUTPUT]
        return logits


def _role(name: str, state: State) -> str:
    return f"param/{name}" if f"param/{name}" in state else f"buffer/{name}"


def configure(precision: str, threads: int, caches: Path) -> None:
    """Use so many threads, and keep compiled programs."""
    torch.set_num_threads(threads)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(caches / "inductor")
    # It warns of a CUDA toolkit without a GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def bound(route: str) -> bool:
    """Return whether a route's artefact is native code for this CPU."""
    return route == "export"


def questions(job: Job, state: State, batch: Arrays) -> list[str]:
    """Return the names of the arrays of a batch that the model reads."""
    served = Served(job, state)
    return reads(lambda some: served({n: torch.from_numpy(a) for n, a in some.items()}), batch)


def eager(job: Job, state: State) -> Answer:
    """Return what answers op by op."""
    return _asked(Served(job, state))


def compiled(job: Job, state: State) -> Answer:
    """Return what answers by `torch.compile`: a program for one example, one for more."""
    return _asked(torch.compile(Served(job, state), dynamic=True))


def _asked(call: Callable[..., Tensor]) -> Answer:
    def answer(batch: Arrays) -> np.ndarray:
        with torch.inference_mode():
            return call({n: torch.from_numpy(a) for n, a in batch.items()}).numpy()

    return answer


def _exported(job: Job, state: State, batch: Arrays) -> torch.export.ExportedProgram:
    """Return a program for any batch size, traced with a batch of two or more."""
    size = torch.export.Dim("batch", min=1, max=4096)
    example = {n: torch.from_numpy(a) for n, a in batch.items()}
    shapes = {"batch": {n: {0: size} for n in example}}
    with torch.no_grad():
        return torch.export.export(Served(job, state), (example,), dynamic_shapes=shapes)


def export(job: Job, state: State, batch: Arrays, folder: Path) -> dict[str, Any]:
    """Write an AOTInductor package, which is bound to this CPU's instruction set.

    In float64, which nobody serves, the exported program itself is enough.
    """
    program = _exported(job, state, batch)
    if job.variant["precision"] == "float64":
        torch.export.save(program, str(folder / PROGRAM))
    else:
        torch._inductor.aoti_compile_and_package(program, package_path=str(folder / PACKAGE))
    return {"nodes": sum(node.op == "call_function" for node in program.graph.nodes)}


def load(folder: Path) -> Answer:
    """Return what answers by a package, or by a program."""
    if (folder / PROGRAM).is_file():
        return _asked(torch.export.load(str(folder / PROGRAM)).module())
    return _asked(torch._inductor.aoti_load_package(str(folder / PACKAGE)))


def onnx(job: Job, state: State, batch: Arrays, folder: Path) -> dict[str, Any]:
    """Write an ONNX graph."""
    program = torch.onnx.export(
        _exported(job, state, batch),
        input_names=list(batch),
        output_names=[OUTPUT],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(str(folder / GRAPH))
    return {}
