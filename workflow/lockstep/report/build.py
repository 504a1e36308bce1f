"""From a study's records to its report: a page, tables, figures, and all of it for machines."""

import itertools
from collections import Counter

from lockstep import files
from lockstep.errors import UserError
from lockstep.report import analysis, conditions, page, sentences, tables
from lockstep.study import Study


def build(study: Study, *, partial: bool = False) -> None:
    """Write ``report/index.html``, ``report.json``, ``tables/*.csv`` and ``figures/*``.

    With `partial` runs may be missing, and the page says so. Only without it ``complete.json``
    appears: a partial report must never pass for the workflow's result.

    Raises:
        UserError: runs are missing or cannot be used, and `partial` is not set.
    """
    from lockstep.report import figures  # takes a second to import

    found = analysis.analyse(study)
    missing = found.records.unfinished
    if missing and not partial:
        run = missing[0]
        raise UserError(
            f"study {study.name}: {len(missing)} of {len(found.records.runs)} runs have not ended "
            f"or cannot be used (the first is {run.folder.as_posix()}: {run.reason}); finish them, "
            "or add --partial for a report of the others"
        )
    drawn = figures.draw(found)
    folder = study.report().parent
    complete = study.complete_report()
    complete.unlink(missing_ok=True)
    with files.atomic(folder / "tables") as temporary:
        temporary.mkdir()
        for table in found.all_tables:
            (temporary / f"{table.name}.csv").write_bytes(tables.as_csv(table))
    with files.atomic(folder / "figures") as temporary:
        temporary.mkdir()
        for picture in itertools.chain(*drawn.values()):
            (temporary / f"{picture.name}.svg").write_bytes(picture.svg)
            (temporary / f"{picture.name}.png").write_bytes(picture.png)
    files.write_json(folder / "report.json", analysis.as_json(found))
    files.write_bytes(study.report(), page.render(found, drawn).encode())
    if not partial:
        written = (study.report(), folder / "report.json")
        files.write_json(complete, {path.name: files.sha256_file(path) for path in written})


def terminal_lines(study: Study) -> list[str]:
    """Return a finished report for the terminal: a line for each comparison, flags, and its path.

    Raises:
        UserError: there is no report yet, or it is of another format.
    """
    path = study.report().parent / "report.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; make the report first")
    report = files.read_json(path)
    if (found := report.get("schema")) != analysis.SCHEMA:
        raise UserError(
            f"{path}: not a report that this version reads (its schema is {found!r}, expected is "
            f"{analysis.SCHEMA!r}); make the report again"
        )
    statuses = Counter(report["runs"]).most_common()
    counts = ", ".join(f"{count} run{'s' * (count > 1)} {status}" for status, count in statuses)
    result = [f"study {report['study']}: {counts}"]
    for verdict in report["verdicts"]:
        result += sentences.terminal_lines(verdict)
    threats = report["tables"]["threats"]
    result += [item["what"] for item in threats if item["name"] == conditions.DISTURBED]
    excluded = report["tables"]["excluded"]
    result += [f"excluded: {item['name']}: {item['reason']}" for item in excluded]
    return [*result, f"report: {study.report()}"]
