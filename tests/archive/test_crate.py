"""The description is one that the public validator accepts, and is of this study."""

import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import rocrate
from requests import PreparedRequest, Response
from requests_cache import CachedSession
from rocrate_validator import services
from urllib3.response import HTTPResponse

from lockstep.archive import layout
from tests.archive import tamper
from tests.archive.conftest import AUTHORS, Archived, ask, make
from tests.end_to_end.checkout import Checkout

PROFILE = "provenance-run-crate-0.5"

UNSATISFIABLE = {"process-run-crate-0.5_5.1"}
"""That a workflow is called by an absolute address: no crate that holds its workflow can meet it,
as the same profile's Main Workflow must be a file in the crate
(https://github.com/crs4/rocrate-validator/issues/51).
"""

# The two contexts that a crate of this kind names, so that the validator needs no network: of the
# first, the terms of RO-Crate 1.1 that we use, with the meanings that the library's own copy of a
# later version gives them, which are the same but for MOVED; of the second, the terms that we use.
CONTEXT_1_1 = "https://w3id.org/ro/crate/1.1/context"
CONTEXT_RUN = "https://w3id.org/ro/terms/workflow-run/context"
TERMS_1_1 = re.findall(
    r"\w+",
    """
    ComputationalWorkflow ComputerLanguage ControlAction CreateAction CreativeWork Dataset File
    FormalParameter Grant HowTo HowToStep OrganizeAction Organization Person PropertyValue
    SoftwareApplication SoftwareSourceCode about actionStatus additionalType affiliation agent
    author citation conformsTo contentSize datePublished description encodingFormat endTime error
    exampleOfWork funder funding hasPart identifier input instrument isBasedOn keywords license
    mainEntity mentions name object output position programmingLanguage publisher result
    softwareRequirements softwareVersion startTime step url value version workExample
    """,
)
MOVED = {  # the terms that later versions call otherwise
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "FormalParameter": "https://bioschemas.org/FormalParameter",
    "input": "https://bioschemas.org/ComputationalWorkflow#input",
    "output": "https://bioschemas.org/ComputationalWorkflow#output",
}
TERMS_RUN = ("ContainerImage", "SIFImage", "containerImage", "registry", "sha256", "tag")


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The validator's cache with both contexts in it."""
    shipped = json.loads((Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_text())
    terms = {term: shipped["@context"][term] for term in TERMS_1_1} | MOVED
    run = {term: f"https://w3id.org/ro/terms/workflow-run#{term}" for term in TERMS_RUN}
    cache = tmp_path_factory.mktemp("validator") / "cache"
    session = CachedSession(str(cache), backend="sqlite", expire_after=-1)
    for address, context in ((CONTEXT_1_1, terms), (CONTEXT_RUN, run)):
        session.cache.save_response(answer(address, json.dumps({"@context": context}).encode()))
    session.close()
    return cache


def answer(address: str, content: bytes) -> Response:
    """What a server would answer."""
    response = Response()
    response.status_code, response.url = 200, address
    response.headers["Content-Type"] = "application/ld+json"
    response.encoding = "utf-8"
    response.request = PreparedRequest()
    response.request.prepare(method="GET", url=address, headers={})
    response.raw = HTTPResponse(
        body=io.BytesIO(content),
        headers={"Content-Type": "application/ld+json"},
        status=200,
        preload_content=False,
    )
    return response


def issues(file: Path, contexts: Path, severity: str) -> dict[str, list[str]]:
    """What the validator has to say, by the identifier of its check."""
    result = services.validate(
        {
            "rocrate_uri": str(file),
            "profile_identifier": PROFILE,
            "requirement_severity": severity,
            "cache_path": contexts,
            "offline": True,
            "disable_remote_crate_download": False,
        }
    )
    found: dict[str, list[str]] = {}
    for issue in result.get_issues():
        found.setdefault(issue.check.identifier, []).append(str(issue.message))
    return found


def test_the_validator_accepts_it_at_the_required_level(archived: Archived, contexts: Path) -> None:
    assert issues(archived.file, contexts, "REQUIRED") == {}


def test_and_at_the_recommended_level(archived: Archived, contexts: Path) -> None:
    found = issues(archived.file, contexts, "RECOMMENDED")
    assert found.keys() == UNSATISFIABLE, found


def test_the_validator_sees_what_is_wrong(file: Path, contexts: Path) -> None:
    def change(told: dict) -> None:
        for entity in told["@graph"]:
            if entity["@type"] == "CreateAction":
                del entity["instrument"]

    contents = tamper.load(file)
    tamper.edit_json(contents, layout.CRATE, change)
    tamper.store(file, contents)
    assert "process-run-crate-0.5_1.1" in issues(file, contexts, "REQUIRED")


def test_only_known_terms_are_used(archived: Archived) -> None:
    told = json.loads(tamper.load(archived.file)[layout.CRATE])
    assert told["@context"] == [CONTEXT_1_1, CONTEXT_RUN]
    used = {key for entity in told["@graph"] for key in entity if not key.startswith("@")}
    for entity in told["@graph"]:
        kinds = entity["@type"]
        used |= set(kinds if isinstance(kinds, list) else [kinds])
    assert used <= {*TERMS_1_1, *TERMS_RUN}


def test_it_tells_of_people_stages_and_runs(archived: Archived) -> None:
    told = json.loads(tamper.load(archived.file)[layout.CRATE])
    entities = {entity["@id"]: entity for entity in told["@graph"]}
    root = entities["./"]
    assert root["name"] == "Digits, twice"
    assert root["author"] == {"@id": f"https://orcid.org/{AUTHORS[0]['orcid']}"}
    assert root["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
    run = entities["#train-mnist_cnn/jax-jit/1x1/seed-1"]
    assert run["result"] == {"@id": "results/small/runs/mnist_cnn/jax-jit/1x1/seed-1/"}
    assert run["startTime"] <= run["endTime"] and run["endTime"].endswith("+00:00")
    versions = {e["name"]: e["softwareVersion"].split("+")[0] for e in entities.values()
                if e["@type"] == "SoftwareApplication"}  # fmt: skip
    packages = archived.study.environment
    assert (versions["PyTorch"], versions["JAX"]) == (packages["torch"], packages["jax"])
    assert "https://example.org/lockstep#tool-train" in entities
    assert entities["source/Snakefile"]["license"] == {
        "@id": "https://spdx.org/licenses/Apache-2.0"
    }
    assert root["identifier"] == "https://doi.org/10.5281/zenodo.1234567"
    assert (root["version"], root["funding"]) == ("1.0", {"@id": "#grant-EX-1"})
    assert {"@id": "#state-mnist_cnn-1"} in run["object"]
    stages = {i.split("-")[0] for i, e in entities.items() if e["@type"] == "CreateAction"}
    assert stages == {"#study", "#preprocess", "#weights", "#trace", "#parity", "#train", "#report"}
    assert root["mainEntity"] == {"@id": "source/Snakefile"}


def test_a_study_that_is_not_complete_is_accepted_too(copied: Checkout, contexts: Path) -> None:
    for name in ("runs", "blocks", "report"):
        shutil.rmtree(copied.results() / name)
    ask(copied, authors=[], licence=None, title=None)
    make(copied, "--partial")
    file = copied.results("small.partial.crate.zip")
    assert issues(file, contexts, "REQUIRED") == {}


def test_files_for_others_are_there(archived: Archived) -> None:
    with zipfile.ZipFile(archived.file) as opened:
        upload = json.loads(opened.read(layout.UPLOAD))["metadata"]
        cited = opened.read(layout.CITATION).decode()
    assert upload["title"] == "Digits, twice" and upload["license"] == "cc-by-4.0"
    assert upload["creators"][0] == {
        "name": "Ada Example",
        "orcid": "0000-0002-1825-0097",
        "affiliation": "Example University",
    }
    assert "license: CC-BY-4.0" in cited and "Ada Example" in cited
    assert f"doi: {upload['doi']}" in cited and upload["doi"] == "10.5281/zenodo.1234567"


def test_people_are_told_apart_and_nothing_is_said_for_them(
    copied: Checkout, contexts: Path
) -> None:
    ask(copied, authors=[{"name": name} for name in ("山田太郎", "田中花子", "Unnamed")])
    for path in (copied.results() / "logs").rglob("*.json"):
        job = json.loads(path.read_text())
        path.write_text(json.dumps({**job, "packages": {"snakemake": "9.0.1"}}))
    make(copied)
    file = copied.results("small.crate.zip")
    graph = {e["@id"]: e for e in json.loads(tamper.load(file)[layout.CRATE])["@graph"]}
    people = {e["name"]: e for e in graph.values() if e["@type"] == "Person"}
    assert set(people) == {"山田太郎", "田中花子", "Unnamed"}
    assert not any("affiliation" in person for person in people.values())
    organizations = [e["name"] for e in graph.values() if e["@type"] == "Organization"]
    assert organizations == ["Example Fund"] and "publisher" not in graph["./"]
    # What it was run with, not what archives it.
    assert graph["https://snakemake.github.io"]["softwareVersion"] == "9.0.1"
    assert issues(file, contexts, "REQUIRED") == {}
