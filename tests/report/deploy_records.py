"""Records of what comes after training, as the stage `deploy` writes them."""

import copy
from typing import Any

EQUAL = {
    "examples": 360, "largest": 2e-5, "scale": 20.0, "decided_otherwise": 0, "first": None,
    "passed": True,
}  # fmt: skip
OPENING = {"import": 1.0, "load": 0.5, "first_answer": 0.25}
HOST = {"cpu": "a CPU", "instruction_set": "avx2"}
SETTINGS = {"queries": 1000, "batches": [64], "repeats": 3, "threads": 1}


def repetition(p99: float = 0.0002, share: float = 1.0, **more: Any) -> dict[str, Any]:
    seconds = {"p50": 0.0001, "p90": 0.00015, "p99": p99}
    shares = {"cpu_share": share, "waited_share": 1 - share}
    return {
        "reason": None,
        "disturbed": None,
        "cold_seconds": OPENING,
        "single_stream": {"queries": 1200, "seconds": seconds, **shares},
        "offline": [{"batch": 64, "samples_per_second": 25_000.0}],
        "peak_bytes": 100_000_000,
        **more,
    }


def route(framework: str, name: str, *repetitions: dict[str, Any], **more: Any) -> dict[str, Any]:
    exact = {"reason": None, "equality": EQUAL | {"largest": 2e-14}}
    known = {"framework": framework, "route": name, "reason": None, "equality": EQUAL}
    return {**known, "bytes": 87_360, "exact": exact, "repetitions": [*repetitions], **more}


def apart(largest: float) -> dict[str, Any]:
    return {"largest": largest, "scale": 20.0, "decided_otherwise": 0, "decisions": 360}


def form(name: str, *accuracies: float, **more: Any) -> dict[str, Any]:
    told = {"reason": None, "metrics": [{"accuracy": a} for a in accuracies],
            "from_float32": apart(0.1)}  # fmt: skip
    frameworks = {"torch": copy.deepcopy(told), "jax": copy.deepcopy(told)}
    return {"form": name, "reason": None, "bytes": 87_360, "zeros": 0.0, "frameworks": frameworks,
            "between": apart(2e-6), **more}  # fmt: skip


def record(*routes: dict[str, Any], compressed: Any = None) -> dict[str, Any]:
    reference = {"reason": None, "examples": 360, "metrics": {"accuracy": 0.97},
                 "recorded": {"accuracy": 0.97}}  # fmt: skip
    about = {"left_out": [], "seeds": [0, 1], "metric": "accuracy"}
    return {"schema": "lockstep-deploy/1", "workload": "mnist_cnn", "settings": SETTINGS,
            "host": HOST, "run": "mnist_cnn/torch-eager/1x1/seed-0", "reference": reference,
            "routes": [*routes], "compressed": compressed, "compression": about}  # fmt: skip
