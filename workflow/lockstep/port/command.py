"""`lockstep port pair.py`: from the file to the table, and the exit status."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep import files
from lockstep.errors import UserError
from lockstep.port import PRECISIONS, SCHEMA

if TYPE_CHECKING:
    from lockstep.port.check import Options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument(
        "pair", type=Path, metavar="PAIR.py", help="describes the two models; or study.json"
    )
    parser.add_argument(
        "--workload",
        metavar="NAME",
        help="of the study whose study.json is given: compare its models",
    )
    parser.add_argument(
        "--accept", action="store_true", help="accept the proposed map of parameters; writes it"
    )
    parser.add_argument(
        "--precision",
        action="append",
        choices=PRECISIONS,
        help="may be given several times; default: float64, then float32",
    )
    parser.add_argument("--train", action="store_true", help="in training mode, too")
    parser.add_argument("--gradients", action="store_true", help="compare gradients, too")
    parser.add_argument("--all", action="store_true", help="show every layer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to it")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page")


def main(options: argparse.Namespace, names: Callable[[], Mapping[str, Any]] | None = None) -> int:
    """Compare a pair; returns 0 if the port is the same model, 1 if it differs.

    Args:
        names: returns what a pair's file would define, for the models of a study's workload.

    Raises:
        UserError: the pair cannot be compared; or its map of parameters is not accepted yet.
    """
    from lockstep.port import pair  # here, as it needs NumPy

    started = time.monotonic()
    try:
        import jax  # noqa: F401
        import torch
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; install it beside the pair") from error
    torch.manual_seed(0)  # so that weights which the pair draws are the same in every call
    described = pair.described(options.pair, names()) if names else pair.load(options.pair)
    own, wanted = described.precision, options.precision
    if own and wanted and set(wanted) != {own}:
        raise UserError(f"{options.pair}: the models compute in {own} alone; use no --precision")
    wanted = [own] if own else wanted or ["float64", "float32"]
    from lockstep.port import check, table
    from lockstep.port import outcome as outcomes

    asked: Options = check.Options(
        precisions=tuple(dict.fromkeys(wanted)),
        train=options.train,
        gradients=options.gradients,
    )
    prepared = check.prepare(described, accept=options.accept)
    if prepared.proposed:
        print("\n".join(table.proposal(prepared)))
        raise UserError(
            f"{options.pair}: nothing is compared until the map of parameters above is accepted; "
            f"add --accept, which writes it to {described.map_file}"
        )
    outcome = check.check(prepared, asked)
    seconds = time.monotonic() - started
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "pair": str(options.pair),
        "seconds": round(seconds, 1),
        **outcomes.as_json(outcome),
    }
    if options.json:
        files.write_json(options.json, found)
    if options.html:
        from lockstep.port import page

        with files.atomic(options.html) as temporary:
            temporary.write_text(page.page(found))
    print("\n".join(table.lines(outcome, everything=options.all)))
    sys.stdout.flush()
    return 0 if outcome.passed else 1
