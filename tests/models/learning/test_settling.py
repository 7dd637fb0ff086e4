"""Samples that have not settled: they are reported, learn or don't, at both doors. Oracle: single samples."""

import copy
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from networks import RECURRENT, make_case, mlp_case, recurrent_case, responses_of
from torch.utils._python_dispatch import TorchDispatchMode

from actrelax.models.engines import Settle, Steps, settle
from actrelax.models.engines.residual import residual_of_pass, residual_of_state
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import (
    ActivationRelaxation,
    BackwardOptions,
    backprop_backward,
    bptt_backward,
    relax_backward,
)
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import relative_error

FEW = Steps(6, eta=0.4)
LONG = Steps.until(1e-8, eta=0.4, most=400)


@pytest.fixture(params=list(RECURRENT))
def case(request):
    return RECURRENT[request.param](gain=0.9)


def gradients(case, x, y, steps=FEW, **options):
    network = copy.deepcopy(case.network)
    result = relax_backward(network, x, y, steps, options=BackwardOptions(settle=Settle(FEW), **options))
    return [p.grad for p in network.parameters()], result


def door_gradients(case, steps=FEW, **options):
    network, x = copy.deepcopy(case.network), case.x.clone().requires_grad_()
    model = ActivationRelaxation(network, steps=steps, options=BackwardOptions(settle=Settle(FEW), **options))
    torch.nn.functional.cross_entropy(model(x), case.y).backward()
    return [p.grad for p in network.parameters()], x.grad, model.report


def assert_equal(ours, theirs, bound=1e-12):
    for one, other in zip(ours, theirs, strict=True):
        assert relative_error(one, other) < bound


def test_residuals_are_those_of_both_phases(case):
    _, result = gradients(case, case.x, case.y, keep=True)
    passed = settle(case.network, case.x, Settle(FEW))
    assert torch.equal(result.residual["forward"], residual_of_pass(passed))
    problem = RelaxationProblem.from_batch(case.network, passed, case.y, start="zero")
    assert torch.equal(result.residual["backward"], residual_of_state(problem, result.trajectory.state))
    assert result.report.above == {"forward": 0.1, "backward": 0.1}  # ten times 1e-2, without a tolerance
    assert result.report.steps == {"forward": 6, "backward": 6}
    assert all(torch.equal(result.settled[phase], r <= 0.1) for phase, r in result.residual.items())


@pytest.mark.catches("unsettled samples learn all the same")
def test_dropped_samples_learn_nothing(case):
    each = [gradients(case, case.x[i : i + 1], case.y[i : i + 1])[1] for i in range(3)]
    worst = [max(float(r) for r in result.residual.values()) for result in each]
    bound = sorted(worst)[1] * 1.000001  # two samples are below it
    kept = [i for i in range(3) if worst[i] <= bound]
    assert len(kept) == 2
    expected, _ = gradients(case, case.x[kept], case.y[kept], reduction="sum")
    dropped, result = gradients(case, case.x, case.y, reduction="sum", unsettled="drop", unsettled_above=bound)
    assert_equal(dropped, expected)
    assert int(result.report.count) == 1
    everything, result = gradients(case, case.x, case.y, reduction="sum", unsettled_above=bound)
    assert_equal(everything, gradients(case, case.x, case.y, reduction="sum")[0])
    assert int(result.report.count) == 1
    assert max(relative_error(one, other) for one, other in zip(everything, dropped, strict=True)) > 1e-3


def test_a_sample_that_runs_away_is_dropped():
    """Without gains its relaxation overflows; the other two learn what they would learn alone."""
    case = recurrent_case(gain=1.5)
    case.x[0] *= 20  # saturated: no gain, and no feedback
    case.x[2] *= 20
    steps = Steps(40, eta=0.5)
    with torch.no_grad():
        case.network.projections["a->a"].weight.mul_(1e15)  # saturated units settle all the same
        case.network.projections["a->output"].weight.mul_(1e-3)
    case.network.projections["a->a"].weight.requires_grad_(False)
    options = BackwardOptions(settle=Settle(Steps(3, eta=1.0)), unsettled="drop", reduction="sum", unsettled_above=0.5)
    result = relax_backward(case.network, case.x, case.y, steps, assumptions="no-derivatives", options=options)
    assert not bool(result.residual["backward"].isfinite().all())
    assert bool(result.finite)
    assert all(bool(p.grad.isfinite().all()) for p in case.network.parameters() if p.grad is not None)


