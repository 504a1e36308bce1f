"""All figures of a report."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from lockstep.report import (
    differences,
    drawing,
    figures_learning,
    figures_speed,
    frames,
    learning,
    load,
)
from lockstep.report.analysis import Analysis, WorkloadPart
from lockstep.report.columns import groups as grouped
from lockstep.report.picture import Picture


def draw(analysis: Analysis) -> dict[str, list[Picture]]:
    """Return all figures by workload; those over the whole study under an empty name."""
    styles = drawing.looks(analysis.records.study.config["variants"])
    drawn = {part.name: list(_pictures(analysis, part, styles)) for part in analysis.workloads}
    study = [figures_speed.forest(analysis.comparisons, styles)]
    if analysis.profile is not None:
        study.append(figures_speed.profile_steps(analysis.profile, styles))
    drawn[""] = [picture for picture in study if picture]
    return drawn


def _pictures(
    analysis: Analysis, part: WorkloadPart, styles: Mapping[str, drawing.Look]
) -> Sequence[Picture]:
    records, name = analysis.records, part.name
    verdict = records.parity.get(name)
    made = [figures_learning.parity_curves(name, verdict, styles) if verdict else None]
    if len(frames.finished(part.runs)):
        groups = list(grouped(records, part.runs))
        first = records.study.config["scales"][0]
        metric = records.study.workload(name)["target"]["metric"]
        made += [
            figures_learning.loss_curves(
                name,
                part.epochs[part.epochs["scale"] == first],
                styles,
                differences.one_scale(records),
            ),
            figures_learning.difference_curves(name, part.curves, differences.limits(records)),
            figures_speed.dots(
                f"{name}-final-metric", f"Final test {metric}", groups, "metric", "", styles
            ),
            figures_speed.dots(
                f"{name}-time-to-target",
                "Training time to the target",
                list(to_target(records, part.runs)),
                "target_seconds",
                "s",
                styles,
                censored="target_reached",
            ),
            figures_speed.dots(
                f"{name}-step-time", "Step time", groups, "step_median", "ms", styles, scale=1e3
            ),
            figures_speed.split_bars(name, part.tables["time-split"].rows),
        ]
        if "scaling" in part.tables:
            made.append(figures_speed.scaling_lines(name, part.tables["scaling"].rows, styles))
    return [picture for picture in made if picture]


def to_target(records: load.Records, runs: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield the groups of runs as the table of times to target counts them."""
    for scale, variant, group in grouped(records, runs, frames.ended):
        if len(group):
            times, reached = learning.to_target(group)
            yield scale, variant, group.assign(target_seconds=times, target_reached=reached)
