"""What became of what comes after training, when a study was run again (`lockstep.deploy`).

A repetition makes the exported models anew, from its own final states, and runs them. Whether a
route gives the logits of training's evaluation must come out as in the archive, whatever the
machine. What a compressed form's evaluation gives has to be the same to the bit where states and
conditions are those of the record. How long an answer takes is said, and decides nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lockstep import files
from lockstep.records import deploy_record
from lockstep.reproduce.reproduction_outcome import (
    BITS,
    NO,
    NOT_JUDGED,
    UNDECIDED,
    YES,
    Outcome,
    attempted,
    unequal,
)
from lockstep.study import Study

LOGITS, SUMS, TIME = "logits of training", "integer sums", "time"

Row = Mapping[str, Any]


def outcomes(archived: Study, again: Study) -> Iterator[Outcome]:
    """Compare what the archive says of each workload's deployment with what was made again."""
    for workload in again.deployed:
        what = f"deployment of {workload}"
        yield from attempted(what, LOGITS, _deployment, what, archived, again, workload)


def _deployment(what: str, archived: Study, again: Study, workload: str) -> Iterator[Outcome]:
    old, new = (deploy_record.read(study, workload) for study in (archived, again))
    if old and new:
        yield from _routes(workload, old, new)
        yield from _forms(archived, again, workload, old, new)
    elif old:  # an archive need not be complete
        says = "the repetition has no record of it"
        yield Outcome(what=what, measure=LOGITS, outcome=NO, says=says)


# Routes ---------------------------------------------------------------------------------------


def _routes(workload: str, old: Row, new: Row) -> Iterator[Outcome]:
    known = {(row["framework"], row["route"]): row for row in old["routes"]}
    for row in new["routes"]:
        was = known[row["framework"], row["route"]]
        what = f"{workload}/{row['framework']} {row['route']}"
        word, says = _route(was, row)
        yield Outcome(what=what, measure=LOGITS, outcome=word, says=says)
        if was.get("repetitions") and row.get("repetitions"):
            says = _times(was, row, new["settings"]["batches"])
            yield Outcome(what=what, measure=TIME, outcome=NOT_JUDGED, says=says)


def _route(old: Row, new: Row) -> tuple[str, str]:
    """Return what became of a route, and say it."""
    made = [row.get("equality") is not None for row in (old, new)]
    before = "the same" if old["reason"] is None else old["reason"]
    if new["reason"] is None:
        says = f"within {_apart(new)} of the largest"
        if old["reason"] is None:
            return YES, f"{says} (archive: {_apart(old)}){_artefact(old, new)}"
        return NO if made[0] else NOT_JUDGED, f"{says} (archive: {before})"
    says = f"{new['reason']} (archive: {before})"
    if old["reason"] == new["reason"] or (old["reason"] and all(made)):
        return YES, says
    # What was not made has no logits: a package or a compiler that is missing is no difference.
    return NO if all(made) else UNDECIDED, says


def _apart(row: Row) -> str:
    return f"{row['equality']['largest'] / row['equality']['scale']:.1e}"


def _artefact(old: Row, new: Row) -> str:
    """Say whether an exported model has the archived one's bytes, if there is one."""
    if not (old.get("artefact") and new.get("artefact")):
        return ""
    same = old["artefact"]["files"] == new["artefact"]["files"]
    return f"; its exported model, made again, has {'the same' if same else 'other'} bytes"


def _times(old: Row, new: Row, batches: list[int]) -> str:
    """Say how long answers take, and took: medians over the repetitions that count."""
    batch = max(batches)

    def told(row: Row) -> str:
        own = deploy_record.counted(row)
        if not own:
            return "no repetition counts"
        p50 = np.median([r["single_stream"]["seconds"]["p50"] for r in own])
        rates = [o["samples_per_second"] for r in own for o in r["offline"] if o["batch"] == batch]
        return f"{p50 * 1e3:.3g} ms one by one, {np.median(rates):,.0f}/s in batches of {batch}"

    return f"{told(new)} (archive: {told(old)})"


# Compressed forms -----------------------------------------------------------------------------


def _forms(archived: Study, again: Study, workload: str, old: Row, new: Row) -> Iterator[Outcome]:
    if not (old.get("compressed") and new.get("compressed")):
        return
    seeds = [[record["compression"]["seeds"].index(s) for s in new["compression"]["seeds"]]
             for record in (old, new)]  # fmt: skip
    runs = again.deployed_runs(workload)
    pairs = [[files.read_json(study.run_folder(run) / "summary.json")
              for study in (archived, again)] for run in runs]  # fmt: skip
    other = any(a["weights"].get("final") != b["weights"].get("final") for a, b in pairs)
    differs = _differs((old, pairs[0][0]), (new, pairs[0][1]))
    known = {row["form"]: row for row in old["compressed"]}
    for row in new["compressed"]:
        was, what = known[row["form"]], f"{workload}/{row['form']}"
        for framework, told in row["frameworks"].items():
            name, before = f"{what} in {framework}", was["frameworks"][framework]
            reasons = [one["reason"] or own["reason"] for one, own in ((was, before), (row, told))]
            if reasons[0] or reasons[1]:
                word = YES if reasons[0] == reasons[1] else UNDECIDED
                says = f"{reasons[1] or 'evaluated'} (archive: {reasons[0] or 'evaluated'})"
                yield Outcome(what=name, measure=BITS, outcome=word, says=says)
                continue
            metrics = [[own["metrics"][k] for k in at] for own, at in zip((before, told), seeds)]
            metric = new["compression"]["metric"]
            means = [float(np.mean([each[metric] for each in own])) for own in metrics]
            says = f"{metric.replace('_', ' ')} {means[1]:.4f} (archive: {means[0]:.4f})"
            word = YES if metrics[0] == metrics[1] else NOT_JUDGED if other or differs else NO
            says += ", all metrics to the bit" if word == YES else ""
            says += ", of states with other bits" if word == NOT_JUDGED and other else ""
            yield Outcome(what=name, measure=BITS, outcome=word, says=says, differs=differs)
        if "sums" in was and "sums" in row:
            yield _sums(what, was["sums"], row["sums"])


def _sums(what: str, old: Row, new: Row) -> Outcome:
    """Return whether both frameworks have equal integers again, as no rounding is in them."""
    shares = [sums["equal"] / sums["compared"] for sums in (old, new)]
    says = f"{shares[1]:.6f} of {new['compared']:,} are equal (archive: {shares[0]:.6f})"
    word = YES if shares[1] >= shares[0] else NO
    return Outcome(what=what, measure=SUMS, outcome=word, says=says)


def _differs(old: tuple[Row, Row], new: tuple[Row, Row]) -> list[str]:
    """Return in what two evaluations' conditions differ, of a record and its run's summary each.

    Whatever a run was trained on, its forms are evaluated on a CPU.
    """

    def of(record: Row, summary: Row) -> dict[str, Any]:
        made = summary["contract"]["determined_by"]
        return {
            "CPU": record["host"]["cpu"],
            "instruction set": record["host"]["instruction_set"],
            "threads": record["settings"]["threads"],
            "code": made["code"],
            **made["environment"],
        }

    return unequal(of(*old), of(*new))
