"""MovieLens' layouts are found by their files; mistakes are told by file and line."""

from pathlib import Path

import numpy as np
import pytest

from lockstep.datasets.sources import movielens
from lockstep.errors import UserError

RATINGS = [(7, 50, 4, 86400), (3, 20, 3, 43200), (7, 20, 2, 90000), (9, 50, 5, 43200)]
USERS = {3: ("F", 25, "artist"), 7: ("M", 9, "writer"), 9: ("M", 110, "artist"), 11: ("F", 1, "x")}
LAYOUTS = {
    "100k": ("u.data", "u.user"),
    "1m": ("ratings.dat", "users.dat"),
    "20m": ("ratings.csv", None),
    "recbole": ("ml-100k.inter", "ml-100k.user"),
}
OPTIONS = {"test_part": 2}


def written(path: Path, layout: str, ratings: list = RATINGS, users: dict = USERS) -> Path:
    """A folder in the layout of some release."""
    name, of_users = LAYOUTS[layout]
    separator = {"100k": "\t", "1m": "::", "20m": ",", "recbole": "\t"}[layout]
    header = {"20m": "userId,movieId,rating,timestamp\n", "recbole": "user_id:token\t…\n"}
    rows = "".join(separator.join(map(str, row)) + "\n" for row in ratings)
    (path / name).write_text(header.get(layout, "") + rows, encoding="utf-8")
    if of_users:
        between, order = {
            "100k": ("|", (1, 0, 2)), "1m": ("::", (0, 1, 2)), "recbole": ("\t", (1, 0, 2))
        }[layout]  # fmt: skip
        lines = [[user, *[told[k] for k in order], "zip\xe9"] for user, told in users.items()]
        text = "".join(between.join(map(str, fields)) + "\n" for fields in lines)
        (path / of_users).write_bytes((header.get(layout, "") + text).encode("latin-1", "replace"))
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_rows(tmp_path: Path, layout: str) -> None:
    raw = written(tmp_path, layout)
    splits = dict(movielens.read(raw, OPTIONS))
    ids = np.concatenate([splits[split]["ids"] for split in ("train", "test")])
    # By time, equal times in the order of the file; ids in sorted order, from 1 on.
    assert ids[:, :2].tolist() == [[1, 1], [3, 2], [2, 2], [2, 1]]
    clicks = np.concatenate([splits[split]["click"] for split in ("train", "test")])
    assert clicks.tolist() == [0, 1, 1, 0]
    dense = np.concatenate([splits[split]["dense"] for split in ("train", "test")])
    np.testing.assert_allclose(dense[:, 0], [0.5, 0.5, 0, 3600 / 86400], rtol=1e-6)
    facts, _ = movielens.describe(raw, OPTIONS)
    if layout == "20m":
        assert facts["rows"] == [4, 3]
    else:
        # Gender, age (sorted as a number) and occupation of users 3, 9, 7, 7.
        assert ids[:, 2:].tolist() == [[1, 3, 1], [2, 4, 1], [2, 2, 2], [2, 2, 2]]
        assert facts["rows"] == [4, 3, 3, 5, 3]


def test_half_stars_and_gaps_are_read(tmp_path: Path) -> None:
    ratings = [(1, 10**6, 0.5, 1), (1, 5, 4.5, 2), (2, 5, 4.0, 3), (2, 9, 3.5, 4)]
    splits = dict(movielens.read(written(tmp_path, "20m", ratings), OPTIONS))
    assert splits["train"]["ids"].tolist() == [[1, 3], [1, 1]]
    assert splits["train"]["click"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("layout", "ratings", "expected"),
    [
        ("100k", [(7, 50, 4)], "u.data, line 1: has 3 fields, not 4"),
        ("100k", [*RATINGS, (7, "x", 4, 1)], "u.data, line 5: '7\\tx\\t4\\t1' are no four numbers"),
        ("20m", [(1, 2, 6, 1)], "ratings.csv, line 2: the rating is 6; it must be from 0.5 to 5"),
        ("20m", [(1, 2, 3.3, 1)], "line 2: the rating is 3.3"),
        ("20m", [(1, 2, "nan", 1)], "line 2: the rating is nan"),
        ("1m", [*RATINGS, (8, 20, 3, 5)], "has ratings of user 8, who is not among the users"),
        ("20m", [], "ratings.csv: holds no ratings"),
        ("20m", RATINGS[:1], "all 1 labels of train are 1"),
    ],
)
def test_a_wrong_rating_is_told(tmp_path: Path, layout: str, ratings: list, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        list(movielens.read(written(tmp_path, layout, ratings), OPTIONS))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ratings_without_users_and_folders_without_ratings_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no ratings; MovieLens has them in one of u.data"):
        list(movielens.read(tmp_path, OPTIONS))
    (written(tmp_path, "100k") / "u.user").unlink()
    with pytest.raises(UserError, match=r"has ratings without users; put u.user beside them"):
        list(movielens.read(tmp_path, OPTIONS))
    with pytest.raises(UserError, match="no such folder"):
        list(movielens.read(tmp_path / "none", OPTIONS))


@pytest.mark.parametrize("options", [{"liked": 0}, {"liked": "4"}, {"test_part": 0}, {"x": 1}])
def test_options_are_checked_before_anything_is_read(options: dict) -> None:
    with pytest.raises(UserError, match=f"options.{next(iter(options))} is"):
        movielens.check(options)