@pytest.mark.parametrize("integrator", ["sequential", "equilibrium", None])
def test_a_sample_that_overflows_beside_the_cycle_is_dropped(integrator):
    """A unit beside the cycle is infinite, while the output, which saturates, and all relaxed activities are finite."""
    edges = [
        ("input", "a", [torch.nn.Linear(4, 5)]),
        ("a", "a", [torch.nn.Linear(5, 5, bias=False)]),
        ("a", "output", [torch.nn.Linear(5, 3)]),
        ("input", "beside", [torch.nn.Linear(4, 1)]),
        ("beside", "output", [torch.nn.Linear(1, 3, bias=False)]),
    ]
    case = make_case((4,), {"a": "tanh", "beside": "identity", "output": "tanh"}, edges, gain=0.5)
    with torch.no_grad():
        case.network.projections["input->a"].weight[:, 0] = 0.0
        case.network.projections["input->beside"].weight[:, 0] = 10.0
    case.x[1, 0] = 1e308

    def found(x, y, **options):
        network = copy.deepcopy(case.network)
        options = BackwardOptions(settle=Settle(LONG), reduction="sum", **options)
        if integrator is None:
            rules = [partial(backprop_backward, reduction="sum"), bptt_backward]
        else:
            steps = LONG if integrator == "sequential" else Steps.until(1e-9)
            rules = [partial(relax_backward, steps=steps, integrator=integrator)]
        results = [rule(network, x, y, loss="sum-of-squares", options=options) for rule in rules]
        return [p.grad for p in network.parameters()], results

    expected, _ = found(case.x[[0, 2]], case.y[[0, 2]])
    with warnings.catch_warnings(action="ignore"):  # of steps that nan never ends
        dropped, results = found(case.x, case.y, unsettled="drop", check_finite=False)
    assert [result.report.in_both.tolist() for result in results] == [[True, False, True]] * len(results)
    assert_equal(dropped, expected, 1e-7)


@pytest.mark.parametrize("stopping", [True, False])
def test_a_sample_without_finite_rates_is_dropped_by_every_rule(case, stopping):
    """Its stimulus is nan: the other two learn what they would learn alone, and have the same loss."""
    kept = [0, 2]
    settled = {"settle": Settle(LONG), "reduction": "sum", "unsettled_above": 1e-3}
    dropping = BackwardOptions(unsettled="drop", check_finite=stopping, **settled)
    x = case.x.clone()
    x[1].flatten()[0] = torch.nan

    def found(rule, x, y, options):
        network = copy.deepcopy(case.network)
        result = rule(network, x, y, options)
        assert result is None or bool(result.finite)
        return [p.grad for p in network.parameters()] + ([] if result is None else [result.loss])

    def through_the_door(network, x, y, options):
        model = ActivationRelaxation(network, steps=LONG, reduction="sum", options=options)
        torch.nn.functional.cross_entropy(model(x), y, reduction="sum").backward()

    rules = [
        lambda network, x, y, options: relax_backward(network, x, y, LONG, options=options),
        lambda network, x, y, options: relax_backward(
            network, x, y, Steps.until(1e-9), integrator="equilibrium", options=options
        ),
        lambda network, x, y, options: backprop_backward(network, x, y, reduction="sum", options=options),
        lambda network, x, y, options: bptt_backward(network, x, y, options=options),
        lambda network, x, y, options: bptt_backward(network, x, y, last=50, options=options),
        through_the_door,
    ]
    with warnings.catch_warnings(action="ignore"):  # of steps that nan never ends
        for rule in rules:
            expected = found(rule, case.x[kept], case.y[kept], BackwardOptions(**settled))
            assert_equal(found(rule, x, case.y, dropping), expected, 1e-5)


