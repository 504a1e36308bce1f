"""The area under the curve is exact: equal to scikit-learn's, of logits, with equal scores."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lockstep import auc

COUNT = 20_000


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).normal(size=COUNT).astype(np.float32)


@pytest.fixture
def clicked(scores: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).normal(size=COUNT) < scores - 1


def test_it_is_scikit_learns(scores, clicked) -> None:
    for found in (scores, np.round(scores, 1), np.zeros_like(scores), scores.astype(np.float64)):
        expected = roc_auc_score(clicked, found)
        assert auc.area(found, clicked) == pytest.approx(expected, abs=1e-14)


def test_equal_scores_count_half() -> None:
    assert auc.area(np.array([0.0, -0.0, 1.0, 1.0]), np.array([0, 1, 0, 1])) == 0.5
    assert auc.area(np.array([2.0, 1.0]), np.array([0, 1])) == 0.0
    assert auc.area(np.array([1.0, 2.0]), np.array([0, 1])) == 1.0


def test_of_examples_of_one_kind_every_order_is_as_good() -> None:
    assert auc.area(np.arange(3.0), np.ones(3)) == 0.5
    assert auc.area(np.empty(0), np.empty(0)) == 0.5


def test_histograms_add_up_in_any_order_and_are_nearly_exact(scores, clicked) -> None:
    whole = auc.histograms(scores, clicked)
    parts = [auc.histograms(scores[part], clicked[part]) for part in (np.s_[::3], np.s_[1::3])]
    parts.append(auc.histograms(scores[2::3], clicked[2::3]))
    for kind, counts in whole.items():
        np.testing.assert_array_equal(sum(part[kind] for part in parts), counts)
    found = auc.area_of_counts(whole["negatives"], whole["positives"])
    assert found == pytest.approx(auc.area(scores, clicked), abs=1e-6)


def test_bins_are_in_the_order_of_the_logits() -> None:
    logits = np.array([-np.inf, -40, -1, -1e-30, -0.0, 0.0, 1e-30, 1, 40, np.inf], np.float32)
    bins = [int(np.argmax(auc.histograms(logits[k : k + 1], np.ones(1))["positives"]))
            for k in range(len(logits))]  # fmt: skip
    assert bins == sorted(bins)
    assert bins[4] == bins[5], "both zeros are equal"
    assert len(set(bins)) == len(logits) - 1


def test_probabilities_would_lose_the_order_of_confident_logits(scores, clicked) -> None:
    logits = scores * 12
    probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
    assert abs(auc.area(probabilities, clicked) - auc.area(logits, clicked)) > 1e-6


def test_entropy_is_the_loss_of_always_saying_the_share_of_clicks(clicked) -> None:
    share = clicked.mean()
    loss = -(np.log(share) * clicked + np.log(1 - share) * ~clicked).mean()
    assert auc.entropy(float(clicked.sum()), COUNT) == pytest.approx(loss, rel=1e-12)
    assert auc.entropy(0, 5) == 1.0
