"""PyTorch's quickstart program, which learns by AR after changing two lines."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import actrelax  # the first changed line

device = "cpu"


class NeuralNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(28 * 28, 512),
            nn.ReLU(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Linear(512, 10),
        )

    def forward(self, x):
        x = self.flatten(x)
        logits = self.linear_relu_stack(x)
        return logits  # noqa: RET504


def train(dataloader, model, loss_fn, optimizer):
    model.train()
    for X, y in dataloader:
        X, y = X.to(device), y.to(device)
        pred = model(X)
        loss = loss_fn(pred, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test(dataloader, model, loss_fn):
    size = len(dataloader.dataset)
    num_batches = len(dataloader)
    model.eval()
    test_loss, correct = 0, 0
    with torch.no_grad():
        for X, y in dataloader:
            X, y = X.to(device), y.to(device)
            pred = model(X)
            test_loss += loss_fn(pred, y).item()
            correct += (pred.argmax(1) == y).type(torch.float).sum().item()
    return correct / size, test_loss / num_batches


test.__test__ = False


@pytest.fixture
def dataloaders():
    data = actrelax.digits()
    parts = []
    for images, labels in (data.train, data.test):
        pixels = F.interpolate(images.float().view(-1, 1, 8, 8), size=(28, 28), mode="bilinear")
        parts.append(DataLoader(TensorDataset(pixels, labels), batch_size=64))
    return parts


def test_two_changed_lines(dataloaders):
    torch.manual_seed(0)
    train_dataloader, test_dataloader = dataloaders
    model = NeuralNetwork().float().to(device)
    model = actrelax.ActivationRelaxation(model, input_shape=(1, 28, 28))  # the second
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, _ = test(test_dataloader, model, loss_fn)
    for _ in range(12):
        train(train_dataloader, model, loss_fn, optimizer)
    accuracy, loss = test(test_dataloader, model, loss_fn)
    assert before < 0.4
    assert accuracy > 0.85
    assert loss < 0.6
