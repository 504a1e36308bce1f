"""The archive described as a Provenance Run Crate (RO-Crate 1.1): a graph as plain data.

Profile: https://w3id.org/ro/wfrun/provenance/0.5 and what it builds on. The graph is a function of
what is in the archive, so verifying makes it again and compares.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from lockstep import __version__
from lockstep.archive import description, layout
from lockstep.archive.layout import Read
from lockstep.archive.provenance import FRAMEWORKS, STAGES, Action, span, version
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
WORKFLOW = f"{layout.SOURCE}Snakefile"
WORKFLOW_KINDS = ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"]
ENCODING = {"json": "application/json", "html": "text/html", "md": "text/markdown"}

Entity = dict[str, Any]
Link = dict[str, str]


def _compact(entity: Entity) -> Entity:
    """Return an entity as RO-Crate wants it: one value is no list, and none is not there."""
    plain = {k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in entity.items()}
    return {key: value for key, value in plain.items() if value not in (None, [])}


def _to(identifier: str) -> Link:
    return {"@id": identifier}


@dataclass(kw_only=True)
class Crate:
    """The description of an archive."""

    study: Study  # whose paths are names in the archive
    about: Mapping[str, Any]  # the content of ``archive.json``
    sizes: Mapping[str, int]  # of every file but this one and `layout.HASHES`
    hashes: Mapping[str, str]  # sha256 of the same
    read: Read  # returns the JSON of an archived file
    happened: Sequence[Action]  # what the records say was done
    graph: dict[str, Entity] = field(default_factory=dict)  # in the making

    def __post_init__(self) -> None:
        self.top = f"{self.study.root}/"
        self.told = self.study.config.get("archive", {})
        self.manifests: dict[str, Any] = {}
        parts = [name.split("/")[:-1] for name in self.hashes]
        self.folders = {"/".join(p[:n]) + "/" for p in parts for n in range(1, len(p) + 1)}
        data = self.data()
        authors = [self.person(author) for author in self.told.get("authors") or []]
        self.actions(authors[0] if authors else None)
        self.workflow()
        self.root(authors, data)

    def as_json(self) -> bytes:
        """Return ``ro-crate-metadata.json``."""
        graph = sorted(map(_compact, self.graph.values()), key=lambda entity: str(entity["@id"]))
        content = {"@context": CONTEXT, "@graph": graph}
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"

    def add(self, identifier: str, kind: str | list[str], /, **fields: Any) -> Link:
        """Add an entity, unless there is one of this identifier; returns what refers to it."""
        self.graph.setdefault(identifier, {"@id": identifier, "@type": kind, **fields})
        return _to(identifier)

    def file(self, path: str, says: str, kind: str | list[str] = "File", /, **more: Any) -> None:
        """Add a file of the archive."""
        known = {"name": says, "encodingFormat": ENCODING.get(path.split(".")[-1], "text/plain")}
        if path in self.hashes:
            known |= {"contentSize": str(self.sizes[path]), "sha256": self.hashes[path]}
        self.add(path, kind, **known, **more)

    def data(self) -> list[Link]:
        """Add the files and folders that are described one by one; returns what refers to them."""
        workloads = self.study.config["workloads"]
        for name, says in {
            layout.README: "What this is and how to check it",
            layout.HASHES: "The sha256 of every file, as sha256sum reads it",
            layout.ABOUT: "What the archive says of itself",
            layout.UPLOAD: "Metadata for a data repository's upload",
            layout.CITATION: "How to cite this archive",
            layout.STUDY: "The study's complete config, to run it again",
            f"{self.top}study.json": "The study's complete config, as it was run",
            f"{self.top}report/index.html": "The report",
            f"{self.top}report/report.json": "All numbers and verdicts of the report",
            **{str(self.study.verdict(w)): f"Verdict on parity of {w}" for w in workloads},
            layout.SOURCE: "Workflow and package",
            f"{layout.SOURCE}containers/": "Definitions and locks of images",
            f"{self.top}runs/": "Records of all runs",
            f"{self.top}blocks/": "Which runs were made together, with their records' hashes",
            f"{self.top}deploy/": "What comes after training: records, and models if asked for",
            f"{self.top}report/": "Report, tables and figures",
            f"{self.top}logs/": "Logs, and what each job ran on",
            **{f"{self.top}parity/{w}/": f"Parity of {w}: traces and verdict" for w in workloads},
            **{a.makes[0]: f"Records of {a.name}" for a in self.happened if a.stage == "train"},
        }.items():
            if name in self.folders:
                ours = __version__ if name == layout.SOURCE else None
                self.add(name, "Dataset", name=says, version=ours)
            elif name in self.hashes or name == layout.HASHES:
                self.file(name, says, about=_to("./") if name == layout.README else None)
        for folder, told in layout.manifests(self.hashes, self.read).items():
            more = {}
            if folder.startswith(f"{layout.DATA}datasets/"):
                more = {"license": told["licence"], "isBasedOn": told["origin"],
                        "description": f"{told['origin']}; content {told['content']}"}  # fmt: skip
            self.add(
                f"{folder}/", "Dataset", name=told["name"], identifier=told["identity"], **more
            )
            self.manifests[told["identity"]] = told
        parts = [*map(_to, self.graph)]
        for action in self.happened:
            for name, value in action.states.items():
                says = f"Initial weights of {name.removeprefix('#state-')} (sha256)"
                self.add(name, "PropertyValue", name=says, value=value)
        return parts

    def actions(self, agent: Link | None) -> None:
        """Add all actions, the tools they used, their steps, and the run of the whole workflow."""
        self.tools, self.steps, controls = [], [], []
        for position, (stage, says) in enumerate(STAGES.items()):
            done = [action for action in self.happened if action.stage == stage]
            if not done:
                continue
            # Absolute where the config says where the source is developed.
            tool = self.add(
                f"{self.told.get('repository') or ''}#tool-{stage}", "SoftwareApplication",
                name=f"python -m lockstep {stage}", description=says, softwareVersion=__version__,
                url=f"{layout.SOURCE}workflow/lockstep/__main__.py",
                softwareRequirements=self.packages(done) if stage == "train" else None,
            )  # fmt: skip
            step = self.add(f"#step-{stage}", "HowToStep", name=says, position=str(position),
                            workExample=tool)  # fmt: skip
            made = [self.action(action, tool, agent) for action in done]
            controls.append(self.add(f"#control-{stage}", "ControlAction", instrument=step,
                                     name=f"Snakemake: {says.lower()}", object=made))  # fmt: skip
            self.tools.append(tool)
            self.steps.append(step)
        began, ended = span(self.happened)
        results = ("report/index.html", "report/report.json", "runs/")
        held = [_to(self.top + name) for name in results if self.top + name in self.graph]
        whole = self.add(
            "#study", "CreateAction", name=f"Study {self.study.name}", instrument=_to(WORKFLOW),
            description="All stages of the study, as Snakemake ran them", agent=agent,
            startTime=began, endTime=ended, object=_to(layout.STUDY),
            result=held or [_to(f"{self.top}study.json")],
        )  # fmt: skip
        engine = self.add(
            SNAKEMAKE, "SoftwareApplication", name="Snakemake", url=SNAKEMAKE,
            softwareVersion=version(self.happened, "snakemake") or "not recorded",
        )  # fmt: skip
        if controls:
            self.add("#organize", "OrganizeAction", name="Snakemake runs the study", result=whole,
                     instrument=engine, object=controls)  # fmt: skip

    def packages(self, done: list[Action]) -> list[Link]:
        """Add the frameworks that runs were made with."""
        versions = {pair for action in done for pair in action.packages.items()}
        named = [(*FRAMEWORKS[package], version) for package, version in sorted(versions)]
        return [self.add(f"{url}#{version}", "SoftwareApplication", name=name, url=url,
                         softwareVersion=version) for name, url, version in named]  # fmt: skip

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
        told = self.manifests.get(identity)
        if told is None:
            return None
        return self.add(
            f"#image-{told['name']}-{identity[:12]}", "ContainerImage", tag=identity,
            additionalType=_to(f"{RUN_TERMS}#SIFImage"), sha256=told["sif"]["sha256"],
            registry="none: built from the definitions and locks in this archive",
            name=f"Image {told['name']}",
        )  # fmt: skip

    def workflow(self) -> None:
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
            WORKFLOW, "Lockstep", WORKFLOW_KINDS, license=self.licence("Apache-2.0"),
            version=self.about["source"]["commit"] or __version__,
            url=self.told.get("repository") or SNAKEMAKE,
            conformsTo=self.add(BIOSCHEMAS, "CreativeWork", name="ComputationalWorkflow",
                                version="1.0-RELEASE"),
            programmingLanguage=self.add(
                LANGUAGE, "ComputerLanguage", name="Snakemake", identifier=SNAKEMAKE,
                url=SNAKEMAKE, version=version(self.happened, "snakemake")),
            input=parameters[:1], output=parameters[1:], hasPart=self.tools, step=self.steps,
        )  # fmt: skip

    def person(self, author: Mapping[str, Any]) -> Link:
        """Add an author and, if it is stated, the affiliation."""
        orcid, place = author.get("orcid"), author.get("affiliation")
        identifier = f"https://orcid.org/{orcid}" if orcid else f"#person-{quote(author['name'])}"
        affiliation = self.organization(place) if place else None
        return self.add(identifier, "Person", name=author["name"], affiliation=affiliation)

    def organization(self, told: Mapping[str, Any]) -> Link:
        """Add an organization."""
        identifier = f"#organization-{quote(told['name'])}"
        return self.add(identifier, "Organization", name=told["name"], url=told.get("url"))

    def licence(self, licence: str | None) -> Link:
        """Add a licence."""
        if licence is None:
            says = description.NO_LICENCE
            return self.add("#no-licence", "CreativeWork", name=says, description=says)
        address = licence if "://" in licence else f"https://spdx.org/licenses/{licence}"
        return self.add(address, "CreativeWork", name=licence, description=f"See {address}")

    def root(self, authors: list[Link], parts: list[Link]) -> None:
        """Add the archive itself and the description's own entity."""
        told = self.told
        places = [a["affiliation"] for a in told.get("authors") or [] if a.get("affiliation")]
        publisher = told.get("publisher") or (places[0] if places else None)
        funders, grants = [], []
        for funding in told.get("funding") or []:
            funder = self.organization(funding)
            if funding.get("grant"):
                grants.append(self.add(f"#grant-{quote(funding['grant'])}", "Grant",
                                       name=funding["grant"], funder=funder))  # fmt: skip
            else:
                funders.append(funder)
        state = description.state(self.study, self.about["missing"], self.read)
        self.add(
            "./", "Dataset", name=description.title(self.study),
            description=f"{description.summary(self.study)} {state}",
            keywords=description.keywords(self.study), datePublished=span(self.happened)[1][:10],
            conformsTo=[self.add(identifier, "CreativeWork", name=name, version=version)
                        for identifier, (name, version) in PROFILES.items()],
            mainEntity=_to(WORKFLOW), author=authors, license=self.licence(told.get("licence")),
            publisher=self.organization(publisher) if publisher else None,
            citation=told.get("citation"), version=told.get("version"),
            identifier=f"https://doi.org/{told['doi']}" if told.get("doi") else None,
            funder=funders, funding=grants, hasPart=[*parts, _to(WORKFLOW)],
            mentions=[_to(i) for i, e in self.graph.items() if e["@type"] == "CreateAction"],
        )  # fmt: skip
        conforms = [_to("https://w3id.org/ro/crate/1.1"), _to(list(PROFILES)[-1])]
        self.add(layout.CRATE, "CreativeWork", about=_to("./"), conformsTo=conforms)
