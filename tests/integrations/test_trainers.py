"""Lightning and Accelerate train an `ActivationRelaxation` like any other module."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import actrelax
from actrelax import ActivationRelaxation, Steps

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def batches():
    images, labels = actrelax.digits().train
    return DataLoader(TensorDataset(images.flatten(1).float(), labels), batch_size=64, shuffle=True)


@pytest.fixture
def model():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).float()
    return ActivationRelaxation(layers, input_shape=(64,), steps=Steps(100, eta=0.1))


def accuracy(model):
    images, labels = actrelax.digits().test
    with torch.no_grad():
        return float((model(images.flatten(1).float()).argmax(1) == labels).float().mean())


def test_accelerate(model, batches):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.2)
    prepared, optimiser, batches = accelerator.prepare(model, optimiser, batches)
    model.loss_scale = 1 / 2
    for _ in range(10):
        for images, labels in batches:
            with accelerator.accumulate(prepared):
                accelerator.backward(F.cross_entropy(prepared(images), labels))
                optimiser.step()
                optimiser.zero_grad()
    assert accuracy(model) > 0.8


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning(model, batches, precision):
    lightning = pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, index):
            images, labels = batch
            return F.cross_entropy(self.model(images), labels)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.2)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=8, accelerator="cpu", precision=precision, **quiet)
    trainer.fit(Classifier(), batches)
    assert accuracy(model) > 0.8
