"""Tables of what comes after training (`lockstep.deploy`): equality, times, size.

A repetition counts unless other programs disturbed it; figures are medians over those that count.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lockstep.records import deploy_record
from lockstep.report.conditions import FRAMEWORKS
from lockstep.report.dataframes import Workload
from lockstep.report.statistics import Mean
from lockstep.report.tables import Absent, Table, table

WHO = "framework | Framework\nroute | Route\n"
NAMES = {
    ("torch", "compiled"): "torch.compile",
    ("torch", "export"): "torch.export, AOTInductor",
    ("torch", "onnx"): "torch.onnx, ONNX Runtime",
    ("jax", "compiled"): "jax.jit",
    ("jax", "export"): "jax.export",
    ("jax", "onnx"): "jax2onnx, ONNX Runtime",
}

SHARE = 0.95
"""Of a CPU that a process must have had for its 99th percentile to be told: it was 4 to 60 times
larger wherever something else had more (docs/performance.md)."""
LEAST = 1000
"""Queries for a 99th percentile."""

Row = Mapping[str, Any]


def _who(row: Row) -> dict[str, str]:
    framework, route = str(row["framework"]), str(row["route"])
    return {"framework": FRAMEWORKS[framework], "route": NAMES.get((framework, route), route)}


def _share(found: Row | None) -> float | None:
    """Return the largest difference as a share of the largest logit."""
    return found["largest"] / (found["scale"] or 1.0) if found else None


def routes(view: Workload) -> Table | None:
    """Return which routes there are, how equal and how large; None if nothing is deployed."""
    record = view.records.deployed.get(view.name)
    if record is None:
        return None
    return table(
        "Routes from the trained model to answers: are they the same model?",
        f"""{WHO}status | Logits are
        relative | Largest difference, of the largest logit | | 2g
        exact | The same in float64 | | 2g
        otherwise | Answered otherwise | | d
        examples | of examples | | d
        bytes | Artefact | kB | 4g
        nodes | Operations | | d
        export_seconds | Export | s | 1f""",
        [_route(row) for row in record["routes"]],
        _reference(record),
    )


def _reference(record: Row) -> str:
    told, run = record["reference"], record["run"]
    if told["reason"]:
        return f"Of the final state of {run}: {told['reason']}."
    recorded = told.get("recorded", {})
    values = (
        f"{name} {value:.6g}, the run recorded {recorded.get(name)}"
        for name, value in told.get("metrics", {}).items()
    )
    return (
        f"All routes serve the final state of {run}: the same stored bytes in, logits out, with "
        f"the preprocessing inside. The reference is training's own evaluation of the test split "
        f"({'; '.join(values)}). Allowed are 1e-5 of the largest logit in float32 and 1e-11 in "
        "float64, and no other answer. The artefact of a route without one is its weights. "
        "Operations are those of the exported graph."
    )


def _route(row: Row) -> Row:
    equality, exact = row.get("equality") or {}, row.get("exact") or {}
    why = exact.get("reason") if row["reason"] is None else None
    return {
        **row,
        **_who(row),
        "status": row["reason"] or "the same",
        "relative": _share(equality),
        "exact": Absent(why) if why else _share(exact.get("equality")),
        "otherwise": equality.get("decided_otherwise"),
        "examples": equality.get("examples"),
    }


def times(view: Workload) -> Table | None:
    """Return latency, throughput, starts and memory of the routes whose logits are the same."""
    record = view.records.deployed.get(view.name) or {"routes": ()}
    timed = [row for row in record["routes"] if row.get("repetitions")]
    if not timed:
        return None
    settings = record["settings"]
    return table(
        "What an answer takes",
        f"""{WHO}n | Repetitions | | d
        p50 | One by one, p50 | ms | 4g
        p90 | p90 | ms | 4g
        p99 | p99 | ms | 4g
        share | Share of a CPU, least | % | 1f
        waited | Waited for a CPU, most | % | 2f
        """
        + "".join(f"rate{b} | In batches of {b} | /s | 0f\n" for b in settings["batches"])
        + """import | Import | s | 3f
        load | Load | s | 3f
        first_answer | First answer | s | 3f
        uncached | First answer, nothing compiled | s | 2f
        peak | Peak memory | MB | 0f""",
        [{**_who(row), **_times(row)} for row in timed],
        f"Not an MLPerf result; its terms: one by one is SingleStream ({settings['queries']} "
        "queries or more, from arrays in host memory to logits in host memory), in batches is "
        f"Offline. CPU threads: {settings['threads']}. Medians over fresh processes in random "
        f"order ({settings['repeats']}); those that other programs disturbed are left out. The "
        f"99th percentile is of those that had {SHARE:.0%} of a CPU. torch.compile starts from "
        "what it has compiled before, JAX compiles anew. Both ONNX routes run in one runtime: what "
        "differs between them is the exporter's graph, not the framework.",
    )


def _times(row: Row) -> dict[str, Any]:
    counted = deploy_record.counted(row)
    if not counted:
        every = (each["reason"] or each["disturbed"] for each in row["repetitions"])
        why = "; ".join(dict.fromkeys(map(str, every)))
        return {"n": 0, "p50": Absent(f"no repetition counts: {why}")}
    own = pd.json_normalize([*counted])
    single, starts = (
        own.filter(like=part).rename(columns=lambda key: key.rpartition(".")[2])
        for part in ("single_stream.", "cold_seconds.")
    )
    enough = single[single["queries"] >= LEAST]
    steady = enough[enough["cpu_share"] >= SHARE]
    p99 = Absent(f"no repetition had {SHARE:.0%} of a CPU" if len(enough) else
                 f"it takes {LEAST:,} queries")  # fmt: skip
    offline = pd.DataFrame(own["offline"].explode().tolist())
    rates = offline.groupby("batch")["samples_per_second"].median()
    return {
        "n": len(own),
        **single[["p50", "p90"]].median(),
        **starts.median(),
        "p99": steady["p99"].median() if len(steady) else p99,
        "share": single["cpu_share"].min(),
        "waited": single.get("waited_share", pd.Series()).astype(float).max(),
        "peak": own["peak_bytes"].astype(float).median(),
        **{f"rate{batch}": rate for batch, rate in rates.items()},
        "uncached": (row.get("uncached_seconds") or {}).get("first_answer"),
    }


FORMS = {
    "bf16": "bfloat16 weights",
    "int8": "int8 weights",
    "int4": "int4 weights",
    "w8a8": "int8 weights and activations",
    "half": "half of the weights zero",
    "2of4": "two of four weights zero",
}


def compressed(view: Workload) -> Table | None:
    """Return what compression costs, in both frameworks; None if nothing was compressed."""
    record = view.records.deployed.get(view.name)
    if record is None or not (forms := record.get("compressed")):
        return None
    about = record["compression"]
    left_out = f" Left out: {'; '.join(about['left_out'])}." if about["left_out"] else ""
    return table(
        "Compressed: what it costs, and do both frameworks agree?",
        f"""form | Form
        framework | Framework
        metric | Final {about["metric"].replace("_", " ")} | | 4f
        change | Change | | 4f
        low | 95% from | | 4f
        high | to | | 4f
        bytes | Size | kB | 4g
        zeros | Zeros among weights | % | 1f
        moved | Logits moved, of the largest | | 2g
        otherwise | Decisions moved | | d
        between | PyTorch to JAX, of the largest logit | | 2g
        between_otherwise | Decisions that differ | | d
        sums | Equal integer sums | | 6f""",
        [
            _form(about["metric"], form, framework, forms[0]["frameworks"][framework])
            for form in forms
            for framework in form["frameworks"]
        ],
        "Each form is made once by NumPy from the final states of the runs of seeds "
        f"{', '.join(map(str, about['seeds']))}, and evaluated by both frameworks; no form is "
        "trained further. The change is from float32, its mean over seeds with a paired t "
        "interval. Logits are of the first state. Integers of a kernel have a scale for each "
        "output channel; those of activations have static scales, from 256 training examples. "
        f"Speed is not measured: these forms are evaluated, not served.{left_out}",
    )


def _form(metric: str, form: Row, framework: str, float32: Row) -> dict[str, Any]:
    told = form["frameworks"][framework]
    known: dict[str, Any] = {name: form.get(name) for name in ("bytes", "zeros")}
    known |= {"form": FORMS.get(form["form"], form["form"]), "framework": FRAMEWORKS[framework]}
    if reason := form["reason"] or told["reason"]:
        return {**known, "metric": Absent(reason)}
    values = _values(metric, told)
    between, sums = form.get("between") or {}, form.get("sums")
    known |= {
        "metric": float(values.mean()),
        "moved": _share(told["from_float32"]),
        "otherwise": told["from_float32"]["decided_otherwise"],
        "between": _share(between),
        "between_otherwise": between.get("decided_otherwise"),
        "sums": sums["equal"] / sums["compared"] if sums else None,
    }
    base = _values(metric, float32)
    if len(base) == len(values):
        changes = values - base
        known["change"] = float(changes.mean())
        if len(changes) > 1 and changes.std() > 0:
            known["low"], known["high"] = map(float, Mean.of(changes).interval())
    return known


def _values(metric: str, told: Row) -> np.ndarray:
    return np.array([each[metric] for each in told.get("metrics") or ()])
