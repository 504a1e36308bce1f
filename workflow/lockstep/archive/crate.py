"""The archive described as a Provenance Run Crate (RO-Crate 1.1): a graph as plain data.

Profile: https://w3id.org/ro/wfrun/provenance/0.5 and what it builds on. The graph is a function of
what is in the archive, so verifying makes it again and compares.
"""

import bisect
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lockstep import __version__, files
from lockstep.archive import description, layout
from lockstep.archive.completeness import Read
from lockstep.archive.provenance import STAGES, Action, Provenance
from lockstep.study import Study

RUN_TERMS = "https://w3id.org/ro/terms/workflow-run"
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", f"{RUN_TERMS}/context"]
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
SNAKEMAKE = "https://snakemake.github.io"
LANGUAGE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
PACKAGES = {
    "torch": ("PyTorch", "https://pytorch.org"),
    "jax": ("JAX", "https://docs.jax.dev"),
    "flax": ("Flax", "https://flax.readthedocs.io"),
    "optax": ("Optax", "https://optax.readthedocs.io"),
}
WORKFLOW = f"{layout.SOURCE}Snakefile"
LICENCE = "https://spdx.org/licenses/Apache-2.0"
"""Of the workflow and the package."""

Entity = dict[str, Any]
Link = dict[str, str]


def describe(
    study: Study,
    about: Mapping[str, Any],
    sizes: Mapping[str, int],
    hashes: Mapping[str, str],
    read: Read,
    happened: Provenance,
) -> bytes:
    """Return ``ro-crate-metadata.json``.

    Args:
        study: whose paths are names in the archive.
        about: the content of ``archive.json``.
        sizes, hashes: of every file but this one and `layout.HASHES`.
        read: returns the JSON of an archived file.
        happened: what the records say was done.
    """
    crate = _Crate(study=study, about=about, sizes=sizes, hashes=hashes, read=read)
    crate.data(happened)
    crate.actions(happened)
    crate.workflow(happened)
    crate.root(happened)
    graph = sorted(map(_compact, crate.graph.values()), key=lambda entity: str(entity["@id"]))
    content = {"@context": CONTEXT, "@graph": graph}
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _compact(entity: Entity) -> Entity:
    """Return an entity as RO-Crate wants it: one value is no list, and none is not there."""
    plain = {k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in entity.items()}
    return {key: value for key, value in plain.items() if value not in (None, [])}


def _to(identifier: str) -> Link:
    return {"@id": identifier}


