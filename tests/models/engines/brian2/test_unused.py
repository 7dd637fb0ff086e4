"""Refusals and errors leave no Brian2 object that warns when it is deleted. Oracle: Brian2's log."""

import gc
import importlib
from contextlib import contextmanager

import brian2 as b2
import pytest
import torch
from brian2.utils.logger import catch_logs
from networks import mlp_case
from torch import nn

from actrelax import ActrelaxError, Network
from actrelax.brian2 import Learner, adjoint, build
from actrelax.models.engines import solve
from actrelax.models.engines.brian2 import equations, generating
from actrelax.models.engines.brian2.unused import forgotten_on_error, own
from actrelax.models.problem import RelaxationProblem


@contextmanager
def deleted():
    """Yield a list that has, after the block, the warnings of objects deleted in it."""
    found = []
    gc.freeze()  # what earlier tests left behind is not collected here; gc.unfreeze would undo that of conftest.py
    with catch_logs() as log:
        yield found
        gc.collect()
        found += [message for _, name, message in log if name.endswith("unused_brian_object")]


def group():
    with generating("numpy"):
        return b2.NeuronGroup(2, "x : 1")


def fail(*_, **__):
    raise ZeroDivisionError


def test_objects_of_a_block_are_forgotten_if_it_fails():
    with deleted() as found:
        group()
    assert len(found) == 1  # Brian2 does warn
    before, kept = group(), []
    with deleted() as found:
        with pytest.raises(ZeroDivisionError), forgotten_on_error():
            fail(kept.append(group()))
        assert (before._network, kept.pop()._network) == (None, "none")
    assert not found


def test_a_network_may_be_deleted_unused():
    with deleted() as found:
        network = b2.Network(group(), group())
        own(network)
        del network
    assert not found
    network = b2.Network(group())
    own(network)
    with generating("numpy"):
        network.run(1 * b2.ms)
    assert network.t == 1 * b2.ms


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def broken_learner(monkeypatch):
    monkeypatch.setattr(b2, "EventMonitor", fail)
    Learner(mlp_case().network, rate=0.1)


def broken_build(monkeypatch):
    monkeypatch.setattr(equations, "feedback_text", fail)
    build(problem_of(mlp_case()))


def broken_run(monkeypatch):
    monkeypatch.setattr(b2, "NetworkOperation", fail)
    solve(problem_of(mlp_case()), "euler", 2, dt=0.1, engine="brian2", record=True)


def broken_adjoint(monkeypatch):
    monkeypatch.setattr(importlib.import_module("actrelax.models.engines.brian2.adjoint"), "_sum_of_feedback", fail)
    with generating("numpy"):
        rates = b2.NeuronGroup(2, "dr/dt = (-r + tanh(s)) / (10 * ms) : 1\ns : 1", method="euler")
        synapses = b2.Synapses(rates, rates, "w : 1\ns_post = w * r_pre : 1 (summed)")
        synapses.connect(i=0, j=1)
        own(b2.Network(rates, synapses))
        adjoint(rates, synapses)


@pytest.mark.parametrize("call", [broken_learner, broken_build, broken_run, broken_adjoint])
def test_errors_leave_no_object_behind(call, monkeypatch):
    with deleted() as found:
        with pytest.raises(ZeroDivisionError):
            call(monkeypatch)
        monkeypatch.undo()
    assert not found


def shared():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(4, 3))


def test_a_learner_checks_weights_before_it_makes_objects():
    network = Network.from_module(shared(), torch.randn(2, 4))
    objects = len(b2.NeuronGroup.__instances__())
    with deleted() as found, pytest.raises(ActrelaxError, match="projections share a weight, which Brian2 would learn"):
        Learner(network, rate=0.1)
    assert len(b2.NeuronGroup.__instances__()) == objects
    assert not found


def test_a_learner_that_refuses_to_learn_leaves_no_object_behind():
    with deleted() as found:
        learner = Learner(mlp_case().network, rate=0.1)
        with pytest.raises(ActrelaxError, match="stimuli must be finite"):
            learner.respond(torch.full((1, 8), torch.nan))
        del learner
    assert not found
