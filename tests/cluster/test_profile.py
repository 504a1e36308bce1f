"""What the site's profile says of a rule's jobs, and what the doctor makes of it."""

from pathlib import Path

import pytest

from lockstep.cluster import doctor, examine, profile
from lockstep.cluster.request import Site
from lockstep.errors import UserError
from tests.conftest import ROOT

LISTED = {
    "default-resources": ["slurm_partition=all", "runtime=60"],
    "set-resources": ["train:slurm_partition=gpu", "report:slurm_partition=cpu"],
}
MAPPED = {
    "default-resources": {"slurm_partition": "all", "runtime": 60},
    "set-resources": {
        "train": {"slurm_partition": "gpu"},
        "report": {"slurm_partition": "cpu"},
    },
}


@pytest.mark.parametrize("given", [LISTED, MAPPED])
def test_a_rule_has_its_own_resources_over_those_of_all(given: dict) -> None:
    for rule, partition in (("train", "gpu"), ("report", "cpu"), ("trace", "all")):
        site = Site.of(profile.resources(given, rule))
        assert (site.partition, site.minutes) == (partition, 60)


def test_the_profile_here_is_read() -> None:
    assert Site.of(profile.resources(profile.read(), "train")).gpus_as == "gres=gpu"
    assert Site.of(profile.resources({}, "train")) == Site()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"default-resources": ["runtim=60"]}, "did you mean 'runtime'"),
        ({"set-resources": ["preprocess:runtim=60"]}, "did you mean 'runtime'"),
        ({"set-resources": {"report": {"slurm_partitio": "cpu"}}}, "'slurm_partition'"),
        ({"set-resources": ["trian:runtime=60"]}, "the rule 'trian'; did you mean 'train'"),
    ],
)
def test_a_slip_in_the_profile_is_refused(given: dict, says: str) -> None:
    profile.check(LISTED)
    profile.check(MAPPED)
    profile.check(profile.read())
    with pytest.raises(UserError, match=says):
        profile.check(given)


def test_a_slip_of_yaml_in_the_profile_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text("executor: slurm\ndefault-resources:\n  - runtime=60\n - mem_mb=1\n")
    with pytest.raises(UserError, match=r"profile.yaml: line 4, column 2: not valid YAML"):
        profile.read(path)


def test_a_wrong_value_is_told_with_its_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "profiles" / "slurm" / "profile.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("executor: slurm\ndefault-resources:\n  # - qos=normal\n  - runtime=60\n")
    for name, line in (("runtime", ":4"), ("qos", ":3"), ("executor", ":1"), ("mem_mb", "")):
        assert profile.where(name, path) == f"profiles/slurm/profile.yaml{line}"
    with pytest.raises(UserError, match=r"^profiles/slurm/profile.yaml:\d+: runtime is '1-0' "):
        profile.check({"default-resources": ["runtime=1-0"]})


@pytest.mark.parametrize(
    ("config", "command", "found", "fails"),
    [
        ("MinJobAge = 300 sec", "squeue", "squeue shows them for 300 s", False),
        ("MinJobAge = 30 sec", "squeue", "squeue shows them for 30 s", True),
        ("MinJobAge = 0 sec", "squeue", "for good (MinJobAge 0)", False),
        (
            "MinJobAge = 60 sec\nAccountingStorageType = accounting_storage/slurmdbd",
            "sacct",
            "sacct asks the database",
            False,
        ),
        ("MinJobAge = 300 sec\nAccountingStorageType = (null)", "sacct", "not there", True),
    ],
)
def test_how_a_job_ended_can_be_asked_in_one_of_two_ways(
    config: str, command: str, found: str, fails: bool
) -> None:
    finding, _ = examine.status_of_jobs(config, command)
    assert found in finding.found
    assert finding.fails == fails


@pytest.mark.parametrize(
    ("config", "partitions", "told"),
    [
        ("PreemptMode = REQUEUE", "PartitionName=a PreemptMode=REQUEUE", None),
        ("PreemptMode = OFF", "PartitionName=a PreemptMode=OFF", None),
        ("PreemptMode = CANCEL", "PartitionName=a", "the cluster has PreemptMode CANCEL"),
        ("PreemptMode = OFF", "PartitionName=b PreemptMode=CANCEL", "partition b has PreemptMode"),
        ("PreemptMode = GANG,SUSPEND", "", "the cluster has PreemptMode GANG,SUSPEND"),
    ],
)
def test_jobs_that_nobody_would_start_again_are_warned_of(
    config: str, partitions: str, told: str | None
) -> None:
    finding = examine.preemption(config, partitions)
    assert not finding.fails
    assert bool(finding.remedy) == bool(told)
    assert (told or "requeues") in finding.found


def test_a_study_without_images_is_told_nothing_of_apptainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    path = tmp_path / "images.yaml"
    path.write_text("images: {enabled: true}\n")
    demo = ROOT / "demo" / "config.yaml"
    assert doctor.main(demo, path) == 1
    assert "FAIL  apptainer: not installed" in capsys.readouterr().out
    assert doctor.main(demo) == 0
    assert "apptainer" not in capsys.readouterr().out