def _slug(text: str) -> str:
    """Return a name as a part of an identifier: another one for every other name."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if plain == text.lower().replace(" ", "-"):
        return plain
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}".lstrip("-")


@dataclass(kw_only=True)
class _Crate:
    """A graph in the making; see `describe`."""

    study: Study
    about: Mapping[str, Any]
    sizes: Mapping[str, int]
    hashes: Mapping[str, str]
    read: Read
    graph: dict[str, Entity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = sorted(self.hashes)
        self.top = f"{layout.RESULTS}{self.study.name}/"
        self.told = self.study.config.get("archive", {})

    def add(self, identifier: str, kind: str | list[str], /, **fields: Any) -> Link:
        """Add an entity, unless there is one of this identifier; returns what refers to it."""
        self.graph.setdefault(identifier, {"@id": identifier, "@type": kind, **fields})
        return _to(identifier)

    def below(self, folder: str) -> list[str]:
        """Return the files below a folder, whose name ends in a slash."""
        first = bisect.bisect_left(self.names, folder)
        return self.names[first : bisect.bisect_left(self.names, folder[:-1] + "0", first)]

    def has(self, name: str) -> bool:
        """Whether the archive holds a file, or anything below a folder."""
        return bool(self.below(name)) if name.endswith("/") else name in self.hashes

    # Data -------------------------------------------------------------------------------------

    def file(self, path: str, says: str, **more: Any) -> None:
        """Add a file of the archive."""
        known = {"name": says, "encodingFormat": layout.encoding(path)}
        if path in self.hashes:
            known |= {"contentSize": str(self.sizes[path]), "sha256": self.hashes[path]}
        self.add(path, "File", **known, **more)

    def folder(self, path: str, says: str, **more: Any) -> None:
        """Add a folder of the archive, with one hash over all that is below it."""
        lines = [[below, self.sizes[below], self.hashes[below]] for below in self.below(path)]
        self.add(path, "Dataset", **{"name": says, "sha256": files.digest(lines), **more})

    def data(self, happened: Provenance) -> None:
        """Add the files and folders that are described one by one."""
        for name, says in {
            layout.README: "What this is and how to check it",
            layout.HASHES: "The sha256 of every file, as sha256sum reads it",
            layout.ABOUT: "What the archive says of itself",
            layout.UPLOAD: "Metadata for a data repository's upload",
            layout.CITATION: "How to cite this archive",
            layout.STUDY: "The study's complete config, to run it again",
            f"{self.top}study.json": "The study's complete config, as it was run",
            f"{self.top}repetitions.json": "Which stages were repeated",
            f"{self.top}report/index.html": "The report",
            f"{self.top}report/report.json": "All numbers and verdicts of the report",
        }.items():
            if self.has(name) or name == layout.HASHES:
                self.file(name, says, about=_to("./") if name == layout.README else None)
        workloads = self.study.config["workloads"]
        for name, says in {
            layout.SOURCE: "Workflow and package",
            f"{layout.SOURCE}containers/": "Definitions and locks of images",
            f"{self.top}weights/": "Initial weights",
            f"{self.top}runs/": "Records of all runs",
            f"{self.top}blocks/": "Which runs were made together, with their records' hashes",
            f"{self.top}report/": "Report, tables and figures",
            f"{self.top}logs/": "Logs, and what each job ran on",
            **{f"{self.top}parity/{w}/": f"Parity of {w}: traces and verdict" for w in workloads},
        }.items():
            if self.has(name):
                self.folder(name, says, version=__version__ if name == layout.SOURCE else None)
        for workload in workloads:
            if self.has(str(self.study.verdict(workload))):
                says = f"Verdict on parity of {workload}"
                self.file(str(self.study.verdict(workload)), says)
        for folder in sorted({n.rpartition("/")[0] + "/" for n in self.below(layout.DATA)}):
            told, more = self.read(f"{folder}manifest.json"), {}
            if folder.startswith(f"{layout.DATA}datasets/"):
                more = {"name": told["name"], "license": told["licence"],
                        "description": f"{told['origin']}; content {told['content']}",
                        "isBasedOn": told["origin"], "identifier": told["identity"]}  # fmt: skip
            self.folder(folder, f"Image {folder.split('/')[-2]}", **more)
        for action in happened.actions:
            if action.stage == "train":
                self.folder(action.makes[0], f"Records of {action.name}")
        for identifier, says, value in happened.weights:
            self.add(identifier, "PropertyValue", name=says, value=value)
        self.parts = [_to(i) for i, e in self.graph.items() if e["@type"] != "PropertyValue"]

    # Actions ----------------------------------------------------------------------------------

    def actions(self, happened: Provenance) -> None:
        """Add all actions, the tools they used, their steps, and the run of the whole workflow."""
        self.people = [self.person(author) for author in self.told.get("authors") or []]
        agent = self.people[0] if self.people else None
        self.tools, self.steps, controls = [], [], []
        for position, (stage, says) in enumerate(STAGES.items()):
            done = [action for action in happened.actions if action.stage == stage]
            if not done:
                continue
            # Absolute where the config says where the source is developed.
            tool = self.add(
                f"{self.told.get('repository') or ''}#tool-{stage}", "SoftwareApplication",
                name=f"python -m lockstep {stage}", description=says, softwareVersion=__version__,
                url=f"{layout.SOURCE}workflow/lockstep/__main__.py",
                softwareRequirements=list(self.packages(done)) if stage == "train" else None,
            )  # fmt: skip
            step = self.add(f"#step-{stage}", "HowToStep", name=says, position=str(position),
                            workExample=tool)  # fmt: skip
            made = [self.action(action, tool, agent) for action in done]
            controls.append(self.add(f"#control-{stage}", "ControlAction", instrument=step,
                                     name=f"Snakemake: {says.lower()}", object=made))  # fmt: skip
            self.tools.append(tool)
            self.steps.append(step)
        results = ("report/index.html", "report/report.json", "runs/")
        held = [_to(self.top + name) for name in results if self.has(self.top + name)]
        whole = self.add(
            "#study", "CreateAction", name=f"Study {self.study.name}", instrument=_to(WORKFLOW),
            description="All stages of the study, as Snakemake ran them", agent=agent,
            startTime=happened.started, endTime=happened.ended, object=_to(layout.STUDY),
            result=held or [_to(f"{self.top}study.json")],
        )  # fmt: skip
        version = happened.version("snakemake") or "not recorded"
        engine = self.add(SNAKEMAKE, "SoftwareApplication", name="Snakemake", url=SNAKEMAKE,
                          softwareVersion=version)  # fmt: skip
        if controls:
            self.add("#organize", "OrganizeAction", name="Snakemake runs the study", result=whole,
                     instrument=engine, object=controls)  # fmt: skip

    def packages(self, done: list[Action]) -> Iterator[Link]:
        """Add the frameworks that runs were made with; yields what refers to them."""
        versions = {pair for action in done for pair in action.packages if pair[0] in PACKAGES}
        for package, version in sorted(versions):
            name, url = PACKAGES[package]
            yield self.add(f"{url}#{version}", "SoftwareApplication", name=name, url=url,
                           softwareVersion=version)  # fmt: skip

    def action(self, action: Action, tool: Link, agent: Link | None) -> Link:
        """Add an action, and the image it ran in."""
        state = "FailedActionStatus" if action.failure else "CompletedActionStatus"
        return self.add(
            f"#{action.stage}-{action.name}", "CreateAction", name=f"{action.stage} {action.name}",
            description=f"{STAGES[action.stage]}: {action.name}", instrument=tool, agent=agent,
            startTime=action.started, endTime=action.ended,
            object=[_to(name) for name in action.uses if name in self.graph],
            result=[_to(name) for name in action.makes if name in self.graph],
            containerImage=self.image(action.image) if action.image else None,
            actionStatus=f"http://schema.org/{state}", error=action.failure,
        )  # fmt: skip

    def image(self, identity: str) -> Link | None:
        """Add an image that the archive describes."""
        for name in self.below(f"{layout.DATA}images/"):
            told = self.read(name) if name.endswith("/manifest.json") else None
            if told and told["identity"] == identity:
                return self.add(
                    f"#image-{told['name']}-{identity[:12]}", "ContainerImage", tag=identity,
                    additionalType=_to(f"{RUN_TERMS}#SIFImage"), sha256=told["sif"]["sha256"],
                    registry="none: built from the definitions and locks in this archive",
                    name=name.split("/")[-2],
                )  # fmt: skip
        return None

    def workflow(self, happened: Provenance) -> None:
        """Add the workflow with its parameters and its language."""
        parameters = []
        for name, kind, example in (
            ("study", "File", layout.STUDY),
            ("report", "File", f"{self.top}report/index.html"),
            ("records", "Dataset", f"{self.top}runs/"),
        ):
            if example in self.graph:
                parameter = self.add(f"#parameter-{name}", "FormalParameter", name=name,
                                     additionalType=kind, workExample=_to(example))  # fmt: skip
                self.graph[example]["exampleOfWork"] = parameter
                parameters.append(parameter)
        self.file(
            WORKFLOW, "Lockstep", version=self.about["source"]["commit"] or __version__,
            url=self.told.get("repository") or SNAKEMAKE, license=self.licence(LICENCE),
            conformsTo=self.add(BIOSCHEMAS, "CreativeWork", name="ComputationalWorkflow",
                                version="1.0-RELEASE"),
            programmingLanguage=self.add(
                LANGUAGE, "ComputerLanguage", name="Snakemake", identifier=SNAKEMAKE,
                url=SNAKEMAKE, version=happened.version("snakemake")),
            input=parameters[:1], output=parameters[1:], hasPart=self.tools, step=self.steps,
        )  # fmt: skip
        kinds = ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"]
        self.graph[WORKFLOW]["@type"] = kinds

    # The whole --------------------------------------------------------------------------------

    def person(self, author: Mapping[str, Any]) -> Link:
        """Add an author and, if it is stated, the affiliation."""
        orcid, place = author.get("orcid"), author.get("affiliation")
        identifier = f"https://orcid.org/{orcid}" if orcid else f"#person-{_slug(author['name'])}"
        affiliation = self.organization(place) if place else None
        return self.add(identifier, "Person", name=author["name"], affiliation=affiliation)

    def organization(self, told: Mapping[str, Any]) -> Link:
        """Add an organization."""
        identifier = f"#organization-{_slug(told['name'])}"
        return self.add(identifier, "Organization", name=told["name"], url=told.get("url"))

    def licence(self, licence: str | None) -> Link:
        """Add a licence."""
        if licence is None:
            says = description.NO_LICENCE
            return self.add("#no-licence", "CreativeWork", name=says, description=says)
        address = licence if "://" in licence else f"https://spdx.org/licenses/{licence}"
        name = address.removeprefix("https://spdx.org/licenses/")
        return self.add(address, "CreativeWork", name=name, description=f"See {address}")

    def root(self, happened: Provenance) -> None:
        """Add the archive itself and the description's own entity."""
        told = self.told
        places = [a["affiliation"] for a in told.get("authors") or [] if a.get("affiliation")]
        publisher = told.get("publisher") or (places[0] if places else None)
        funders, grants = [], []
        for funding in told.get("funding") or []:
            funder = self.organization(funding)
            if funding.get("grant"):
                grants.append(self.add(f"#grant-{_slug(funding['grant'])}", "Grant",
                                       name=funding["grant"], funder=funder))  # fmt: skip
            else:
                funders.append(funder)
        profiles = [self.add(identifier, "CreativeWork", name=name, version=version)
                    for identifier, (name, version) in PROFILES.items()]  # fmt: skip
        state = description.state(self.study, self.about["missing"], self.read)
        self.add(
            "./", "Dataset", name=description.title(self.study),
            description=f"{description.summary(self.study)} {state}",
            keywords=description.keywords(self.study), datePublished=happened.ended[:10],
            conformsTo=profiles, mainEntity=_to(WORKFLOW), author=self.people,
            license=self.licence(told.get("licence")),
            publisher=self.organization(publisher) if publisher else None,
            citation=told.get("citation"), version=told.get("version"),
            identifier=f"https://doi.org/{told['doi']}" if told.get("doi") else None,
            funder=funders, funding=grants, hasPart=[*self.parts, _to(WORKFLOW)],
            mentions=[_to(i) for i, e in self.graph.items() if e["@type"] == "CreateAction"],
        )  # fmt: skip
        conforms = [_to("https://w3id.org/ro/crate/1.1"), _to(list(PROFILES)[-1])]
        self.add(layout.CRATE, "CreativeWork", about=_to("./"), conformsTo=conforms)
