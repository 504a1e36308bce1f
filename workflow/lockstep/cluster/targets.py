"""What decides about the jobs of a study, by what they make.

A job is submitted under the hash of that. One of an earlier start whose hash is another is
cancelled; other edits of the config and the code leave the jobs that take long alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lockstep import code, files
from lockstep.study import Study

RULES = Path(__file__).resolve().parents[2] / "rules"


def all_states(study: Study) -> str:
    """Return the hash for all targets that have none of their own."""
    config = {key: value for key, value in study.config.items() if key != "archive"}
    return files.digest([config, code.digest(*code.modules()), _rules()])


def own_states(study: Study) -> dict[str, str]:
    """Return those of the jobs that take long, by their targets as Snakemake writes them."""
    known, rules = {}, _rules()
    for name, block in study.blocks.items():
        recipe = study.workload(block.runs[0].workload)
        images = {run.variant: _image(study, run.variant) for run in block.runs}
        decides = [study.block_parameters(name), _dataset(study, recipe), images]
        known[f"train:block={name}"] = files.digest([decides, rules])
    for workload, recipe in study.config["workloads"].items():
        for variant in study.traces():
            parameters = study.trace_parameters(workload, variant)
            held = [_dataset(study, recipe), _image(study, variant)]
            target = f"trace:workload={workload},variant={variant}"
            known[target] = files.digest([parameters, held, rules])
    return known


def _rules() -> list[str]:
    return [files.sha256_file(rule) for rule in sorted(RULES.glob("*.smk"))]


def _dataset(study: Study, recipe: Mapping[str, Any]) -> str:
    return str(study.dataset_manifest(recipe["dataset"]))


def _image(study: Study, variant: str) -> str | None:
    image = study.images.get(study.variant(variant)["framework"])
    return image.identity if image else None
