"""ONNX Runtime: the one runtime that both frameworks' exporters feed."""

import collections
from pathlib import Path
from typing import Any

import onnxruntime

from lockstep.deploy.reading import OUTPUT, Answer

GRAPH = "model.onnx"
PACKAGES = ("onnxruntime",)
OPTIONS = onnxruntime.SessionOptions()


def configure(precision: str, threads: int, caches: Path) -> None:
    """Use so many threads."""
    OPTIONS.intra_op_num_threads, OPTIONS.inter_op_num_threads = threads, 1


def load(folder: Path) -> Answer:
    """Return what answers by a graph, on the CPU."""
    path = str(folder / GRAPH)
    session = onnxruntime.InferenceSession(path, OPTIONS, providers=["CPUExecutionProvider"])
    return lambda batch: session.run([OUTPUT], dict(batch))[0]


def nodes(folder: Path) -> dict[str, Any]:
    """Return how many nodes a graph has, and of which kinds, the most frequent first."""
    import onnx

    graph = onnx.load(str(folder / GRAPH), load_external_data=False).graph
    kinds = collections.Counter(node.op_type for node in graph.node)
    return {"nodes": len(graph.node), "kinds": dict(kinds.most_common())}