def test_the_clip_scales_single_samples(case):
    each = [gradients(case, case.x[i : i + 1], case.y[i : i + 1], keep=True, reduction="sum") for i in range(3)]
    sizes = []
    for _, result in each:
        problem = result.trajectory.problem
        x = torch.cat([problem.units[name].activity(result.trajectory.state).flatten() for name in problem.relaxing])
        sizes.append(float(x.norm() / problem.clamped.norm()))
    bound = sorted(sizes)[0] * 1.01
    shares = [min(1.0, bound / size) for size in sizes]
    assert sum(share < 1 for share in shares) == 2
    expected = [
        sum(s * g for s, g in zip(shares, parts, strict=True)) for parts in zip(*(g for g, _ in each), strict=True)
    ]
    assert_equal(gradients(case, case.x, case.y, reduction="sum", sample_clip=bound)[0], expected)


@pytest.mark.parametrize("options", [{}, {"unsettled": "drop"}, {"sample_clip": 0.5}])
def test_both_doors_agree(case, options):
    if "unsettled" in options:
        residual = gradients(case, case.x, case.y)[1].residual
        worst = torch.maximum(residual["forward"], residual["backward"]).sort().values
        options = {**options, "unsettled_above": float(worst[:2].mean())}  # one sample is below it
    expected, result = gradients(case, case.x, case.y, **options)
    found, at_input, report = door_gradients(case, **options)
    assert_equal(found, expected)
    for phase in ("forward", "backward"):
        assert relative_error(report.residual[phase], result.residual[phase]) < 1e-9
    assert report.above == result.report.above
    if options.get("unsettled") == "drop":
        away = ~report.in_both
        assert int(away.sum()) == 2
        assert not at_input[away].any()
        assert at_input[~away].flatten(1).any(1).all()


