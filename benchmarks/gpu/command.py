"""The command: python -m benchmarks gpu --out FOLDER [--minutes 9] [--data FOLDER]."""

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks.gpu import cifar10, device, facts, ladder, mnist, resnet50, scan
from benchmarks.gpu.child import Failed
from benchmarks.gpu.results import Results
from benchmarks.gpu.session import Deadline, Session
from lockstep import machine
from lockstep.errors import UserError

PARTS: dict[str, tuple[Callable[[Session], None], float]] = {
    "facts": (facts.measure, 0.05),
    "parity": (ladder.measure, 0.18),
    "mnist": (mnist.measure, 0.24),
    "resnet50": (resnet50.measure, 0.36),
    "scan": (scan.measure, 0.13),
    "cifar10": (cifar10.measure, 0.04),
}
"""What is done, in this order, and its share of the time. What one leaves the next may have."""


SETTINGS = (
    "CUDA",
    "JAX",
    "MKL",
    "NCCL",
    "NVIDIA",
    "OMP",
    "PYTORCH",
    "TF_",
    "TORCH",
    "TRITON",
    "XLA",
)
"""Beginnings of the names of environment variables that may change what is measured."""


def main(arguments: list[str]) -> int:
    """Measure; returns 0 whatever was found, 2 for options that are wrong."""
    options = _parser().parse_args(arguments)
    if options.data is not None and not options.data.is_dir():
        print(f"benchmarks gpu: --data {options.data}: no such folder", file=sys.stderr)
        return 2
    try:
        results = Results(options.out)
    except (UserError, OSError) as error:
        print(f"benchmarks gpu: --out {options.out}: {error}", file=sys.stderr)
        return 2
    scratch = Path(tempfile.mkdtemp(prefix="lockstep-gpu-"))
    session = Session(
        results=results,
        scratch=scratch,
        log=options.out.resolve() / "log.txt",
        quick=options.quick,
        keeps=options.quick,
        data=options.data.resolve() if options.data else None,
        environment=device.chosen(),
        deadline=Deadline(results.begun),
    )
    session.log.write_bytes(b"")
    try:
        _measure(session, options)
    except KeyboardInterrupt:
        results.note("end", "interrupted", "what follows was not measured")
    finally:
        session.close()
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{results.table} and {results.lines}")
    return 0


def _measure(session: Session, options: argparse.Namespace) -> None:
    chosen = {name: PARTS[name] for name in PARTS if name == "facts" or name in options.parts}
    whole = sum(share for _, share in chosen.values())
    results, node = session.results, machine.facts()
    named = f"Python {platform.python_version()}, {node['cpu']}, {node['cores']} cores"
    settings = {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)}
    results.note("facts", "machine", named, facts={**node, "environment": settings})
    for name, (measure, share) in chosen.items():
        session.deadline.at += share / whole * 60 * options.minutes
        try:
            measure(session)
        except Failed as error:
            results.note(name, name, f"not measured: {error}")
        except Exception as error:  # the other parts may still have results
            text = f"{type(error).__name__}: {error}"
            results.note(name, name, f"ended by a mistake in this program: {text}")
            with open(session.log, "a") as stream:
                traceback.print_exc(file=stream)
        if name != "facts":
            facts.state(session, name)
    seconds = time.monotonic() - results.begun
    results.note("end", "finished", f"after {seconds:.0f} s of {60 * options.minutes:.0f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu",
        description="Measures PyTorch and JAX on a GPU (docs/performance.md).",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--minutes", type=_minutes, default=9.0, help="for all of it (9)")
    parser.add_argument(
        "--data", type=Path, help="folder with staged files in mnist and cifar10; else noise"
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=list(PARTS),
        default=list(PARTS),
        metavar="PART",
        help=f"some of it: {', '.join(PARTS)} (facts are always written)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
    )
    return parser


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes above 0")
    return minutes
