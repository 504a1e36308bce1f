"""The page: self-contained, small, honest about what is absent, and usable in a real browser."""

import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from matplotlib import colors

from lockstep.report import analysis, build, page, picture
from lockstep.study import Study
from tests.conftest import PATIENCE, lacks
from tests.report.planted import on_jax, set_at, update
from tests.report.report_studies import TWO, write

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """In its second workload JAX did not consume what PyTorch did."""
    places = {"scales": ("1x1", "1x2"), "workloads": ("first", "second")}
    other = on_jax(set_at("batches", "f" * 64), workload="second")
    made = write(tmp_path_factory.mktemp("page"), seeds=3, edit=other, **places)
    build.build(made)
    return made


@pytest.fixture(scope="module")
def html(study: Study) -> str:
    return study.report().read_text()


def elements(html: str) -> list[tuple[str, dict[str, str]]]:
    """Return the tags of a page and their attributes; it is XML but for two things."""
    text = re.sub(r"(<meta [^>]*)>", r"\1/>", html[html.index("<html") :])
    tree = ElementTree.fromstring(text.replace('"table" open>', '"table" open="">'))
    plain = lambda name: name.split("}")[-1]  # noqa: E731
    return [(plain(e.tag), {plain(k): v for k, v in e.items()}) for e in tree.iter()]


def test_the_page_is_whole_needs_nothing_else_and_says_its_figures_in_words(study, html) -> None:
    tags = elements(html)
    names = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(names) == len(set(names))
    for tag, attributes in tags:
        assert tag not in ("script", "iframe", "img", "link", "object") and "src" not in attributes
        target = attributes.get("href", "#")
        assert not re.match(r"(https?:)?//", target) and (tag == "a" or target[0] == "#")
        if tag == "a":
            file = study.report().parent / target
            assert target[1:] in names if target[0] == "#" else file.exists(), target
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    pictures = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(pictures) > 10
    assert all(a.get("role") == "img" and len(a.get("aria-label", "")) > 30 for a in pictures)


def test_a_verdict_is_told_in_words_and_not_by_colour_alone(html: str) -> None:
    badges = re.findall(r'<p class="badge"><span aria-hidden="true">(.)</span> ([^<]+)</p>', html)
    assert badges and all(symbol.strip() and len(word) > 4 for symbol, word in badges)
    assert "Parity PASS" in html


def test_the_page_says_what_was_run_and_in_a_sentence_what_no_run_has(html: str) -> None:
    for words in (
        "Train the model mnist_cnn on the dataset digits (digits) for 3 epochs in batches of 64",
        "with SGD (learning rate 0.001, momentum 0.9)",
        "EPYC, 16 cores, 2 threads used, 1 × H100 (driver 580.1), Linux 6",
        "Python 3.11.7, numpy 2.4.6, torch 2.15.0, cuda 13.2, cudnn 9.26.0",
        "JAX, jit, float32",
        "Runs ended from 2026-01-02 03:04 to 2026-01-02 03:04 UTC",
        "--configfile results/planted/study.json, or where its folder is",
        "MFU (the config does not state report.device.peak_flops.float32)",
        "Energy, Energy per example, Energy to target (no energy counter was read)",
    ):
        assert words in html, words


def test_no_script_can_run_and_no_figure_hide_anything(study: Study, html: str) -> None:
    assert "default-src 'none'; style-src 'unsafe-inline'" in html
    figures = study.report().parent / "figures"
    plain = page.says(html, figures)
    assert plain == page.says(page.render(analysis.analyse(study), {}))
    caption = html.index("<figcaption>", html.index('<figure class="picture'))
    for overlay in ("<script>1</script>", '<div style="position:fixed">faster</div>'):
        assert page.says(html[:caption] + overlay + html[caption:], figures) != plain
    path = html.index("<path", caption)
    assert page.says(html[:path] + "<text>faster</text>" + html[path:], figures) != plain


def test_every_colour_of_a_figure_stands_out_from_the_paper(html: str) -> None:
    light, dark = (
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", scheme))
        for scheme in page.STYLE.read_text().split("prefers-color-scheme: dark")[:2]
    )
    for name, colour in picture.PALETTE.items():
        assert contrast(colour, light["paper"]) >= 3, name
        assert contrast(dark[name], dark["paper"]) >= 3, name
    drawn = set(re.findall(r"(?:stroke|fill|color): ?([^;\"]+)", html.split("</style>", 1)[1]))
    free = {c for c in drawn if not c.startswith(("var(--", "url(", "currentColor", "none"))}
    assert not free, free