def test_defaults(case):
    network = copy.deepcopy(case.network)
    model = ActivationRelaxation(network)
    assert model.steps == Steps.until(1e-2, eta=0.5, most=100)
    assert model.report is None
    torch.nn.functional.cross_entropy(model(case.x), case.y).backward()
    bounds = {phase: pytest.approx(min(0.1, 1 / (0.5 * steps))) for phase, steps in model.report.steps.items()}
    assert model.report.above == bounds
    assert all(3 < steps < 100 for steps in model.report.steps.values())
    assert all(float(r.max()) < 0.1 for r in model.report.residual.values())
    given = Settle(Steps.until(1e-2, eta=0.5, most=100))
    steps = Steps.until(1e-2, eta=0.5, most=100)
    explicit, implicit = copy.deepcopy(case.network), copy.deepcopy(case.network)
    relax_backward(explicit, case.x, case.y, steps, start="zero", options=BackwardOptions(settle=given))
    relax_backward(implicit, case.x, case.y)
    for p, q, r in zip(explicit.parameters(), implicit.parameters(), network.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
        assert relative_error(r.grad, p.grad) < 1e-12
    with torch.no_grad():
        assert torch.equal(model(case.x), settle(network, case.x, given).activities["output"])


@pytest.mark.parametrize("factor", [1.1, 1.2])
def test_samples_that_run_away_are_not_settled(factor, generator):
    """With random feedback the rates settle, and relaxations grow slowly. Oracle: eigenvalues of each sample."""
    case = recurrent_case()
    x = 0.1 * torch.randn(40, 8, generator=generator)
    case.network.add_feedback("random-feedback", 0)
    psi = case.network.projections["a->a"].feedback
    psi.mul_(factor / torch.linalg.eigvals(psi).real.max())
    with pytest.warns(UserWarning, match="^not settled after 100 steps"):
        result = relax_backward(case.network, x, torch.arange(40) % 4, assumptions="random-feedback")
    gains = 1 - settle(case.network, x).activities["a"] ** 2
    abscissae = torch.stack([torch.linalg.eigvals(psi.T * gain).real.max() for gain in gains])
    assert result.settled["forward"].all()
    assert (result.residual["backward"][abscissae > 1] < 0.1).any()  # ten times the tolerance
    assert not result.settled["backward"][abscissae > 1].any()
    assert result.settled["backward"][abscissae < 0.9].all()


@pytest.mark.parametrize("rule", [relax_backward, backprop_backward, bptt_backward])
def test_rates_that_grow_slowly_are_not_settled(rule, generator):
    """Rates without a bound grow by a few per cent per time constant. Oracle: the rates after 3,000 steps."""
    case = recurrent_case(activation="relu", gain=5.6)
    x = torch.randn(40, 8, generator=generator)
    with warnings.catch_warnings(action="ignore"):  # of rates that have not settled
        report = rule(case.network, x, torch.arange(40) % 4).report
    rates, by_then = torch.zeros(40, 7), None
    for step in range(3000):
        rates = rates + 0.5 * (responses_of(case, {"input": x, "a": rates})["a"].detach() - rates)
        by_then = rates.amax(1) if step == 99 else by_then
    grow = rates.amax(1) > 2 * by_then
    assert 3 < int(grow.sum()) < 35
    assert report.above["forward"] == pytest.approx(1 / 50)
    assert (report.residual["forward"][grow] < 0.1).any()  # ten times the tolerance
    assert not report.settled["forward"][grow].any()
    assert report.settled["forward"][~grow].all()


def test_only_a_start_at_zero_bounds_the_residual_by_the_time(case):
    """From rates near the fixed point a slow mode that decays has a residual that does not shrink with the time."""
    steps = Steps(40, eta=0.5)
    start = {v: settle(case.network, case.x).activities[v] for cycle in case.network.graph.cycles for v in cycle}
    above = {}
    for name, how, backward in (("zero", Settle(steps), "zero"), ("given", Settle(steps, start=start), "feedforward")):
        options = BackwardOptions(settle=how)
        above[name] = relax_backward(case.network, case.x, case.y, steps, start=backward, options=options).report.above
    assert above["zero"] == {"forward": pytest.approx(1 / 20), "backward": pytest.approx(1 / 20)}
    assert above["given"] == {"forward": pytest.approx(0.1), "backward": pytest.approx(0.1)}


class Meeting:
    """Processes that share a batch, as threads, which agree on the largest of their numbers."""

    def __init__(self, count):
        self.sent, self.barrier = [None] * count, threading.Barrier(count, timeout=20)

    def agree(self, rank):
        def largest(numbers):
            self.sent[rank] = numbers
            self.barrier.wait()
            found = torch.stack(self.sent).amax(0)
            self.barrier.wait()  # before anyone sends again
            return found

        return largest


@pytest.mark.parametrize("rule", [relax_backward, backprop_backward, bptt_backward])
def test_processes_that_agree_stop_like_one(case, rule):
    """Each share settles after another number of steps; together they take those of the whole batch."""
    case.x[0] *= 0.01
    shares, meeting = [slice(0, 1), slice(1, 3)], Meeting(2)

    def found(chosen, agree=None):
        network = copy.deepcopy(case.network)
        options = BackwardOptions(reduction="sum", agree=agree)
        fields = {"reduction": "sum"} if rule is backprop_backward else {}
        result = rule(network, case.x[chosen], case.y[chosen], options=options, **fields)
        return [p.grad for p in network.parameters()], result.report.steps["forward"], result.report.steps

    together, steps, of_both = found(slice(None))
    assert len({found(chosen)[1] for chosen in shares}) == 2
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda rank: found(shares[rank], meeting.agree(rank)), range(2)))
    assert [part[1] for part in parts] == [steps, steps]
    if rule is relax_backward:
        assert [part[2] for part in parts] == [of_both, of_both]
    bound = 1e-5 if rule is backprop_backward else 1e-12  # GMRES ends at 1e-6
    assert_equal([a + b for a, b in zip(*(part[0] for part in parts), strict=True)], together, bound)


def test_processes_agree_on_infinity_in_place_of_nan(case):
    """Which a maximum keeps on every backend."""
    seen = []

    def agree(numbers):
        seen.append(numbers)
        return numbers

    how = Settle(Steps.until(1e-2, eta=0.5, most=5))
    options = BackwardOptions(settle=how, unsettled="drop", check_finite=False, agree=agree)
    case.x[0] = torch.nan
    with pytest.warns(UserWarning, match="not settled"):
        relax_backward(case.network, case.x, case.y, Steps.until(1e-2, eta=0.5, most=5), options=options)
    assert not torch.cat(seen).isnan().any()
    assert torch.cat(seen).isinf().any()


