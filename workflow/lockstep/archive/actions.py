"""What was done, as a Provenance Run Crate says it: actions, the tools they used, their steps."""

import json
from collections.abc import Mapping

from rocrate.model.entity import Entity

from lockstep import __version__
from lockstep.archive import deeds, layout, people, statements
from lockstep.archive.making import Making
from lockstep.archive.story import STAGES, Deed


def add(making: Making, workflow: Entity) -> None:
    """Add every deed of the study, the tools and steps of its stages, and the workflow's run."""
    done: dict[str, list[Deed]] = {}
    for deed in making.story.deeds:
        done.setdefault(deed.stage, []).append(deed)
    agent = {"@id": people.identifier(making.about.authors[0])}
    tools, steps, controls, mentions = [], [], [], []
    for position, (stage, says) in enumerate(STAGES.items()):
        if stage not in done:
            continue
        tool = making.add(
            f"#tool-{stage}",
            "SoftwareApplication",
            **deeds.tool(stage, __version__),
        )
        step = making.add(
            f"#step-{stage}",
            "HowToStep",
            name=says,
            position=str(position),
            workExample=tool,
        )
        actions = [_action(making, deed, agent) for deed in done[stage]]
        tools.append(tool)
        steps.append(step)
        mentions += actions
        controls.append(
            making.add(
                f"#control-{stage}",
                "ControlAction",
                name=f"Snakemake sees to it: {says.lower()}",
                instrument=step,
                object=actions,
            )
        )
    workflow["hasPart"] = tools
    workflow["step"] = steps
    whole = making.add(
        "#study",
        "CreateAction",
        name=f"Study {making.study.name}",
        description="All stages of the study, as Snakemake ran them",
        instrument=workflow,
        agent=agent,
        endTime=making.story.ended,
        object=[{"@id": layout.STUDY}],
        result=_results(making),
    )
    engine = making.add(
        "#engine",
        "SoftwareApplication",
        **deeds.engine(making.story),
    )
    if controls:
        making.add(
            "#organize",
            "OrganizeAction",
            name="Snakemake runs the study",
            instrument=engine,
            result=whole,
            object=controls,
        )
    making.crate.root_dataset["mentions"] = [whole, *mentions]


def _action(making: Making, deed: Deed, agent: Mapping[str, str]) -> Entity:
    for name in deed.makes:
        if name.endswith("/") and making.crate.get(name) is None:
            making.folder(name, name=f"Records of {deed.name}")
    there = [n for n in (*deed.uses, *deed.makes) if making.crate.get(n) is not None]
    fields = deeds.action(deed, agent, there)
    if deed.image:
        fields["containerImage"] = _image(making, deed.image)
    return making.add(f"#{deed.stage}-{deed.name}", "CreateAction", **fields)


def _image(making: Making, name: str) -> Entity:
    image = making.study.images[name]
    facts = json.loads(image.manifest.read_bytes())
    return making.add(
        f"#image-{name}",
        "ContainerImage",
        additionalType={"@id": "https://w3id.org/ro/terms/workflow-run#SIFImage"},
        registry="none: built from the definitions and locks in this archive",
        **statements.image(facts, image.folder.name),
    )


def _results(making: Making) -> list[dict[str, str]]:
    top = f"{layout.RESULTS}{making.study.name}/"
    wanted = (f"{top}report/index.html", f"{top}report/report.json", f"{top}runs/")
    found = [{"@id": name} for name in wanted if making.crate.get(name) is not None]
    return found or [{"@id": f"{top}study.json"}]
