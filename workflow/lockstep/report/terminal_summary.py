"""A finished report in a few lines for the terminal, without what it takes to make one."""

from collections import Counter

from lockstep import files
from lockstep.errors import UserError
from lockstep.study import Study

MOST = 3
"""Seeds that are named below a verdict."""


def lines(study: Study) -> list[str]:
    """Return the lines for the terminal: one a comparison with its flags, and where the report is.

    Raises:
        UserError: there is no report yet.
    """
    path = study.report().parent / "report.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; make the report first")
    report = files.read_json(path)
    statuses = Counter(report["runs"])
    result = [
        f"study {report['study']}: "
        + ", ".join(f"{count} runs {status}" for status, count in statuses.most_common())
    ]
    for verdict in report["verdicts"]:
        result.append(f"{verdict['workload']} at {verdict['scale']}: {verdict['sentence']}")
        result += [f"  flagged: {flag}" for flag in verdict.get("flags", [])]
        untimed = verdict.get("untimed", []) if verdict["kind"] != "not comparable" else []
        result += [f"  left out of step time: seed {seed}: {why}" for seed, why in untimed[:MOST]]
        if untimed[MOST:]:
            result.append(f"  left out of step time: {len(untimed) - MOST} more seeds")
    result += [f"set apart: {item['name']}: {item['reason']}" for item in report["set_apart"]]
    result.append(f"report: {study.report()}")
    return result
