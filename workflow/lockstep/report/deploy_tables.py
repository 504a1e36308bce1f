"""Tables of what comes after training (`lockstep.deploy`): equality, times, size.

A repetition counts unless other programs disturbed it; figures are medians over those that count.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lockstep.records import deploy_record
from lockstep.report.dataframes import Workload
from lockstep.report.statistics import Mean
from lockstep.report.tables import Absent, Table, table

WHO = "framework | Framework\nroute | Route\n"
NAMES = {
    ("torch", "eager"): "eager",
    ("torch", "compiled"): "torch.compile",
    ("torch", "export"): "torch.export, AOTInductor",
    ("torch", "onnx"): "torch.onnx, ONNX Runtime",
    ("jax", "eager"): "eager",
    ("jax", "compiled"): "jax.jit",
    ("jax", "export"): "jax.export",
    ("jax", "onnx"): "jax2onnx, ONNX Runtime",
}
FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX"}

SHARE = 0.95
"""Of a CPU that a process must have had for its 99th percentile to be told: it was 4 to 60 times
larger wherever something else had more (docs/performance.md)."""
LEAST = 1000
"""Queries for a 99th percentile."""

Row = Mapping[str, Any]


def routes(view: Workload) -> Table | None:
    """Return which routes there are, how equal and how large; None if nothing is deployed."""
    record = view.records.deployed.get(view.name)
    if record is None:
        return None
    return table(
        f"{view.name}-deploy-routes",
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
    metrics = told.get("metrics", {})
    own = {name: told.get("recorded", {}).get(name) for name in metrics}
    same = "the values that the run recorded" if own == metrics else f"the run recorded {own}"
    values = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
    return (
        f"All routes serve the final state of {run}: the same stored bytes in, logits out, with "
        f"the preprocessing inside. The reference is training's own evaluation of the test split "
        f"({values}: {same}). Allowed are 1e-5 of the largest logit in float32 and 1e-11 in "
        "float64, and no other answer. The artefact of a route without one is its weights. "
        "Operations are those of the exported graph."
    )


def _route(row: Row) -> dict[str, Any]:
    exact = row.get("exact") or {"reason": None, "equality": None}
    known: dict[str, Any] = {
        **_who(row),
        "status": "the same" if row["reason"] is None else row["reason"],
        "bytes": row.get("bytes"),
        "nodes": row.get("nodes"),
        "export_seconds": row.get("export_seconds"),
    }
    if equality := row.get("equality"):
        known |= {"relative": equality["largest"] / equality["scale"]}
        known |= {"otherwise": equality["decided_otherwise"], "examples": equality["examples"]}
    if told := exact["equality"]:
        known["exact"] = told["largest"] / told["scale"]
    elif exact["reason"] and row["reason"] is None:
        known["exact"] = Absent(exact["reason"])
    return known


def _who(row: Row) -> dict[str, str]:
    framework, route = str(row["framework"]), str(row["route"])
    name = NAMES.get((framework, route), route)
    return {"framework": FRAMEWORKS[framework], "route": name}


def times(view: Workload) -> Table | None:
    """Return latency, throughput, starts and memory of the routes whose logits are the same."""
    record = view.records.deployed.get(view.name)
    timed = [row for row in record["routes"] if row.get("repetitions")] if record else []
    if not record or not timed:
        return None
    settings = record["settings"]
    threads = f"{settings['threads']} CPU thread{'s' if settings['threads'] > 1 else ''}"
    return table(
        f"{view.name}-deploy-times",
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
        first | First answer | s | 3f
        uncached | First answer, nothing compiled | s | 2f
        peak | Peak memory | MB | 0f""",
        [_times(row, settings) for row in timed],
        f"Not an MLPerf result; its terms: one by one is SingleStream ({settings['queries']} "
        "queries or more, from arrays in host memory to logits in host memory), in batches is "
        f"Offline. On {threads} of a CPU, medians over {settings['repeats']} "
        f"fresh process{'es' if settings['repeats'] > 1 else ''} in random order; "
        "those that other programs disturbed are left out. The 99th percentile is "
        f"of those that had {SHARE:.0%} of a CPU. torch.compile starts from what it has compiled "
        "before, JAX compiles anew. Both ONNX routes run in one runtime: what differs between "
        "them is the exporter's graph, not the framework.",
    )


