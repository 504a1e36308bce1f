"""The page: one HTML file that needs nothing else."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import jinja2
from markupsafe import Markup

from lockstep import __version__
from lockstep.parity import cause
from lockstep.records.parity_verdict import claim, compared, parity_problem
from lockstep.report import firststep, picture, verdicts
from lockstep.report.analysis import Analysis, verdict_json
from lockstep.report.comparability import DECLARED
from lockstep.report.dataframes import Workload
from lockstep.report.picture import Picture
from lockstep.report.tables import Table, rendered
from lockstep.report.verdicts import Comparison

TEMPLATE, STYLE = (Path(__file__).with_name(name) for name in ("page.html.j2", "page.css"))

SECTIONS = {
    "Is it the same model?": ("parity",),
    "Does it learn the same?": ("learning", "epochs", "difference"),
    "How good is the result, and when?": ("final-metric", "time-to-target"),
    "How fast is a step?": ("step-time", "step-course"),
    "Does it scale?": ("scaling",),
    "Where does the time go?": ("time-split", "break-even"),
    "What does it take?": ("resources",),
    "What comes after training?": ("deploy-routes", "deploy-times", "deploy-compressed"),
}
"""Headings of a workload, with the figures and then the tables that answer them, by name."""

BADGES = {
    verdicts.FASTER: ("▲", "faster"),
    verdicts.SLOWER: ("▼", "slower"),
    verdicts.NO_DIFFERENCE: ("=", "no detectable difference"),
    verdicts.ONE_PAIR: ("?", "one pair only"),
    verdicts.NO_PAIR: ("?", "nothing to compare"),
    verdicts.NOT_COMPARABLE: ("✗", "not comparable"),
}

SYMBOLS = {"PASS": "✓", "FAIL": "✗", "NOT TRACED": "=", "NOT PROVEN": "?"}


def render(analysis: Analysis, drawn: Mapping[str, Sequence[Picture]]) -> str:
    """Return the page.

    Args:
        drawn: figures by workload, those over the whole study under an empty name; what is not
            among them is left out.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    config, contract = analysis.records.study.config, analysis.tables["contract"]
    declared, threats = contract.frame["level"].eq(DECLARED), analysis.tables["threats"].rows
    return environment.from_string(TEMPLATE.read_text()).render(
        analysis=analysis,
        style=Markup(STYLE.read_text()),
        version=__version__,
        study=config,
        counts=analysis.runs["status"].value_counts().to_dict(),
        answers=answers(analysis),
        forest=list(_inlined(drawn.get("", ())).values()),
        workloads={
            view.name: _sections(view, _inlined(drawn.get(view.name, ())))
            for view in analysis.workloads
        },
        without_runs=[view.name for view in analysis.workloads if "epochs" not in view.tables],
        threats=[(f"{row['name']}: {row['where']}", row["what"]) for row in threats],
        tables={name: rendered(table) for name, table in analysis.tables.items()},
        flagged=_some(contract, ~declared, "Undeclared differences"),
        declared=_some(contract, declared, "Declared differences"),
    )


def _some(source: Table, chosen: Any, title: str) -> dict[str, Any]:
    return rendered(replace(source, frame=source.frame[chosen], title=title))


def _inlined(pictures: Sequence[Picture]) -> dict[str, Any]:
    return {p.name: {"svg": Markup(picture.inline(p)), "of": p} for p in pictures}


def _sections(view: Workload, figures: Mapping[str, Any]) -> list[tuple[str, list[Any], list[Any]]]:
    """Return the headings of a workload, and which figures and tables stand under each."""
    result = []
    for heading, names in SECTIONS.items():
        shown = [figures[key] for name in names if (key := f"{view.name}-{name}") in figures]
        tables = [view.tables[name] for name in names if name in view.tables]
        if found := [rendered(table) for table in tables if len(table.frame)]:
            result.append((heading, shown, found))
    return result


