"""``report.html``: the run's tables for people, one self-contained page computed from the summary alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from melanoma_dist.evaluate.summary import header_by_fold, header_by_label, rows_by_fold, rows_by_label

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ s.backbone }}: {{ s.headline }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
td { font-variant-numeric: tabular-nums; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.synthetic { background: #fff3cd; border: 2px solid #8a6100; padding: .8rem 1rem; font-weight: bold; }
pre { overflow-x: auto; background: #f6f6f6; padding: 1rem; font-size: .85rem; }
</style>
</head>
<body>
<h1>{{ s.backbone }}: melanoma AUC {{ headline }} out of fold</h1>
{% if s.synthetic %}<p class="synthetic">SYNTHETIC DATA: these figures say nothing about melanoma.</p>{% endif %}
<p>{{ s.data.images }} images in {{ s.folds | length }} folds of whole lesions. Each image is predicted once, by the
fold that did not train on its lesion. The epoch of each fold was chosen by its validation AUC, so these figures are
slightly optimistic; only images that no fold has seen give an unbiased one. Precision and recall are at probability
{{ s.threshold }}.</p>
{% for title, header, rows in tables %}
<h2>{{ title }}</h2>
<div class="scroll"><table>
<thead><tr>{% for cell in header %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody>
</table></div>
{% endfor %}
<h2>To reproduce</h2>
<pre>{{ record }}</pre>
<p>For research. Not a medical device; not for the diagnosis of patients.</p>
</body>
</html>
"""


def write_report(summary: dict[str, Any], path: Path) -> None:
    """Write the page, whole or not at all."""
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    auc = summary["out_of_fold"]["labels"][summary["labels"][0]]["auc"]
    training = [
        [f"fold {fold}", *(str(entry[key]) for key in ("epochs", "seconds", "images_per_s", "input_wait_share"))]
        for fold, entry in summary["training"].items()
    ]
    tables = [
        ("Melanoma, per fold", header_by_fold(summary), rows_by_fold(summary)),
        ("Out of fold, per label", header_by_label(summary), rows_by_label(summary)),
        ("Training", ["", "epochs", "seconds", "images/s", "input wait (share)"], training),
    ]
    record = json.dumps({key: summary[key] for key in ("identity", "made_with", "finished")}, indent=1)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(page.render(s=summary, headline=f"{auc:.4f}", tables=tables, record=record))
    aside.replace(path)