def _times(row: Row, settings: Row) -> dict[str, Any]:
    every = row["repetitions"]
    own = deploy_record.counted(row)
    known: dict[str, Any] = {**_who(row), "n": len(own)}
    if not own:
        why = "; ".join(dict.fromkeys(str(each["reason"] or each["disturbed"]) for each in every))
        return {**known, "p50": Absent(f"no repetition counts: {why}")}
    single = [each["single_stream"] for each in own]
    enough = [each for each in single if each["queries"] >= LEAST]
    steady = [each for each in enough if each["cpu_share"] >= SHARE]
    waited = [each["waited_share"] for each in single if each.get("waited_share") is not None]
    p99: Any = Absent(f"no repetition had {SHARE:.0%} of a CPU")
    if not enough:
        p99 = Absent(f"it takes {LEAST:,} queries")
    elif steady:
        p99 = _median(each["seconds"]["p99"] for each in steady)
    known |= {
        "p50": _median(each["seconds"]["p50"] for each in single),
        "p90": _median(each["seconds"]["p90"] for each in single),
        "p99": p99,
        "share": min(each["cpu_share"] for each in single),
        "waited": max(waited, default=None),
        "peak": _median(each["peak_bytes"] for each in own if each["peak_bytes"] is not None),
    }
    for name, key in (("import", "import"), ("load", "load"), ("first", "first_answer")):
        known[name] = _median(each["cold_seconds"][key] for each in own)
    for batch in settings["batches"]:
        rates = [o["samples_per_second"] for e in own for o in e["offline"] if o["batch"] == batch]
        known[f"rate{batch}"] = _median(rates)
    if uncached := row.get("uncached_seconds"):
        known["uncached"] = uncached["first_answer"]
    return known


FORMS = {
    "float32": "float32",
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
    if record is None or not record.get("compressed"):
        return None
    about = record["compression"]
    name, seeds = about["metric"].replace("_", " "), len(about["seeds"])
    first, rows = record["compressed"][0], []
    for row in record["compressed"]:
        for framework, told in row["frameworks"].items():
            known = {"form": FORMS.get(row["form"], row["form"]), "bytes": row.get("bytes"),
                     "zeros": row.get("zeros"), "framework": FRAMEWORKS[framework]}  # fmt: skip
            reason = row["reason"] or told["reason"]
            if reason:
                rows.append({**known, "metric": Absent(reason)})
                continue
            base = first["frameworks"][framework].get("metrics") or []
            rows.append({**known, **_cost(about["metric"], base, told), **_between(row)})
    left_out = f" Left out: {'; '.join(about['left_out'])}." if about["left_out"] else ""
    return table(
        f"{view.name}-deploy-compressed",
        "Compressed: what it costs, and do both frameworks agree?",
        f"""form | Form
        framework | Framework
        metric | Final {name} | | 4f
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
        rows,
        f"Each form is made once by NumPy from the final states of {seeds} "
        f"run{'s' if seeds != 1 else ''}, and evaluated by both frameworks; no form is trained "
        "further. The change is from float32, its mean over seeds with a paired t interval. Logits "
        "are of the first state. Integers of a kernel have a scale for each output channel; those "
        "of activations have static scales, from 256 training examples. Speed is not measured: "
        f"these forms are evaluated, not served.{left_out}",
    )


def _cost(metric: str, base: Sequence[Row], told: Row) -> dict[str, Any]:
    values = np.array([each[metric] for each in told["metrics"]])
    known: dict[str, Any] = {"metric": float(values.mean())}
    moved = told["from_float32"]
    known |= {"moved": moved["largest"] / (moved["scale"] or 1.0)}
    known |= {"otherwise": moved["decided_otherwise"]}
    if len(base) != len(values):
        return known
    changes = values - np.array([each[metric] for each in base])
    known["change"] = float(changes.mean())
    if len(changes) > 1 and changes.std() > 0:
        low, high = Mean.of(changes).interval()
        known |= {"low": float(low), "high": float(high)}
    return known


def _between(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if between := row.get("between"):
        found |= {"between": between["largest"] / (between["scale"] or 1.0)}
        found |= {"between_otherwise": between["decided_otherwise"]}
    if sums := row.get("sums"):
        found["sums"] = sums["equal"] / sums["compared"]
    return found


def _median(values: Any) -> float | None:
    found: Sequence[float] = list(values)
    return float(np.median(found)) if found else None
