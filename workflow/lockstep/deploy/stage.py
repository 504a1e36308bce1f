"""The stage `deploy` of a workload: which processes there are, in which order, and their record.

The final state of one run is what all routes serve, in both frameworks. First the reference, then
each route is made and held to it, then those that hold are timed in fresh processes, one after the
other, in another order each time.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import files, inside, machine
from lockstep.deploy import agreement, processes
from lockstep.deploy.task import Task
from lockstep.errors import UserError
from lockstep.study import Study
from lockstep.study.run import Run
from lockstep.training import busy, contention
from lockstep.training.alone import alone

SCHEMA = "lockstep-deploy/1"
EXACT = "float64"
INEXACT = {
    "compiled": "it compiles what eager runs",
    "onnx": "ONNX Runtime lacks operations in float64, among them convolution",
}
"""Routes that are held to the reference in float32 alone, and why."""
NATIVE = {"convolution": "native"}
LOOKED_INTO = {**NATIVE, "mode": "eager"}
CHANGED: Mapping[str, Mapping[str, Any]] = {
    "reference": {},
    "make": NATIVE,
    "measure": NATIVE,
    "compressing": LOOKED_INTO,
    "compressed": LOOKED_INTO,
}
"""How a task's variant differs from the study's: exporters know XLA's own convolution alone, and a
layer that is looked into is not compiled."""
LONGEST_FIRST = ("compiled", "export", "onnx", "eager")


class Stage:
    """A workload's stage."""

    def __init__(self, study: Study, workload: str) -> None:
        self.study, self.workload = study, workload
        self.settings: Mapping[str, Any] = study.config["deploy"]
        self.folder = study.deployment(workload).parent
        self.scratch = self.folder / "work"
        self.runs = study.deployed_runs(workload)
        self.variants = study.deployed_variants()
        self._count = 0

    def make(self) -> dict[str, Any]:
        """Return the record of the workload."""
        first = self.runs[0]
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "study": self.study.name,
            "workload": self.workload,
            "settings": dict(self.settings),
            "run": first.name,
            "host": machine.facts(),
            "reference": self._problem(first) or self._reference(first),
        }
        routes = self._routes(record["reference"]["reason"])
        compressed = self._compress()
        self._measure([row for row in routes if row["reason"] is None])
        return {**record, "routes": routes, **compressed}

    def _problem(self, run: Run) -> dict[str, Any] | None:
        """Return why a run has nothing to deploy, None if it has."""
        folder = self.study.run_folder(run)
        summary = files.read_json(folder / "summary.json")
        if summary["status"] != "finished":
            return {"reason": f"{run.name} failed: {summary['reason']}"}
        if not (folder / "final.safetensors").is_file():
            return {"reason": f"{run.name} has no final state"}
        return None

    # Processes -------------------------------------------------------------------------------

    def _task(self, kind: str, framework: str, route: str, precision: str = "float32") -> Task:
        recipe, variant = self.study.workload(self.workload), self.variants[framework]
        self._count += 1
        return Task(
            kind=kind,
            framework=framework,
            route=route,
            precision=precision,
            recipe=recipe,
            variant={**variant, **CHANGED[kind]},
            dataset=str(self.study.dataset_manifest(recipe["dataset"])),
            states=[str(self.study.run_folder(run) / "final.safetensors") for run in self.runs],
            artefact=str(self._artefact(framework, route, precision)),
            scratch=str(self.scratch),
            caches=str(self.scratch / "caches"),
            result=str(self.scratch / f"{self._count}-result.json"),
            queries=self.settings["queries"],
            batches=self.settings["batches"],
            threads=self.settings["threads"],
            timeout=self.settings["timeout"],
            forms=self.settings["compress"],
        )

    def _artefact(self, framework: str, route: str, precision: str) -> Path:
        folder = self.folder / "artefacts" if precision == "float32" else self.scratch / precision
        return folder / framework / route

    def _run(self, tasks: Iterable[Task], at_once: int = 1) -> list[dict[str, Any]]:
        """Run a process for each task; returns their results."""
        tasks, commands = list(tasks), []
        for task in tasks:
            path = Path(task.result).with_name(Path(task.result).name.replace("result", "task"))
            task.save(path)
            line = inside.worker(self.study, task.framework, [str(path)], package="deploy")
            commands.append((task.result, line))
        statuses = processes.run(commands, threads=self.settings["threads"], at_once=at_once)
        return [processes.result(Path(task.result), statuses[task.result]) for task in tasks]

    # Its parts -------------------------------------------------------------------------------

    def _reference(self, run: Run) -> dict[str, Any]:
        """Evaluate as training does, in both precisions."""
        framework = self.study.framework(run)[0]
        tasks = [self._task("reference", framework, "", p) for p in ("float32", EXACT)]
        single, exact = self._run(tasks, at_once=min(2, processes.room(self.settings["threads"])))
        recorded = files.read_json(self.study.run_folder(run) / "summary.json")["metrics"]
        return {
            **single,
            "exact_reason": exact["reason"],
            "recorded": {n: recorded.get(f"test_{n}") for n in single.get("metrics", {})},
        }

    def _routes(self, problem: str | None) -> list[dict[str, Any]]:
        """Make each route and hold it to the reference, in both precisions."""
        wanted = [(f, r) for f in self.variants for r in self.settings["routes"]]
        if problem:
            return [{"framework": f, "route": r, "reason": problem} for f, r in wanted]
        tasks = [self._task("make", f, r, p) for p in ("float32", EXACT) for f, r in wanted
                 if p != EXACT or r not in INEXACT]  # fmt: skip
        tasks.sort(key=lambda task: LONGEST_FIRST.index(task.route))
        at_once = processes.room(self.settings["threads"])
        found = {
            (task.framework, task.route, task.precision): result
            for task, result in zip(tasks, self._run(tasks, at_once))
        }
        rows = []
        for framework, route in wanted:
            exact = found.get((framework, route, EXACT)) or {"reason": INEXACT[route]}
            exact = {"reason": exact["reason"], "equality": exact.get("equality")}
            row = {"framework": framework, "route": route, **found[framework, route, "float32"]}
            if row["reason"] is None and exact["equality"] and exact["reason"]:
                row["reason"] = f"in float64, {exact['reason']}"
            rows.append({**row, "exact": exact})
        return rows

    def _compress(self) -> dict[str, Any]:
        """Compress all final states once, and evaluate each form with each framework."""
        forms = self.settings["compress"]
        ended = {run: self._problem(run) for run in self.runs}
        self.runs = [run for run, problem in ended.items() if problem is None]
        known = {
            "left_out": [problem["reason"] for problem in ended.values() if problem],
            "seeds": [run.seed for run in self.runs],
            "metric": self.study.workload(self.workload)["target"]["metric"],
        }
        if not forms or not self.runs:
            return {"compressed": None, "compression": known}
        (made,) = self._run([self._task("compressing", next(iter(self.variants)), "")])
        if made["reason"]:
            made["forms"] = {form: {"reason": made["reason"]} for form in forms}
        tasks = {f: self._task("compressed", f, "") for f in self.variants}
        results = self._run(tasks.values(), at_once=processes.room(self.settings["threads"]))
        evaluated = dict(zip(tasks, results))
        rows = agreement.rows(self.scratch, made, evaluated, forms, len(self.runs))
        return {"compressed": rows, "compression": known}

    def _measure(self, rows: list[dict[str, Any]]) -> None:
        """Time routes, each in processes of its own."""
        for row in rows:
            row["repetitions"] = []
        for repetition in range(self.settings["repeats"]):
            order = list(rows)
            random.Random(f"{self.study.name} {self.workload} {repetition}").shuffle(order)
            for row in order:
                task = self._task("measure", row["framework"], row["route"])
                (result,) = self._run([task])
                row["repetitions"].append(result)
        for row in rows:
            self._judge([each for each in row["repetitions"] if not each["reason"]])

    def _judge(self, repetitions: list[dict[str, Any]]) -> None:
        """Say which repetitions of a route others disturbed, as of the windows of a run."""
        threads = self.settings["threads"]
        for each, bad in zip(repetitions, disturbed(repetitions, threads)):
            each["disturbed"] = None
            if bad and self.study.config["blocks"]["watch"]:
                each["disturbed"] = (
                    f"other work had {each['foreign_cpu_share'] or 0:.0%} of its CPUs, and it "
                    f"waited for one during {each['run_delay_seconds'] or 0:.2f} s of "
                    f"{each['timed_seconds']:.2f} s"
                )


