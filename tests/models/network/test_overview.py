"""A network's repr."""

import torch
from torch import nn

from actrelax.models.network import Network, Projection, build


def test_printed_as_a_table():
    network = build("cnn")
    network.add_feedback("learned-feedback-dense", torch.Generator())
    assert (
        repr(network)
        == """\
Network: 5 populations besides the input, 5 projections, 418,300 parameters
  population  shape         units  activation
  input       (3, 32, 32)   3,072  -
  conv1       (6, 14, 14)   1,176  tanh
  conv2       (16, 10, 10)  1,600  tanh
  hidden1     (120,)          120  tanh
  hidden2     (120,)          120  tanh
  output      (10,)            10  identity
  projection        kind   pipeline                       parameters  feedback
  input->conv1      conv   Conv2d(3, 6, 5), MaxPool2d(2)         450  -
  conv1->conv2      conv   Conv2d(6, 16, 5)                    2,400  transpose
  conv2->hidden1    dense  Flatten, Linear(1600, 120)        192,120  learned psi
  hidden1->hidden2  dense  Linear(120, 120)                   14,520  learned psi
  hidden2->output   dense  Linear(120, 10)                     1,210  learned psi"""
    )


def test_cycles_are_named():
    projections = [
        Projection("input", "a", nn.Linear(4, 3)),
        Projection("a", "a", nn.Linear(3, 3)),
        Projection("a", "b"),
    ]
    network = Network((4,), {"a": "tanh", "b": "identity"}, projections)
    assert repr(network).splitlines()[-1] == "  cycle: a"
    assert "cycle" not in repr(Network((4,), {"a": "tanh", "b": "identity"}, [projections[0], projections[2]]))
