"""Modules of tests/modules.py that write into tensors after others have read them."""

import torch
from torch import nn


class WrittenDrive(nn.Module):
    """Writes into drives themselves: with a sequence per sample, `F.linear` returns a view."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(6, 5), nn.Linear(5, 4, bias=False), nn.Linear(4, 3)

    def forward(self, x):
        x = self.one(x)
        x += 0.1
        x.tanh_()
        x = self.two(x)
        x[:, 0] = 0.5
        x[:, 1:] *= 2
        return self.head(x.sigmoid_().sum(1))


class Overwritten(nn.Module):
    """Overwrites populations after weights and copies have read them.

    Autograd allows it where no backward pass needs the old values: a relaxation starts from them all the same.
    """

    def __init__(self):
        super().__init__()
        self.stem, self.hidden, self.frozen, self.head = (nn.Linear(*s) for s in ((6, 5), (5, 5), (5, 5), (5, 3)))
        self.frozen.requires_grad_(False)

    def forward(self, x):
        x = torch.nn.functional.softplus(self.stem(x)) - 1
        x.add_(torch.tanh(self.hidden(x.clone())))  # x is copied twice before it changes
        y = torch.tanh(self.frozen(x))  # a weight that is not learned saves nothing for its gradient
        x.mul_(0.5)
        return self.head(x - y)


class Items(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.hidden, self.head = (nn.Linear(*s) for s in ((3, 4), (3, 3), (7, 5), (5, 3)))

    def forward(self, x):
        joined = torch.zeros(len(x), 7)
        joined[:, :4] = torch.tanh(self.left(x[:, :3]))
        joined[:, 4:] = torch.tanh(self.right(x[:, 3:]))
        joined[:, 2] += 1
        return self.head(torch.relu(self.hidden(joined)))
