"""The page: self-contained, small, honest about what is absent, and usable in a real browser."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lockstep.report import analysis, build, drawing, learning, page, tables
from lockstep.study import Study
from tests.conftest import PATIENCE, lacks
from tests.report.report_studies import TWO, VARIANTS, write

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
VOID = {"meta", "link", "br", "img", "input", "hr", "path", "use", "rect"}


def other_batches(run, summary) -> None:
    """In the second workload JAX did not consume what PyTorch did."""
    if (run.workload, run.variant) == ("second", "jax-jit"):
        summary["batches"] = "f" * 64


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    made = write(
        tmp_path_factory.mktemp("page"),
        variants=VARIANTS,
        seeds=3,
        scales=("1x1", "1x2"),
        workloads=("first", "second"),
        noise=0.01,
        edit=other_batches,
    )
    build.build(made)
    return made


@pytest.fixture(scope="module")
def html(study: Study) -> str:
    return study.report().read_text()


class Reader(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def test_the_page_needs_no_network_and_no_other_file(html: str) -> None:
    for tag, attributes in read(html).attributes:
        assert tag not in ("script", "iframe", "img", "link", "object")
        if "src" in attributes or tag == "use":
            pytest.fail(f"<{tag}> loads something") if "src" in attributes else None
        target = attributes.get("href") or attributes.get("xlink:href") or ""
        assert not re.match(r"(https?:)?//", target)
        if tag != "a":
            assert target == "" or target.startswith("#")
    assert "@import" not in html and not re.search(r"url\((?!#)", html)


def test_every_link_leads_somewhere(html: str, study: Study) -> None:
    reader = read(html)
    names = {a["id"] for _, a in reader.attributes if "id" in a}
    for tag, attributes in reader.attributes:
        target = attributes.get("href") if tag == "a" else None
        if target and target.startswith("#"):
            assert target[1:] in names
        elif target:
            assert (study.report().parent / target).exists(), target


def test_the_page_is_well_formed_and_its_ids_are_unique(html: str) -> None:
    reader = read(html)
    assert not reader.wrong and not reader.open
    names = [a["id"] for _, a in reader.attributes if "id" in a]
    assert len(names) == len(set(names))


def test_every_figure_says_in_words_what_it_shows(html: str) -> None:
    pictures = [a for tag, a in read(html).attributes if tag == "svg"]
    assert len(pictures) > 10
    assert all(a.get("role") == "img" and len(a.get("aria-label") or "") > 30 for a in pictures)


def test_a_verdict_is_told_in_words_and_not_by_colour_alone(html: str) -> None:
    badges = re.findall(r'<p class="badge"><span aria-hidden="true">(.)</span> ([^<]+)</p>', html)
    assert badges and all(symbol.strip() and len(word) > 4 for symbol, word in badges)
    assert "Parity PASS" in html


def test_the_page_is_small(html: str) -> None:
    assert len(html.encode()) < 5_000_000


def test_what_a_machine_cannot_give_is_absent_with_its_reason(html: str) -> None:
    assert "MFU: absent, the config does not state report.device.peak_flops.float32." in html
    assert "Energy: absent, no energy counter was read." in html


def test_hashes_are_compared_but_not_spelled_out_in_a_verdict(html: str) -> None:
    verdicts = re.findall(r'<p class="verdict">([^<]+)</p>', html)
    found = [v for v in verdicts if "batches consumed" in v]
    assert found and all("their hashes are not the same" in v for v in found)
    assert not any(re.search("[0-9a-f]{30}", v) for v in verdicts)


def test_a_performance_profile_leaves_out_what_is_not_comparable(study: Study) -> None:
    profile = analysis.analyse(study).profile
    assert profile is not None and set(profile.index.get_level_values(0)) == {"first"}


def test_scaling_and_a_performance_profile_appear_where_there_is_something_to_show(html) -> None:
    assert "Strong scaling" in html and "Performance profile" in html


def test_figures_are_written_as_svg_and_png(study: Study) -> None:
    folder = study.report().parent / "figures"
    names = {p.stem for p in folder.iterdir()}
    assert {"first-loss", "first-parity", "first-time-split", "performance-profile"} <= names
    for name in names:
        ElementTree.parse(folder / f"{name}.svg")
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_as_csv_is_in_si_units_and_says_what_is_absent(study: Study) -> None:
    text = (study.report().parent / "tables" / "first-step-time.csv").read_text()
    header, row, *_ = text.splitlines()
    values = dict(zip(header.split(","), row.split(","), strict=True))
    assert 0.009 < float(values["step_median"]) < 0.011  # seconds
    resources = (study.report().parent / "tables" / "first-resources.csv").read_text()
    assert "absent: no energy counter was read" in resources


def test_report_json_holds_every_verdict_and_is_the_same_every_time(study: Study) -> None:
    written = json.loads((study.report().parent / "report.json").read_text())
    assert written == json.loads(json.dumps(analysis.as_json(analysis.analyse(study))))
    assert len(written["verdicts"]) == 2 * 2 * 3
    assert {"kind", "sentence", "step_time", "differences"} <= written["verdicts"][0].keys()
    assert "first-losses" in written["tables"]


def test_the_same_records_give_the_same_page_to_the_byte(study: Study, html: str) -> None:
    build.build(study)
    assert study.report().read_text() == html


def test_a_framework_has_one_colour_and_a_variant_one_line_and_marker() -> None:
    looks = drawing.looks(VARIANTS)
    assert looks["torch-eager"].colour == looks["torch-compile"].colour != looks["jax-jit"].colour
    eager, compiled = looks["torch-eager"], looks["torch-compile"]
    assert eager.line != compiled.line and eager.marker != compiled.marker


def test_text_from_a_record_is_not_taken_for_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    made = write(
        tmp_path,
        variants=TWO,
        seeds=2,
        edit=lambda run, s: s.update(status="failed", reason=evil) if run.seed else None,
    )
    build.build(made)
    text = made.report().read_text()
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_a_table_of_many_runs_shows_the_lost_ones_and_leaves_the_rest_to_the_csv() -> None:
    rows = [{"status": "finished"}] * 1_000 + [{"status": "failed"}]
    source = tables.Table(
        name="runs", title="", columns=[tables.Column(key="status", label="Status")], rows=rows
    )
    made = page.table(source)
    assert made["hidden"] == 1_001 - page.MOST_ROWS
    assert made["rows"][0][0]["text"] == "failed"


@pytest.mark.parametrize(
    ("changes", "source", "shown"),
    [
        ({}, "mnist", True),
        ({}, "fashion_mnist", False),
        ({"optimizer": {"learning_rate": 0.01}}, "mnist", False),
        ({"epochs": 3}, "mnist", False),
    ],
)
def test_the_widely_copied_losses_stand_beside_the_same_recipe_only(
    tmp_path, changes, source, shown
) -> None:
    made = write(tmp_path, variants=TWO, seeds=1)
    recipe = made.config["workloads"]["mnist_cnn"]
    recipe["epochs"] = changes.get("epochs", 10)
    recipe["optimizer"].update(changes.get("optimizer", {}))
    made.config["datasets"]["digits"]["source"] = source
    records = analysis.analyse(made).records
    assert (learning.copied_series(records, "mnist_cnn") is not None) == shown


def test_numbers_of_a_column_have_their_points_below_each_other() -> None:
    column = tables.Column(key="x", label="x", digits=4, scale=1e3)
    values = [0.006364, 0.2058]
    same = tables.aligned(column, values)
    assert [tables.shown(v, same) for v in values] == ["6.36", "205.80"]


# In a browser ---------------------------------------------------------------------------------


@pytest.fixture
def browser() -> None:
    if CHROMIUM is None:
        lacks("browser", "there is no Chromium to look at the page with")


def chromium(folder: Path, *arguments: str) -> str:
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={folder / 'profile'}",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout


PROBE = """<script>
addEventListener("load", () => {
  const wide = document.documentElement.scrollWidth > innerWidth;
  const nav = performance.getEntriesByType("navigation")[0];
  const clipped = [...document.querySelectorAll("h1,h2,h3,h4,p,dt,dd,li")]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1).length;
  const tables = [...document.querySelectorAll("table, svg")]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1).length;
  document.title = JSON.stringify(
    {wide, clipped, tables, width: innerWidth, milliseconds: nav.domComplete});
});
</script>"""


def looked_at(folder: Path, html: str, width: int, *options: str) -> dict:
    """Return what `PROBE` finds in a frame of a width: a window cannot be as narrow as a phone."""
    (folder / "page.html").write_text(html.replace("</body>", f"{PROBE}</body>"))
    frame = folder / "frame.html"
    frame.write_text(
        f'<iframe id="f" src="page.html" style="width:{width}px;height:800px;border:0"></iframe>'
        "<script>addEventListener('load', () => { const d = document.getElementById('f')"
        ".contentDocument; setTimeout(() => { document.body.dataset.found = d.title; }, 500); })"
        "</script>"
    )
    always = ["--allow-file-access-from-files", "--virtual-time-budget=10000", "--dump-dom"]
    dom = chromium(folder, *always, *options, frame.as_uri())
    found = re.search(r'data-found="([^"]+)"', dom)
    assert found, dom[-500:]
    return json.loads(found[1].replace("&quot;", '"'))


@pytest.mark.usefixtures("browser")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_nothing_is_wider_than_the_window(tmp_path, html, width, scheme) -> None:
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    facts = looked_at(tmp_path, html, width, *dark)
    assert facts["width"] == width
    assert not facts["wide"] and facts["clipped"] == 0


PAPER = 718  # CSS pixels of an A4 sheet within its margins


@pytest.mark.usefixtures("browser")
def test_on_paper_no_table_is_cut_off(tmp_path: Path, html: str) -> None:
    printed = html.replace("@media print", "@media all").replace("<details>", "<details open>")
    facts = looked_at(tmp_path, printed, PAPER)
    assert not facts["wide"] and facts["clipped"] == facts["tables"] == 0


@pytest.mark.usefixtures("browser")
def test_in_a_browser_the_page_is_there(tmp_path, html) -> None:
    (tmp_path / "page.html").write_text(html.replace("</body>", f"{PROBE}</body>"))
    dom = chromium(tmp_path, "--dump-dom", (tmp_path / "page.html").as_uri())
    found = re.search(r"<title>(\{.*?\})</title>", dom)
    assert found and json.loads(found[1])["milliseconds"] > 0


@pytest.mark.usefixtures("browser")
def test_on_paper_what_is_folded_is_open(tmp_path: Path) -> None:
    lines = "<p>a line</p>" * 300
    text = f"<style>{page.STYLE.read_text()}</style><details><summary>s</summary>{lines}</details>"
    (tmp_path / "page.html").write_text(text)
    target = tmp_path / "page.pdf"
    chromium(tmp_path, f"--print-to-pdf={target}", (tmp_path / "page.html").as_uri())
    assert len(re.findall(rb"/Type\s*/Page\b", target.read_bytes())) > 3
