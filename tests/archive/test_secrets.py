"""What must not leave the machine: values, tokens and paths, in texts of any size."""

import io
import json
from pathlib import Path

import pytest

from lockstep.archive import collect, secret_rules, source
from lockstep.archive.secret_rules import Rules
from lockstep.errors import UserError
from lockstep.study import Study, config
from tests.conftest import DIGITS, ROOT


def rules(environment: dict[str, str]) -> Rules:
    """The rules of a study whose results are in Ada's folder."""
    study = config.complete(DIGITS | {"paths": {"results": "/scratch/ada/out", "data": "data"}})
    study["datasets"]["digits"]["raw"] = "/cluster/jürgen/raw"
    return secret_rules.here(Study(study), Path("/opt/lockstep"), environment)


LINES = 'first-of"them\nsecond-of-them'
VALUES: list[tuple[dict[str, str], str, str]] = [
    ({"HF_TOKEN": "abcd-1234"}, "it is abcd-1234", "it is [$HF_TOKEN]"),
    ({"BASIC_AUTH": "ada:swordfish"}, "ada:swordfish", "[$BASIC_AUTH]"),
    *(({name: "hunter2abc!"}, "it is hunter2abc!", f"it is [${name}]")
      for name in ("DB_PASS", "MYSQL_PWD", "SSHPASS", "REGISTRY_PAT", "A_PASSPHRASE")),
    # Of two, the longest; line by line, and in JSON.
    ({"A_TOKEN": "abcd1234", "B_TOKEN": "abcd1234-and-more"}, "abcd1234-and-more", "[$B_TOKEN]"),
    ({"DEPLOY_KEY": LINES}, "x\nsecond-of-them\n", "x\n[$DEPLOY_KEY]\n"),
    ({"DEPLOY_KEY": LINES}, json.dumps({"said": LINES}), '{"said": "[$DEPLOY_KEY]"}'),
    # No secrets: where programs are, a word, an author.
    ({"PATH": "bin:sbin:x"}, *("it is bin:sbin:x",) * 2),
    ({"PWD": "/opt/things", "OLDPWD": "/opt/things"}, *("it is /opt/things",) * 2),
    ({"X_PAT": "reader", "HF_TOKEN": "finished"}, *("the reader has finished",) * 2),
    ({"GIT_AUTHOR_NAME": "Ada Example"}, *("by Ada Example",) * 2),
]  # fmt: skip
"""Of variables whose names say that they hold secrets."""
TOKENS = [
    ("https:" + "//glp-token@index.a.org/", "https:" + "//[removed]@index.a.org/"),
    ("ssh://git@example.org/x", "ssh://git@example.org/x"),
    ("docker://debian:13@sha256:0123", "docker://debian:13@sha256:0123"),
    ("Authorization: Bearer " + "a1" * 10, "Authorization: Bearer [removed]"),
    ("ghp_" + "a1B2" * 9, "[removed]"),
    ("https:" + "//:tok12345678@h/x", "https:" + "//[removed]@h/x"),
    ("https:" + "//u:p@ss:w0rd@h", "https:" + "//[removed]@h"),
    ("https://hooks.slack" + ".com/services/" + "T0/" * 8, "https://[removed]"),
    ("machine h login me password" + " hunter2", "machine h login me password" + " [removed]"),
    ('{"username":"a","key":"' + "0a" * 16 + '"}', '{"username":"a","key":"[removed]"}'),
    ("AK" + "IA" + "A1B2" * 4, "[removed]"),
    ("SG." + "a1B2" * 5 + "ab." + "a1B2" * 10 + "abc", "[removed]"),
    ("Authorization: Basic YWRhOnN3", "Authorization: Basic [removed]"),
    ('{"Authorization": "token abcdefgh"}', '{"Authorization": "token [removed]"}'),
    ('{"token": "abcdefghij"}', '{"token": "[removed]"}'),
    (r'"{\"api_key\": \"abcdefghij\"}"', r'"{\"api_key\": \"[removed]\"}"'),
    ("pypi-" + "AgEIcHlwaS5vcmc_" * 4, "[removed]"),
    ("sk-" + "a1B2" * 8, "[removed]"),
    ("wandb login " + "0a" * 20, "wandb login [removed]"),
    ("Authorization: 'Basic YWRhOnN3'", "Authorization: 'Basic [removed]'"),
    ("glpat-" + "a1B2" * 5, "[removed]"),
    ("npm_" + "a1B2" * 9, "[removed]"),
    ("key=AIza" + "a1B2" * 8 + "a1B", "key=[removed]"),
    ("train --token hunter2abc99 --seed 1", "train --token [removed] --seed 1"),
    ('["--api-key", "hunter2abc99"]', '["--api-key", "[removed]"]'),
    ("client_secret=abcdefghijklmnop", "client_secret=[removed]"),
    ('password: "hunter2 abc"', 'password: "[removed]"'),
    ("PASSWORD='correct horse'", "PASSWORD='[removed]'"),
    # No secrets: a package, a commit, a hash, counts, what is meant to be filled in.
    ("passwd=1:4.17.4-2", "passwd=1:4.17.4-2"),
    ('{"token": 123456789, "authorization": 1e-10}',) * 2,
    ("commit " + "0a" * 20, "commit " + "0a" * 20),
    ("key " + "0a" * 32, "key " + "0a" * 32),
    ("tokens: 131072000, task-" + "a1B2" * 8, "tokens: 131072000, task-" + "a1B2" * 8),
    ("data:AAAA/AIza" + "a1B2" * 40, "data:AAAA/AIza" + "a1B2" * 40),
    ("name one with --token VALUE or --secret FILENAME",) * 2,
    ("--token --seed 1234567 client_secret: required",) * 2,
    ('{"/etc/passwd": "a file of names"}',) * 2,
    ("password=required token: $HF_TOKEN_1", "password=required token: $HF_TOKEN_1"),
]
"""What secrets are known by, and what only looks like one."""
PATHS = [
    ("/scratch/ada/out/test: full", "$RESULTS/test: full"),
    ("gcc -I/scratch/ada/out -L/scratch/ada/out", "gcc -I$RESULTS -L$RESULTS"),
    (r'{"said": "no\n/scratch/ada/out"}', r'{"said": "no\n$RESULTS"}'),
    ("/scratch/ada/outer and my/scratch/ada/out", "/scratch/ada/outer and my/scratch/ada/out"),
    ("/home/ada/x", "$HOME/x"),
    (json.dumps("/cluster/jürgen/raw/x"), '"$RAW/digits/x"'),
    ("in /usr/bin", "in /usr/bin"),
]
OTHERS = [({}, text, says) for text, says in (*TOKENS, *PATHS)]


