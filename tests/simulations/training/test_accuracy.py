"""Accuracy: the share of correctly classified images."""

import torch

from actrelax import build
from actrelax.simulations.data import Split
from actrelax.simulations.training.accuracy import accuracy
from actrelax.simulations.training.batches import Preprocessing


def test_accuracy():
    network = build("digits-mlp")
    x = torch.rand(2500, 64)
    with torch.no_grad():
        labels = network(x).argmax(1)
    labels[:500] = (labels[:500] + 1) % 10
    assert accuracy(network, Split(x, labels), Preprocessing(torch.float32)) == 0.8


def test_a_function_without_preprocessing():
    x, labels = torch.eye(5), torch.tensor([0, 1, 2, 0, 0])
    assert accuracy(lambda images: images, Split(x, labels)) == 0.6
