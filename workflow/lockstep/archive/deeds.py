"""What the description says of what was done, by which version, and when: written by `actions` and
`crate`, and compared here, which needs not the library that writes it.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lockstep.archive import layout, people, story
from lockstep.archive.story import Deed, Story
from lockstep.study import Study

WORKFLOW = f"{layout.SOURCE}Snakefile"
Said = tuple[str, dict[str, Any]]
"""What is said, behind the identifier of what it is said of."""


def workflow(commit: str | None, version: str) -> dict[str, Any]:
    """Return what is said of the workflow.

    Args:
        commit: of the source, if it is known.
        version: of Lockstep.
    """
    return {"name": "Lockstep", "version": commit or version, "url": WORKFLOW}


def tool(stage: str, version: str) -> dict[str, Any]:
    """Return what is said of the command of a stage."""
    return {
        "name": f"python -m lockstep {stage}",
        "description": story.STAGES[stage],
        "softwareVersion": version,
        "url": f"{layout.SOURCE}workflow/lockstep/__main__.py",
    }


def engine(told: Story) -> dict[str, Any]:
    """Return what is said of what ran the workflow."""
    return {
        "name": "Snakemake",
        "softwareVersion": told.snakemake or "not recorded",
        "url": "https://snakemake.github.io",
    }


def action(deed: Deed, agent: Mapping[str, str], there: Collection[str]) -> dict[str, Any]:
    """Return what is said of a deed.

    Args:
        agent: who did it.
        there: what of what it used and made the description tells of.
    """
    failed = {"actionStatus": story.FAILED, "error": deed.failure}
    return {
        "name": f"{deed.stage} {deed.name}",
        "description": f"{story.STAGES[deed.stage]}: {deed.name}",
        "instrument": {"@id": f"#tool-{deed.stage}"},
        "agent": agent,
        "endTime": deed.ended,
        "object": [{"@id": name} for name in deed.uses if name in there],
        "result": [{"@id": name} for name in deed.makes if name in there],
        **(failed if deed.failure else {"actionStatus": story.COMPLETED}),
    }


# Compared -------------------------------------------------------------------------------------


def expected(
    study: Study, told: Story, manifest: Mapping[str, Any], there: Collection[str]
) -> Iterator[Said]:
    """Yield what must be said.

    Args:
        told: what happened, without images: these are described by their own manifests.
        there: what the description tells of.
    """
    version = manifest["lockstep"]
    agent = {"@id": people.identifier(people.about(study).authors[0])}
    yield WORKFLOW, workflow(manifest["source"]["commit"], version)
    yield layout.SOURCE, {"version": version}
    for stage in {deed.stage for deed in told.deeds}:
        yield f"#tool-{stage}", tool(stage, version)
    for deed in told.deeds:
        said = action(deed, agent, there)
        if not deed.recorded:  # when its file was written is not what it is now
            del said["endTime"]
        yield f"#{deed.stage}-{deed.name}", said
    yield "#study", {"agent": agent, "instrument": {"@id": WORKFLOW}}
    yield "#engine", engine(told)
    if _all_known(study, told, manifest):
        yield "#study", {"endTime": told.ended}


def _all_known(study: Study, told: Story, manifest: Mapping[str, Any]) -> bool:
    """Whether what is in an archive tells of all that was done, and when."""
    whole = manifest["complete"] and manifest["include"].get("traces", False)
    recorded = all(deed.recorded for deed in told.deeds)
    return bool(whole and recorded and not study.config["images"]["enabled"])


def dates(told: Story, entities: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the date of publication is not that of the last thing that was done.

    Args:
        entities: of the description, by identifier.
    """
    published, ended = entities["./"]["datePublished"], entities["#study"]["endTime"]
    if published != ended[:10]:
        yield f"./: was published on {published}, but the study ended on {ended[:10]}"
    latest = max((deed.ended for deed in told.deeds if deed.recorded), default="")
    if ended < latest:
        yield f"#study: ended {ended}, but the last recorded job {latest}"
