"""The page of a repetition: what was compared, by which measure, and what came of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

STYLE = Path(__file__).resolve().parents[1] / "report" / "page.css"

TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ study }}: {{ conclusion }}</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<h1>Study {{ study }}, run again: {{ conclusion }}</h1>
<p>Compared with {{ archive }} (digest <code>{{ digest }}</code>) on {{ made }}.
{% if snakemake_status %}The workflow ended with status {{ snakemake_status }}.{% endif %}</p>
<p>Where CPU model, instruction set, threads, code and packages or images are those of the record, a
run must give the same bits. Elsewhere float64 must agree within 1e-11, and the rest is judged by
the statistics of the report.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Outcomes">
<table>
<thead><tr><th scope="col">What</th><th scope="col">Measure</th><th scope="col">Outcome</th>
<th scope="col">Found</th></tr></thead>
<tbody>
{% for o in outcomes %}
<tr><td>{{ o.what }}</td><td>{{ o.measure }}</td><td>{{ o.outcome }}</td><td>{{ o.says }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% if reasons %}
<h2>What differs from the record</h2>
<ul>
{% for reason in reasons %}
<li>{{ reason }}</li>
{% endfor %}
</ul>
{% else %}
<p>Nothing that can change bits differs from the record.</p>
{% endif %}
</main>
</body>
</html>
"""


def render(told: Mapping[str, Any]) -> str:
    """Return the page of a repetition, complete in one file."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    reasons = sorted({reason for o in told["outcomes"] for reason in o["differs"]})
    style = jinja2.utils.markupsafe.Markup(STYLE.read_text())
    return environment.from_string(TEMPLATE).render(**told, reasons=reasons, style=style)