def test_the_front_door_agrees_only_with_gradients(case):
    sent = []

    def agree(numbers):
        sent.append(numbers)
        return numbers

    model = ActivationRelaxation(case.network, options=BackwardOptions(agree=agree))
    with torch.no_grad():
        model(case.x)  # perhaps in one process only
    assert not sent
    output = model(case.x)
    forward = len(sent)
    output.sum().backward()
    assert 0 < forward < len(sent)


def test_eta_alone_replaces_that_of_the_default(case):
    steps = ActivationRelaxation(case.network, eta=0.3).steps
    assert steps == Steps.until(1e-2, eta=0.3, most=100)


def test_tolerances_set_what_counts_as_unsettled(case):
    options = BackwardOptions(settle=Settle(Steps.until(1e-5, eta=0.5)))
    for integrator, backward in (("equilibrium", 1e-8), ("sequential", 1e-4), ("euler", 1e-4)):
        steps = Steps.until(backward) if integrator == "equilibrium" else Steps.until(backward, eta=0.5)
        result = relax_backward(case.network, case.x, case.y, steps, integrator=integrator, options=options)
        assert result.report.above == {"forward": pytest.approx(1e-4), "backward": pytest.approx(10 * backward)}
        assert bool(result.report.in_both.all())
        assert float(result.residual["backward"].max()) <= 1.01 * backward or integrator != "equilibrium"
        assert 3 < result.report.steps["backward"] < 100
    steps = Steps.until(1e-3, of="change", eta=0.5)
    result = relax_backward(case.network, case.x, case.y, steps, options=options)
    assert result.report.above["backward"] == pytest.approx(2e-2)  # of a residual, which is the change over eta


@pytest.mark.parametrize("rule", [relax_backward, backprop_backward, bptt_backward])
def test_steps_that_do_not_suffice_are_said_once(case, rule):
    options = BackwardOptions(settle=Settle(Steps.until(1e-6, eta=0.5, most=2)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for x in (case.x, case.x[:1], case.x[1:]):
            rule(case.network, x, case.y[: len(x)], options=options)
    forward = [str(w.message) for w in said if "forward phase" in str(w.message)]
    assert forward == [
        "some samples have not settled after 2 steps of the forward phase: the report says how many; a smaller eta may "
        "help, or Steps.until with a larger most."
    ]


class Reads(TorchDispatchMode):
    """Count reads of values, which wait for the device."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[str(function)] += "_local_scalar_dense" in str(function)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"unsettled": "drop"}, {"sample_clip": 2.0}])
def test_counting_reads_no_values(case, options):
    """With fixed steps and one-hot targets a batch never waits for the device."""
    target = torch.nn.functional.one_hot(case.y, 4).to(case.x)
    with Reads() as reads:
        _, result = gradients(case, case.x, target, check_finite=False, **options)
        count = result.report.count
    assert reads.counts.total() == 0
    assert count.shape == ()
    with Reads() as reads:
        str(result.report)
    assert reads.counts.total() == 3


def test_what_is_refused():
    with pytest.raises(ActrelaxError, match=r"^unknown unsettled 'forget'; known: keep, drop\."):
        BackwardOptions(unsettled="forget")
    for name in ("unsettled_above", "sample_clip"):
        with pytest.raises(ActrelaxError, match=f"^{name} must be a positive number, got 0\\.$"):
            BackwardOptions(**{name: 0})
    case = mlp_case()
    with pytest.raises(ActrelaxError, match=r"^sample_clip needs a network with cycles: leave it out, or pass clip to"):
        relax_backward(case.network, case.x, case.y, options=BackwardOptions(sample_clip=1.0))
    assert all(p.grad is None for p in case.network.parameters())
    assert relax_backward(case.network, case.x, case.y).report is None
    case = recurrent_case()
    for rule in (backprop_backward, bptt_backward):
        with pytest.raises(ActrelaxError, match=f"^sample_clip needs a relaxation, but {rule.__name__} has none"):
            rule(case.network, case.x, case.y, options=BackwardOptions(sample_clip=1.0))
    assert all(p.grad is None for p in case.network.parameters())
