"""What is in an archive although nothing names it: no config, no record, no page."""

import re
from collections.abc import Collection, Iterator

from lockstep.archive import layout
from lockstep.archive.completeness import called, folders
from lockstep.archive.findings import Check
from lockstep.study import Study

NAMED = ("parity/", "blocks/", "weights/")
"""Of a study's folder: where the config says what every file is called."""

FIGURES = "report/figures/"


def check(study: Study, listed: Collection[str]) -> Check:
    """Is every file of data, parity, blocks, weights, runs and figures named by something?"""
    wrong = [*_results(study, listed), *_data(study, listed)]
    return Check(name="named", says="nothing is there that nothing names", wrong=wrong)


def _results(study: Study, listed: Collection[str]) -> Iterator[str]:
    """Yield files of the study's folder that neither its config nor its page names."""
    below, known = f"{layout.RESULTS}{study.name}/", named(study)
    runs = tuple(f"runs/{run.name}/" for run in study.runs)
    page = study.report().read_text() if study.report().is_file() else None
    for name in listed:
        inner = name.removeprefix(below) if name.startswith(below) else ""
        if inner.startswith("runs/") and not inner.startswith(runs):
            yield f"{name}: the study's config does not ask for this run"
        elif inner.startswith(NAMED) and inner not in known:
            yield f"{name}: the study's config does not ask for it"
        elif inner.startswith(FIGURES) and page is not None and not _shown(inner, page):
            yield f"{name}: the report's page does not show it"


def named(study: Study) -> set[str]:
    """Return what the config asks for of parity, blocks and initial weights, as it is called in
    the study's folder.
    """
    paths = [study.manifest(block) for block in study.blocks]
    for workload in study.config["workloads"]:
        paths += [study.verdict(workload), study.passed(workload)]
        paths += [study.trace(workload, variant) for variant in study.traces()]
        paths += [study.weights(workload, seed) for seed in study.config["seeds"]]
    return {path.relative_to(study.root).as_posix() for path in paths}


def _shown(name: str, page: str) -> bool:
    """Whether a page has a figure of this name, which begins every id that Matplotlib gave it."""
    figure = name.removeprefix(FIGURES).rpartition(".")[0]
    return f' id="{figure}-figure_1"' in page


def _data(study: Study, listed: Collection[str]) -> Iterator[str]:
    """Yield files of datasets and images that no config and no record names, or no manifest."""
    kinds = {(kind, name) for kind, name, _ in folders(study)}
    known = [re.compile(f"{layout.DATA}{kind}/{called(name)}") for kind, name in kinds]
    for name in listed:
        if not name.startswith(layout.DATA):
            continue
        place = name.rpartition("/")[0]
        if not any(pattern.fullmatch(place) for pattern in known):
            yield f"{name}: neither config nor records name {place.rpartition('/')[2]}"
        elif f"{place}/manifest.json" not in listed:
            yield f"{name}: there is no manifest that describes it"
