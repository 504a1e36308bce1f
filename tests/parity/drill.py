"""Every fault on every preset that it applies to, up the whole ladder: make drill-parity.

    python -m tests.parity.drill [WORD ...]

Words choose faults by their names. A fault of a model's own layers applies to that model alone,
one of what all models share (the optimizer, the engine) to all. What has an effect on a preset and
passes all rungs is a hole, and the exit status is 1; what changes nothing there is said so.
"""

import sys
import tempfile
from pathlib import Path

from lockstep.datasets import prepare
from tests import pictures
from tests.parity import (
    faults,
    faults_feed,
    faults_harmless,
    faults_jax,
    faults_several,
    faults_torch,
)

ALONE = ("plain", "im2col", "unrolled", "residual", "bottleneck")


def main(words: list[str]) -> int:
    """Print one line for each fault and preset; return 1 if one of them passes."""
    with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
        folder = Path(scratch)
        prepare.prepare(
            "digits", {"source": "digits", "options": {}}, "0" * 64, Path(), folder / "d"
        )
        coloured = pictures.write(folder / "pictures", pictures.coloured())
        manifests = {"digits": folder / "d" / "manifest.json", "pictures": coloured}
        ground = faults.Ground(folder, manifests, folder / "caches")
        holes = sum(
            _alone(ground, fault)
            for fault in (*faults_torch.FAULTS, *faults_jax.FAULTS, *faults_feed.FAULTS)
            if not words or any(word in fault.name for word in words)
        )
        for side in faults.OTHER if not words else ():
            wrong = faults_several.wrong(ground, side)
            print(*wrong or [f"{side}: over two processes all faults are named"], sep="\n")
            holes += len(wrong)
        for rewrite in faults_harmless.REWRITES if not words else ():
            said = faults_harmless.failure(ground, rewrite)
            print(f"{rewrite.side}: {rewrite.name}: {said or 'passes, as it must'}")
            holes += said is not None
    print(f"{holes} holes" if holes else "No hole was found.")
    return 1 if holes else 0


def _alone(ground: faults.Ground, fault: faults.Fault) -> int:
    """Climb with a fault on every preset; return on how many it has an effect and passes."""
    holes = 0
    for preset in ALONE:
        try:
            found = faults.found(ground, fault, preset=preset, last="canary")
        except Exception as error:  # a patch that asks for what another model does not have
            if preset == fault.preset:
                raise
            said = f"does not apply ({type(error).__name__})"
        else:
            hole = found.rung == "none" and found.moved
            holes += hole
            said = "HOLE" if hole else found.said or "no effect"
        print(f"{fault.side} on {preset}: {fault.name}: {said}", flush=True)
    return holes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
