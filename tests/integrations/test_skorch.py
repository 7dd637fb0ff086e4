"""scikit-learn's interface, through skorch."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from torch import nn

from actrelax import ActivationRelaxation, BackwardOptions, Steps

skorch = pytest.importorskip("skorch")


class Classifier(ActivationRelaxation):
    """Network for the digits, with the options that a search varies."""

    def __init__(self, assumptions="ar", eta=0.1):
        layers = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).float()
        options = BackwardOptions(generator=torch.Generator().manual_seed(0))
        super().__init__(layers, input_shape=(64,), assumptions=assumptions, steps=Steps(100, eta=eta), options=options)


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return skorch.NeuralNetClassifier(
        Classifier, criterion=nn.CrossEntropyLoss, lr=0.2, max_epochs=10, batch_size=64, train_split=None, verbose=0
    )


@pytest.fixture
def digits():
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), labels.astype(np.int64)


def test_fit_and_score(classifier, digits):
    images, labels = digits
    assert classifier.fit(images[:1000], labels[:1000]).score(images[1000:], labels[1000:]) > 0.85


def test_a_search_over_assumptions_and_eta(classifier, digits):
    images, labels = (part[:600] for part in digits)
    grid = {"module__assumptions": ["ar", "random-feedback"], "module__eta": [0.1, 0.002]}
    search = GridSearchCV(classifier, grid, cv=2, scoring="accuracy", error_score="raise").fit(images, labels)
    score = {
        (params["module__assumptions"], params["module__eta"]): mean
        for params, mean in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True)
    }
    assert score["ar", 0.1] > score["ar", 0.002] + 0.1  # after 100 such small steps much of the initial state remains
    assert score["ar", 0.1] != score["random-feedback", 0.1]
    assert search.best_params_["module__eta"] == 0.1
