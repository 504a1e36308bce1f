"""The page that `--html` writes: one file, without scripts or anything from elsewhere."""

import html
from collections.abc import Mapping
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid #8884; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.differs { background: #c0202030; font-weight: 600; }
tr.follows { opacity: .6; }
.pass { color: #1a7f37; } .fail { color: #c02020; }
"""
HEAD = ("layer", "difference", "allowed", "shape in PyTorch", "shape in JAX", "dtype", "")


def page(found: Mapping[str, Any]) -> str:
    """Return the page of what `--json` holds."""
    word = "is the same model" if found["passed"] else "differs"
    title = f"{html.escape(str(found['pair']))}: the port {word}"
    body = [f"<h1>{title}</h1>"]
    body += [f"<p>Note: {html.escape(note)}</p>" for note in found["notes"]]
    for finding in found["findings"]:
        body += _finding(finding)
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _finding(finding: Mapping[str, Any]) -> list[str]:
    passed = finding["passed"]
    word = "equal" if passed else f"first differs: {finding['first']['name']}"
    kind = "pass" if passed else "fail"
    lines = [
        f'<h2>{html.escape(finding["name"])}: <span class="{kind}">{html.escape(word)}</span></h2>'
    ]
    if finding["cause"]:
        lines.append(f"<p><b>Cause:</b> {html.escape(finding['cause'])}</p>")
    elif finding["causes"]:
        lines.append("<p>Several known causes would explain it, so none is claimed.</p>")
    lines.append("<table><thead><tr>")
    lines += [f'<th scope="col">{name}</th>' for name in HEAD]
    lines.append("</tr></thead><tbody>")
    for value in finding["values"]:
        a, b = (" × ".join(map(str, shape)) for shape in value["shapes"])
        cells = [
            f"<td>{html.escape(value['name'])}</td>",
            f'<td class="n">{_number(value["distance"])}</td>',
            f'<td class="n">{_number(value["tolerance"])}</td>',
            f"<td>{a}</td><td>{b}</td>",
            f"<td>{' | '.join(dict.fromkeys(value['dtypes']))}</td>",
            f"<td>{html.escape(', '.join(filter(None, (value['layout'], value['why']))))}</td>",
        ]
        lines.append(f'<tr class="{value["status"]}">{"".join(cells)}</tr>')
    lines.append("</tbody></table>")
    return lines


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1e}"
