"""What `lockstep port` prints."""

from collections.abc import Iterator

from lockstep.port.outcome import Finding, Outcome, Prepared
from lockstep.port.value import DIFFERS, ELSEWHERE, EQUAL, Value

AROUND = 2  # equal layers that are shown before the first that differs
AFTER = 3  # layers that are shown after it
WIDTH = 44


def lines(outcome: Outcome, *, everything: bool = False) -> Iterator[str]:
    """Yield the lines of a finished comparison."""
    for finding in outcome.findings:
        yield from _finding(finding, everything)
        yield ""
    for note in outcome.notes:
        yield f"note: {note}"
    yield _verdict(outcome)


def _finding(finding: Finding, everything: bool) -> Iterator[str]:
    count = len(finding.values)
    first = finding.first
    if first is None:
        worst = max(finding.values, key=lambda v: v.distance / max(v.tolerance, 1e-300))
        equal = f"{count} value{'s are' if count > 1 else ' is'} equal"
        yield (
            f"{finding.name}: {equal}; the largest difference is "
            f"{worst.distance:.1e} of {worst.tolerance:.0e} allowed ({worst.name})"
        )
        elsewhere = sum(value.status == ELSEWHERE for value in finding.values)
        if elsewhere:
            yield f"  {elsewhere} of them are looked at in other places of equal blocks"
        if not everything:
            return
    elif finding.rounded:
        yield (
            f"{finding.name}: equal up to a constant rounded to float32, from {first.name} on "
            f"({first.distance:.1e})"
        )
        if not everything:
            return
    else:
        yield f"{finding.name}: {first.name} is the first that differs"
    yield f"  {'':8} {'layer':{WIDTH}} {'difference':>10} {'allowed':>8}  shape (dtype)"
    for value in _shown(finding, everything):
        yield _row(value)
    if first is not None and not finding.rounded:
        yield from _why(finding, first)


def _shown(finding: Finding, everything: bool) -> list[Value]:
    if everything:
        return finding.values
    first = next(k for k, value in enumerate(finding.values) if value.status == DIFFERS)
    return finding.values[max(0, first - AROUND) : first + 1 + AFTER] + (
        finding.values[-1:] if first + 1 + AFTER < len(finding.values) else []
    )


def _row(value: Value) -> str:
    mark = {EQUAL: "equal", DIFFERS: "DIFFERS", ELSEWHERE: "moved"}.get(value.status, "follows")
    name = value.name if len(value.name) <= WIDTH else f"…{value.name[1 - WIDTH :]}"
    a, b = (str(shape).replace(" ", "") for shape in value.shapes)
    shape = a if a == b else f"{a} | {b}"
    dtype = value.dtypes[0] if len(set(value.dtypes)) == 1 else " | ".join(value.dtypes)
    said = f"  {mark:8} {name:{WIDTH}} {value.distance:10.1e} {value.tolerance:8.0e}  {shape}"
    return f"{said} ({dtype})" + (f", {value.layout}" if value.layout else "")


def _why(finding: Finding, first: Value) -> Iterator[str]:
    if finding.last_equal:
        yield f"  the last that is equal before it: {finding.last_equal}"
    if first.why:
        yield f"  {first.why}"
    cause = finding.cause
    if cause:
        yield f"  cause: {cause.kind}. {cause}"
        for other in finding.causes[1:]:
            yield f"    equally: {other.port}"
    elif finding.causes:
        yield "  several known causes would explain it, so none is claimed:"
        for other in finding.causes:
            yield f"    {other.kind}. {other}"
    elif not finding.name.startswith(("weights", "gradients")):
        yield "  no known cause alone makes it agree"


def _verdict(outcome: Outcome) -> str:
    if outcome.passed:
        return "The port is the same model."
    failed = next(finding for finding in outcome.findings if not finding.passed)
    first = failed.first
    assert first is not None
    return f"The port DIFFERS: {failed.name}: {first.name} by {first.distance:.1e}"


def proposal(prepared: Prepared) -> Iterator[str]:
    """Yield the lines of a proposed map of parameters."""
    yield f"Proposed map of parameters ({len(prepared.lines)} lines):"
    for line in prepared.lines:
        part = f"[{line.torch_part[0]}/{line.torch_part[1]}]" if line.torch_part else ""
        target = line.jax or "(none)"
        if line.jax_part:
            target += f"[{line.jax_part[0]}/{line.jax_part[1]}]"
        yield f"  {line.torch + part:{WIDTH}} -> {target:{WIDTH}} {line.said} ({line.reason})"
    for name, first in prepared.torch.tied.items():
        yield f"  {name:{WIDTH}} is tied to {first}"
