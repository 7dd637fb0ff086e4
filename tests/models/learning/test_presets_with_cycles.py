"""Each preset on networks with cycles. Oracle: tests/reference.py at rates that PyTorch's modules have settled to."""

import copy

import numpy as np
import pytest
import torch
from networks import RECURRENT, responses_of
from reference import FUNCTIONS, Reference, matrix

from actrelax.models.assumptions import PRESETS
from actrelax.models.engines import Settle, Steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, Updates, relax_backward, relax_continuously
from actrelax.models.results import relative_error

STEPS, ETA, DECAY = 9, 0.3, 0.03
TIGHT = Settle(Steps.until(1e-14, eta=0.4))
AT_EQUILIBRIUM = [name for name in PRESETS if name != "continuous"]


def settled_rates(case):
    """Return population -> rates after 700 steps of 0.4."""
    populations = case.network.populations
    rates = {v: torch.zeros(len(case.x), *populations[v].shape) for v in [*case.network.hidden, "output"]}
    with torch.no_grad():
        for _ in range(700):
            towards = responses_of(case, {"input": case.x, **rates})
            rates = {v: r + 0.4 * (towards[v] - r) for v, r in rates.items()}
    return {"input": case.x, **rates}


class SettledReference(Reference):
    """The reference with routes, gains and presynaptic rates at settled rates."""

    def __init__(self, case, rates, sample, assumptions, psi):
        self.assumptions, self.names = assumptions, list(case.network.populations)
        self.activation = {name: p.activation.name for name, p in case.network.populations.items()}
        r = {name: x[sample] for name, x in rates.items()}
        self.xbar = {name: x.reshape(-1).numpy() for name, x in r.items()}
        self.edges, drives = [], {}
        for source, target, stages in case.edges:
            edge, drive = self._edge(source, target, stages, r[source], psi)
            self.edges.append(edge)
            drives[target] = drives[target] + drive if target in drives else drive
        self.abar = {name: drive.detach().reshape(-1).numpy() for name, drive in drives.items()}
        for name, drive in drives.items():
            assert torch.allclose(FUNCTIONS[self.activation[name]](drive.detach()), r[name], rtol=0, atol=1e-12)
        for edge in self.edges:
            if edge.kind == "copy":
                edge.kind = "conv" if drives[edge.target].dim() == 3 else "dense"


def feedback_weights(network, assumptions):
    """Return (source, target) -> psi, by the definitions of docs/theory.md."""
    psi = {}
    for p in network.projections.values():
        if p.map is None or p.source == "input":
            continue
        kind = getattr(assumptions, network.kind(p)).feedback
        if kind == "sign":
            psi[p.source, p.target] = p.weight.detach().sign() * p.weight.detach().std(correction=0)
        elif kind != "transpose":
            psi[p.source, p.target] = p.feedback.detach()
    return psi


def clamp(rates, y):
    return (torch.softmax(rates["output"], 1) - torch.nn.functional.one_hot(y, 4)).numpy()


@pytest.mark.parametrize("name", list(RECURRENT))
@pytest.mark.parametrize("preset", AT_EQUILIBRIUM)
def test_a_step_of_each_preset_is_the_rule_written_out(name, preset):
    case, assumptions = RECURRENT[name](), PRESETS[preset]
    scheme = "sequential" if len(preset) % 2 else "euler"
    case.network.add_feedback(preset, torch.Generator().manual_seed(5))
    decay = DECAY if assumptions.needs_decay else None
    options = BackwardOptions(Updates(decay=decay), "sum", settle=TIGHT)
    relax_backward(case.network, case.x, case.y, STEPS, eta=ETA, assumptions=preset, integrator=scheme, options=options)
    rates, totals = settled_rates(case), {}
    psi = feedback_weights(case.network, assumptions)
    for sample, top in enumerate(clamp(rates, case.y)):
        reference = SettledReference(case, rates, sample, assumptions, psi)
        state = reference.relax(scheme, STEPS, ETA, top, start="zero")
        for edge, update in reference.updates(state).items():
            for slot, value in update.items():
                totals[*edge, slot] = totals.get((*edge, slot), 0) + value
    compared = 0
    for p in case.network.projections.values():
        kind = getattr(assumptions, case.network.kind(p)).feedback if p.map is not None else "transpose"
        decays = kind == "kolen-pollack" and p.source != "input"
        for slot in ("weight", "bias"):
            parameter = getattr(p, slot)
            if parameter is None:
                continue
            expected = totals[p.source, p.target, slot]
            if slot == "weight":
                expected = expected + (DECAY if decays else 0) * parameter.detach()
            assert relative_error(parameter.grad, expected) < 1e-9, (p.name, slot)
            compared += 1
        if isinstance(p.feedback, torch.nn.Parameter):
            expected = totals[p.source, p.target, "weight"] + (DECAY if decays else 0) * p.feedback.detach()
            assert relative_error(p.feedback.grad, expected) < 1e-9, p.name
    assert compared > 3


