"""The differences of the authors' program, each against what it says."""

import torch
from outcomes import is_drawn

from actrelax import relax_backward
from actrelax.models.learning import BackwardOptions, Updates
from actrelax.simulations.studies import authors_program
from actrelax.simulations.studies.common import EXECUTION
from actrelax.simulations.suites.shared import ar
from actrelax.simulations.suites.suite import varied
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.assumption_names import assumptions_named

ON_DIGITS = {"dataset": "digits", "normalise": "none", "network": "digits-cnn", "conv_factor": 1.0, "lr": 0.001}
DIGITS = varied(authors_program.BASE, {**ON_DIGITS, "epochs": 1})


def test_conditions_begin_alike_and_differ_by_their_changes(tmp_path):
    small = varied(DIGITS, {"network": "digits-mlp", "lr": 0.003, "epochs": 2})
    rows = authors_program.main(tmp_path, small, seeds=1)
    first, last = (rows[rows["epoch"] == epoch].set_index("condition") for epoch in (0, 2))
    assert first["accuracy"].nunique() == 1
    assert last["accuracy"]["backprop"] > 0.5
    assert last.filter(like="simplified", axis="index")["train"].nunique() == 4
    assert is_drawn(tmp_path / "authors_program.png")


def training():
    return assemble(varied(DIGITS, ar("simplified")), EXECUTION).training


def test_only_biases_keep_the_derivative():
    """Weights and psi keep their update without f'; biases have that of a rule that keeps f' in the update alone."""
    run, other = training(), training().network
    x, y = next(run.batches.epoch(1))
    run.rule(run.network, x, y)
    before = {name: p.grad.clone() for name, p in run.network.named_parameters() if p.grad is not None}
    authors_program.BiasRule(DIGITS).on_gradient(run, x, y, None)
    kept = assumptions_named("simplified,dense.weight-gain=feedforward")
    options = BackwardOptions(reduction="sum", updates=Updates(clip=50.0))
    relax_backward(other, x, y, loss="sum-of-squares", assumptions=kept, options=options)
    kept = {name: p.grad for name, p in other.named_parameters()}
    for name, p in run.network.named_parameters():
        if name in before:
            expected = kept[name] if name.endswith("bias") else before[name]
            assert torch.allclose(p.grad, expected, rtol=1e-4, atol=1e-6), name
    changed = [n for n in before if not torch.allclose(before[n], kept[n], rtol=1e-2, atol=1e-4)]
    assert any(n.endswith("bias") for n in changed)
    assert any(n.endswith("weight") for n in changed)


def test_batches_composed_once():
    run = training()
    fresh = [y for _, y in run.batches.epoch(2)]
    first = [y for _, y in run.batches.epoch(1)]
    authors_program.ComposedOnce().on_start(run)
    repeated = [y for _, y in run.batches.epoch(2)]
    assert all(torch.equal(a, b) for a, b in zip(first, repeated, strict=True))
    assert not torch.equal(fresh[0], repeated[0])
    assert torch.equal(next(run.batches.epoch(3, first=1))[1], first[1])