@pytest.mark.parametrize(("environment", "text", "says"), VALUES + OTHERS)
def test_secrets_and_paths_are_replaced_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], text: str, says: str
) -> None:
    monkeypatch.chdir("/usr")  # where archiving is started is no rule
    assert rules(environment).clean(text.encode()).decode() == says


KEY = b"-----BEGIN A PRIV" + b"ATE KEY-----\n" + b"MIIE\n" * 40 + b"-----END A PRIVATE KEY-----\n"


@pytest.mark.parametrize("block", [b"", b" BLOCK"])
@pytest.mark.parametrize("chunk", [64, 100, 1 << 20])
def test_what_is_secret_is_never_cut_in_two(
    monkeypatch: pytest.MonkeyPatch, chunk: int, block: bytes
) -> None:
    monkeypatch.setattr(secret_rules, "CHUNK", chunk)
    text = b"".join(b"line %d of /scratch/ada/out\n" % n for n in range(50))
    text += KEY.replace(b" KEY", b" KEY" + block) + b"behind\rwith token abcd-1234, not ended"
    clean = rules({"A_TOKEN": "abcd-1234"}).clean
    parts = list(secret_rules.parts(io.BytesIO(text)))
    assert b"".join(parts) == text
    assert b"".join(map(clean, parts)) == clean(text)
    assert b"MIIE" not in clean(text)


# Of the source --------------------------------------------------------------------------------


def archived_source(root: Path, contents: dict[str, str]) -> dict[str, bytes]:
    """What of these files of a checkout goes into an archive."""
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            (root / name).symlink_to(text.removeprefix("-> "))
        else:
            (root / name).write_text(text)
    found = source.Source(root=root, files=tuple(contents), untracked=(), commit=None, note="")
    here = rules({"HOME": "/root", "A_TOKEN": "abcd-1234"})
    return {item.name: b"".join(item.pieces()) for item in collect._source(found, here)}


def test_the_source_names_no_folder_of_a_person_but_where_its_hash_is_taken(tmp_path: Path) -> None:
    code = "import os  # /home/ada\ntoken = 'a-name-of-1-thing'\n"
    held = archived_source(
        tmp_path,
        {
            "config.yaml": "raw: /home/ada/mnist\n# or /cluster/jürgen/raw, not /root/.cache\n",
            "profiles/mine/config.yaml": "token: hunter2abc  # pragma: allowlist secret\n",
            "profiles/other": "-> /home/ada/profile",
            "workflow/lockstep/a.py": code,
            "containers/install.sh": "rm /root/.cache\npasswd=1:4.17\n",
        },
    )
    assert held == {
        "source/config.yaml": b"raw: $HOME/mnist\n# or $RAW/digits, not /root/.cache\n",
        "source/profiles/mine/config.yaml": b"token: hunter2abc  # pragma: allowlist secret\n",
        "source/profiles/other": b"$HOME/profile",
        "source/workflow/lockstep/a.py": code.encode(),
        "source/containers/install.sh": b"rm /root/.cache\npasswd=1:4.17\n",
    }


GITHUB = "gh" + "p_" + "a1B2" * 9


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("docs/elsewhere", "-> /scratch/docs", "is a link to a place of this machine"),
        ("containers/base.def", "%files /home/ada/x /x", r"this machine \(somebody.s home\)"),
        ("containers/base.def", "a\nhttps:" + "//me:password@a.org", "line 2: looks like"),
        ("workflow/lockstep/a.py", f"\n\nX = '{GITHUB}'", r"a.py, line 3: .*\(GitHub token\)"),
        ("docs/a.md", "call abcd-1234 now", r"line 1: .*the value of \$A_TOKEN"),
        ("profiles/x.yaml", "a: 1\npass" + "word: hunter2abc", "line 2: .*password or token"),
        ("demo/.env", "A=1", "has a name as files of keys"),
        ("demo/key.pem", "x", "has a name as files of keys"),
        ("demo/kaggle.json", "{}", "has a name as files of keys"),
    ],
)
def test_a_secret_in_the_source_stops_with_file_and_line(
    tmp_path: Path, name: str, text: str, says: str
) -> None:
    with pytest.raises(UserError, match=says) as refusal:
        archived_source(tmp_path, {name: text})
    assert GITHUB not in str(refusal.value)


def test_the_repository_itself_holds_no_secret() -> None:
    found = source.find(ROOT)
    assert len(found.files) > 100
    items = collect._source(found, Rules(values=(), paths=()))
    assert sum(1 for item in items for _ in [*item.pieces()][:1]) == len(found.files)
