"""Every seeded fault, and every harmless rewrite: make drill-port.

    python -m tests.port.drill [WORD ...]

Words choose faults by their names. Prints a table (Markdown), and exits with 1 if a first value is
not named, a cause is claimed wrongly, a harmless rewrite is accused, or fewer causes are named than
four of five.
"""

import sys

from tests.port import faults

LEAST = 0.8  # share of the causes


def main(words: list[str]) -> int:
    """Print one line for each fault, and the sums."""
    known = [f for f in (*faults.FAULTS, *faults.HARMLESS) if all(w in f.name for w in words)]
    wrong, layers, causes, faulty = 0, 0, 0, 0
    print("| pair | in the port | first value that differs | cause named |")
    print("|---|---|---|---|")
    for fault in known:
        both = ("float64", "float32") if fault.first is None else ("float64",)
        first, kind = faults.found(faults.run(fault, both))
        mark = "" if first == fault.first else f" (expected: {fault.first})"
        wrong += kind is not None and kind != fault.kind
        if fault.first is not None:
            faulty += 1
            layers += first == fault.first
            causes += kind is not None and kind == fault.kind
        else:
            wrong += first is not None
        other = "" if kind == fault.kind else f" (expected: {fault.kind})"
        print(
            f"| {fault.pair} | {fault.name} | {first or 'none'}{mark} | {kind or 'none'}{other} |"
        )
        sys.stdout.flush()
    print(
        f"\n{faulty} faults: {layers} first values named, {causes} causes named, {wrong} claimed "
        f"wrongly; {len(known) - faulty} harmless rewrites"
    )
    return int(wrong > 0 or layers < faulty or causes < LEAST * faulty)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
