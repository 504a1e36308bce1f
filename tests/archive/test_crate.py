"""The description is one that the public validator accepts, and is of this study."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import rocrate
from requests import PreparedRequest, Response
from requests_cache import CachedSession
from rocrate_validator import services
from urllib3.response import HTTPResponse

from lockstep.archive import layout
from tests.archive import tamper
from tests.archive.archived import ORCID, Archived, ask, make
from tests.end_to_end.checkout import Checkout

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
    response, kind = Response(), {"Content-Type": "application/ld+json"}
    response.status_code, response.url, response.encoding = 200, address, "utf-8"
    response.headers.update(kind)
    response.request = PreparedRequest()
    response.request.prepare(method="GET", url=address, headers={})
    body = io.BytesIO(content)
    response.raw = HTTPResponse(body=body, headers=kind, status=200, preload_content=False)
    return response


def issues(file: Path, contexts: Path, severity: str = "REQUIRED") -> set[str]:
    """The checks of the validator that do not pass."""
    result = services.validate(
        {
            "rocrate_uri": str(file),
            "profile_identifier": "provenance-run-crate-0.5",
            "requirement_severity": severity,
            "cache_path": contexts,
            "offline": True,
            "disable_remote_crate_download": False,
        }
    )
    return {issue.check.identifier for issue in result.get_issues()}


def test_the_validator_recommends_nothing_more(archived: Archived, contexts: Path) -> None:
    """It does look: one of its recommendations cannot be met."""
    assert issues(archived.file, contexts, "RECOMMENDED") == UNSATISFIABLE


def test_it_tells_of_people_stages_and_runs(archived: Archived) -> None:
    contents = tamper.load(archived.file)
    assert json.loads(contents[layout.CRATE])["@context"] == [CONTEXT_1_1, CONTEXT_RUN]
    entities = tamper.graph(archived.file)
    root = entities["./"]
    told = {key: root[key] for key in ("name", "identifier", "version")}
    assert told == {"name": "Digits, twice", "version": "1.0",
                    "identifier": "https://doi.org/10.5281/zenodo.1234567"}  # fmt: skip
    run = entities["#train-mnist_cnn/jax-jit/1x1/seed-1"]
    for found, identifier in (
        (root["author"], f"https://orcid.org/{ORCID}"),
        (root["license"], "https://spdx.org/licenses/CC-BY-4.0"),
        (root["funding"], "#grant-EX-1"),
        (root["mainEntity"], "source/Snakefile"),
        (entities["source/Snakefile"]["license"], "https://spdx.org/licenses/Apache-2.0"),
        (run["result"], "results/small/runs/mnist_cnn/jax-jit/1x1/seed-1/"),
    ):
        assert found == {"@id": identifier}
    assert run["startTime"] <= run["endTime"] and run["endTime"].endswith("+00:00")
    assert {"@id": "#state-mnist_cnn-1"} in run["object"]
    assert "https://example.org/lockstep#tool-train" in entities
    versions = {e["name"]: e["softwareVersion"].split("+")[0] for e in entities.values()
                if e["@type"] == "SoftwareApplication"}  # fmt: skip
    packages = archived.study.environment
    assert (versions["PyTorch"], versions["JAX"]) == (packages["torch"], packages["jax"])
    stages = {i.split("-")[0] for i, e in entities.items() if e["@type"] == "CreateAction"}
    assert stages == {"#study", "#preprocess", "#weights", "#trace", "#parity", "#train", "#report"}
    upload = json.loads(contents[layout.UPLOAD])["metadata"]
    told = {key: upload[key] for key in ("title", "license", "doi", "creators")}
    person = {"name": "Ada Example", "orcid": ORCID, "affiliation": "Example University"}
    assert told == {"title": "Digits, twice", "license": "cc-by-4.0", "creators": [person],
                    "doi": "10.5281/zenodo.1234567"}  # fmt: skip
    cited = contents[layout.CITATION].decode()
    for says in ("license: CC-BY-4.0", "Ada Example", "doi: 10.5281/zenodo.1234567"):
        assert says in cited


def test_nothing_is_said_for_people_and_less_is_accepted_too(
    copied: Checkout, contexts: Path
) -> None:
    for name in ("runs", "blocks", "report"):
        shutil.rmtree(copied.results() / name)
    names = ("山田太郎", "田中花子", "Unnamed")
    ask(copied, authors=[{"name": name} for name in names], licence=None, title=None)
    for path in (copied.results() / "logs").rglob("*.json"):
        job = json.loads(path.read_text())
        path.write_text(json.dumps({**job, "packages": {"snakemake": "9.0.1"}}))
    file, _ = make(copied, partial=True)
    graph = tamper.graph(file)
    people = {e["name"]: e for e in graph.values() if e["@type"] == "Person"}
    assert people.keys() == {*names}
    assert not any("affiliation" in person for person in people.values())
    organizations = [e["name"] for e in graph.values() if e["@type"] == "Organization"]
    assert organizations == ["Example Fund"] and "publisher" not in graph["./"]
    # What it was run with, not what archives it.
    assert graph["https://snakemake.github.io"]["softwareVersion"] == "9.0.1"
    assert issues(file, contexts) == set()
