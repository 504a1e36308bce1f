"""Measures what docs/performance.md reports: python -m benchmarks [NAME …] [--json FILE].

`python -m benchmarks gpu --out FOLDER` measures on a GPU and is a command by itself.

It is a report: a limit that is missed is told, and the exit status is 0 all the same. It is 1 if
something could not be measured.
"""

import argparse
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import MEASUREMENTS, table
from benchmarks.row import Row

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2
PACKAGES = ("torch", "jax", "jaxlib", "flax", "optax", "numpy", "h5py")


def main(arguments: list[str] | None = None) -> int:
    """Run the measurements that are named, or all."""
    arguments = sys.argv[1:] if arguments is None else arguments
    places = [str(ROOT / "workflow"), str(ROOT), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    sys.path[:0] = places[:2]  # type: ignore[assignment]
    if arguments[:1] == ["gpu"]:  # with options of its own, and without most packages
        from benchmarks.gpu import command

        return command.main(arguments[1:])
    options = _parser().parse_args(arguments)
    machine = about()
    print("  ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    results: dict[str, list[Row]] = {}
    missing = []
    for name in options.names or MEASUREMENTS:
        begin = time.monotonic()
        rows = run(name, options.quick)
        if rows is None:
            missing.append(name)
            continue
        results[name] = rows
        print(f"\n({time.monotonic() - begin:.0f} s)", table.plain({name: rows}), flush=True)
    if options.json:
        content = {
            "machine": machine,
            "quick": options.quick,
            "results": {k: [asdict(r) | {"met": r.met} for r in v] for k, v in results.items()},
        }
        options.json.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    if options.markdown:
        options.markdown.write_text(table.markdown(results))
    for name in missing:
        print(f"benchmarks: {name} could not be measured, see above", file=sys.stderr)
    return 1 if missing else 0


def run(name: str, quick: bool) -> list[Row] | None:
    """Run one measurement in a process like those of runs; None if it did not end well."""
    from lockstep.cluster.launch import launch

    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.one", name, str(answer)]
        status = launch([*command, *["--quick"] * quick], processes=1, threads=THREADS)
        if status:
            return None
        return [Row(**{**row, "limit": _limit(row)}) for row in json.loads(answer.read_text())]


def _limit(row: dict[str, Any]) -> tuple[str, float] | None:
    return tuple(row["limit"]) if row["limit"] else None


def about() -> dict[str, Any]:
    """Return what was measured on: processor, cores and versions."""
    from lockstep import machine

    facts = machine.facts()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {k: facts[k] for k in ("cpu", "cores", "system", "python")} | versions


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    # The choices are checked by hand: argparse would check the empty list, too.
    parser.add_argument(
        "names", nargs="*", metavar="NAME", type=_name, help=", ".join(MEASUREMENTS)
    )
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
    )
    return parser


def _name(text: str) -> str:
    if text not in MEASUREMENTS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is unknown; there are {', '.join(MEASUREMENTS)}"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