def contrast(a: str, b: str) -> float:
    """Return the contrast of two colours by WCAG 2's definition."""

    def luminance(colour: str) -> float:
        parts = colors.to_rgb(colour)
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.05 + float(np.dot([0.2126, 0.7152, 0.0722], linear))

    low, high = sorted((luminance(a), luminance(b)))
    return high / low


def test_hashes_are_compared_but_not_spelled_out_in_a_verdict(html: str) -> None:
    verdicts = re.findall(r'<p class="verdict">([^<]+)</p>', html)
    found = [v for v in verdicts if "batches consumed" in v]
    assert found and all("their hashes are not the same" in v for v in found)
    assert not any(re.search("[0-9a-f]{30}", v) for v in verdicts)


def test_what_is_written_is_the_same_every_time(study: Study, html: str) -> None:
    folder = study.report().parent
    svgs, pngs = ([*(folder / "figures").glob(f"*.{kind}")] for kind in ("svg", "png"))
    names = {path.stem for path in svgs}
    assert {"first-learning", "first-parity", "first-step-course"} <= names
    assert names == {path.stem for path in pngs if path.read_bytes().startswith(b"\x89PNG")}
    written = json.loads((folder / "report.json").read_text())
    assert len(written["verdicts"]) == 2 * 2 * 3
    assert {"kind", "sentence", "step_time", "differences"} <= written["verdicts"][0].keys()
    assert "first-epochs" in written["tables"]
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    build.build(study)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_text_from_a_record_is_not_taken_for_markup(tmp_path: Path) -> None:
    edit = update(status="failed", reason="<script>alert(1)</script>")
    text = page.render(analysis.analyse(write(tmp_path, variants=TWO, seeds=2, edit=edit)), {})
    assert "<script>" not in text and "&lt;script&gt;" in text


# In a browser ---------------------------------------------------------------------------------


def chromium(folder: Path, *arguments: str) -> str:
    if CHROMIUM is None:
        lacks("browser", "there is no Chromium to look at the page with")
    options = "headless no-sandbox disable-gpu disable-quic no-first-run disable-sync"
    options += " disable-background-networking disable-component-update"
    command = [CHROMIUM, *(f"--{name}" for name in options.split())]
    command += [f"--user-data-dir={folder / 'profile'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout


PROBE = """<script>
addEventListener("load", () => {
  const beyond = names => [...document.querySelectorAll(names)]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1).length;
  document.title = JSON.stringify({width: innerWidth, clipped: beyond("h1,h2,h3,h4,p,dt,dd,li"),
    tables: beyond("table,svg"), wide: document.documentElement.scrollWidth > innerWidth});
});
</script>"""


def looked_at(folder: Path, html: str, width: int) -> dict:
    """Return what `PROBE` finds in a frame of a width: a window cannot be as narrow as a phone."""
    html = re.sub(r"<meta http-equiv[^>]+>", "", html)  # its policy lets no script run
    (folder / "page.html").write_text(html.replace("</body>", f"{PROBE}</body>"))
    frame = folder / "frame.html"
    frame.write_text(
        f'<iframe id="f" src="page.html" style="width:{width}px;height:800px;border:0"></iframe>'
        "<script>addEventListener('load', () => { const d = document.getElementById('f')"
        ".contentDocument; setTimeout(() => { document.body.dataset.found = d.title; }, 500); })"
        "</script>"
    )
    always = ["--allow-file-access-from-files", "--virtual-time-budget=10000", "--dump-dom"]
    dom = chromium(folder, *always, frame.as_uri())
    found = re.search(r'data-found="([^"]+)"', dom)
    assert found, dom[-500:]
    return json.loads(found[1].replace("&quot;", '"'))


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_nothing_is_wider_than_the_window(tmp_path, html, width) -> None:
    facts = looked_at(tmp_path, html, width)
    assert facts["width"] == width
    assert not facts["wide"] and facts["clipped"] == 0


PAPER = 718  # CSS pixels of an A4 sheet within its margins


def test_on_paper_no_table_is_cut_off(tmp_path: Path, html: str) -> None:
    printed = html.replace("@media print", "@media all").replace('"table">', '"table" open>')
    facts = looked_at(tmp_path, printed, PAPER)
    assert not facts["wide"] and facts["clipped"] == facts["tables"] == 0


def test_on_paper_what_is_folded_is_open(tmp_path: Path) -> None:
    lines = "<p>a line</p>" * 300
    text = f"<style>{page.STYLE.read_text()}</style><details><summary>s</summary>{lines}</details>"
    (tmp_path / "page.html").write_text(text)
    target = tmp_path / "page.pdf"
    chromium(tmp_path, f"--print-to-pdf={target}", (tmp_path / "page.html").as_uri())
    assert len(re.findall(rb"/Type\s*/Page\b", target.read_bytes())) > 3