FIGURE = re.compile(
    r'<figure class="picture(?: wide)?" id="figure-(?P<name>[\w.-]+)">\s*'
    r"<figcaption>[^<]*</figcaption>\s*"
    r'<div class="scroll"[^>]*><svg role="img" aria-label="[^"]*"(?P<drawn>.*?)</div>\s*'
    r'(?:<p class="note">[^<]*</p>)?\s*</figure>',
    re.DOTALL,
)


def says(html: str, figures: Path | None = None) -> list[str]:
    """Return what a page says besides its figures, line by line.

    Args:
        figures: the folder of the report's figures: then what stands in the page as a figure and
            is not the file of that name stays in, so that nothing can be hidden there.
    """

    def kept(found: re.Match[str]) -> str:
        file = figures / f"{found['name']}.svg" if figures else None
        if file is None or not file.is_file():
            return found[0] if figures else ""
        same = picture.inlined(file.read_bytes(), found["name"]) == f"<svg{found['drawn']}"
        return "" if same else found[0]

    lines = FIGURE.sub(kept, html).splitlines()
    return [line.strip() for line in lines if line.strip()]


# The verdicts at the top ----------------------------------------------------------------------


def answers(analysis: Analysis) -> list[dict[str, Any]]:
    """Return for each workload and scale what is proven, and the cards of its verdicts."""
    config, result = analysis.records.study.config, []
    for place in itertools.product(config["workloads"], config["scales"]):
        workload, scale = place
        found = [c for c in analysis.comparisons if (c.workload, c.scale) == place]
        cards = [_card(c) for c in analysis.shown if (c.workload, c.scale) == place]
        proven = parity(analysis, workload, scale, found)
        result.append({"workload": workload, "scale": scale, "parity": proven, "cards": cards})
    return result


def parity(
    analysis: Analysis, workload: str, scale: str, found: Sequence[Comparison]
) -> dict[str, str]:
    """Return what is proven of a workload at a scale, in a word and in a sentence."""
    records = analysis.records
    config = records.study.config
    known = (parity_problem(records, workload, v) for v in config["variants"])
    problems = sorted(filter(None, known), key=lambda problem: "FAILS" not in problem)
    compared_first = [(c, c.first_step) for c in found if c.first_step]
    apart = (firststep.problem(first, (c.baseline, c.candidate)) for c, first in compared_first)
    if workload not in records.parity:
        word, text = "NOT PROVEN", "there is no readable parity verdict"
    elif problems:
        word = "FAIL" if "FAILS" in problems[0] else "NOT PROVEN"
        study = PurePath("results", config["study"], "study.json")  # the same in an archive
        problems += cause.said(records.parity[workload], config["variants"], study).values()
        text = "; ".join(problems).removeprefix("parity FAILS: ")
    elif why := next(filter(None, apart), None):
        word, text = "NOT PROVEN", f"at this scale, {why}"
    else:
        word = "PASS" if compared(records, workload) else "NOT TRACED"
        text = claim(records, workload) or "there is one variant, and no trace to compare it with"
        if compared_first:
            pairs, largest = zip(*((first.pairs, first.largest) for _, first in compared_first))
            how = f"agree within {max(largest):.1e}" if max(largest) else "are equal"
            text += f"; at this scale the first losses of {sum(pairs)} pairs {how}"
    return {"word": word, "symbol": SYMBOLS[word], "text": text}


def _card(c: Comparison) -> dict[str, Any]:
    symbol, word = BADGES[c.kind]
    untimed = c.untimed if c.kind != verdicts.NOT_COMPARABLE else ()
    return {
        **verdict_json(c),
        "class": c.kind.replace(" ", "-"),
        "symbol": symbol,
        "word": word,
        "problems": [*c.problems, *c.timing_problems][1:],
        "left_out": [
            *(f"Seed {seed} is left out: {why}." for seed, why in c.left_out),
            *(f"Seed {seed} is left out of step time: {why}." for seed, why in untimed),
        ],
    }