def disturbed(repetitions: Sequence[Mapping[str, Any]], threads: int) -> np.ndarray:
    """Return for each repetition of a route whether others disturbed it, ``(repetitions,)``.

    Each of them is a start of its own, and has its own reading of others' share.
    """
    keys = ("timed_seconds", "run_delay_seconds", "foreign_cpu_share")
    columns = [np.array([each[key] for each in repetitions], float) for key in keys]
    names = ("seconds", "run_delay_seconds", "foreign_cpu_share")
    windows = dict(zip(names, columns)) | {"attempt": np.arange(len(repetitions))}
    return contention.disturbed(windows, threads)


def deploy(study: Study, workload: str) -> None:
    """Write a workload's record and its artefacts.

    Raises:
        UserError: the study deploys nothing, or its runs have not ended.
    """
    if workload not in study.deployed:
        raise UserError(f"study {study.name} deploys nothing; add deploy: {{}} to its config")
    for run in study.deployed_runs(workload):
        if not (study.run_folder(run) / "summary.json").is_file():
            raise UserError(f"{run.name} has not ended; run the stages before this one first")
    stage = Stage(study, workload)
    for path in (stage.scratch, stage.folder / "artefacts"):
        files.remove(path)
    stage.scratch.mkdir(parents=True)
    try:
        with alone(study):
            if study.config["blocks"]["watch"]:
                busy.tell(f"deploy of {workload}")
            record = stage.make()
        files.write_json(study.deployment(workload), record)
    finally:
        files.remove(stage.scratch)