@pytest.mark.parametrize("name", list(RECURRENT))
@pytest.mark.parametrize("preset", [name for name in AT_EQUILIBRIUM if name != "ar"])
def test_each_preset_changes_the_step(name, preset):
    gradients = []
    for assumptions in ("ar", preset):
        case = RECURRENT[name]()
        case.network.add_feedback(assumptions, torch.Generator().manual_seed(5))
        decay = DECAY if PRESETS[assumptions].needs_decay else None
        options = BackwardOptions(Updates(decay=decay), settle=TIGHT)
        relax_backward(case.network, case.x, case.y, STEPS, eta=ETA, assumptions=assumptions, options=options)
        gradients.append([p.weight.grad for p in case.network.projections.values() if p.weight is not None])
    # two networks have no convolutions; the other's only dense projection drives the output, with a gain of 1
    nothing = preset.endswith("-conv") if name != "conv" else preset == "no-derivatives-dense"
    largest = max(relative_error(one, two) for one, two in zip(*gradients, strict=True))
    nothing = nothing or preset.startswith("constant-statistics")  # of normalisation, which these networks lack
    assert largest == 0 if nothing else largest > 1e-3


@pytest.mark.parametrize("name", list(RECURRENT))
def test_continuous_plasticity_written_out(name):
    """W^T carries the feedback and changes with W; routes, gains and rates are those of the first weights."""
    case = RECURRENT[name]()
    case.x, case.y = case.x[:1], case.y[:1]
    rates = settled_rates(case)
    reference = SettledReference(case, rates, 0, PRESETS["continuous"], {})
    weights = {(s, t): m.weight.detach().clone() for s, t, ms in case.edges for m in ms if hasattr(m, "weight")}
    network, rate = copy.deepcopy(case.network), 0.5
    result = relax_continuously(
        network, case.x, case.y, STEPS, rate=rate, eta=ETA, options=BackwardOptions(settle=TIGHT)
    )
    hidden = reference.names[1:-1]
    x = {**reference.xbar, "output": clamp(rates, case.y)[0]} | {v: 0 * reference.xbar[v] for v in hidden}
    for _ in range(STEPS):
        for v in reversed(hidden):
            x = x | {v: (1 - ETA) * x[v] + ETA * reference.pull(v, x)}
        for edge, update in reference.updates(x).items():
            weights[edge] = weights[edge] - rate / STEPS * update["weight"]
        for edge in reference.edges:
            if edge.module is not None:
                start = torch.zeros(edge.mapped_from)
                psi = weights[edge.source, edge.target]
                edge.psi = matrix(lambda v, e=edge, psi=psi: reference._mapped(e.module, v, psi), start)
    for p in network.projections.values():
        if p.weight is not None:
            assert relative_error(p.weight, weights[p.source, p.target]) < 1e-9
            assert not np.allclose(p.weight.detach(), case.network.projections[p.name].weight.detach(), atol=1e-6)
    assert result.report.steps["backward"] == STEPS
    assert float(result.residual["forward"].max()) < 1e-13


def test_continuous_plasticity_drops_no_samples():
    case = RECURRENT["dense"]()
    before = copy.deepcopy(case.network.state_dict())
    for options in (BackwardOptions(unsettled="drop"), BackwardOptions(sample_clip=1.0)):
        with pytest.raises(ActrelaxError, match=r"^continuous plasticity has changed the weights before it is known"):
            relax_continuously(case.network, case.x, case.y, rate=0.1, options=options)
    assert all(torch.equal(value, before[key]) for key, value in case.network.state_dict().items())
