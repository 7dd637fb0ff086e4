"""A network that learns inside Brian2, against the same rule in PyTorch: batches of one, plain gradient descent."""

import copy
from itertools import combinations

import pytest
import torch
from networks import make_case, mlp_case, recurrent_case
from torch import nn

from actrelax.models._names import look_up
from actrelax.models.assumptions import PRESETS, Assumptions, Knobs
from actrelax.models.engines.brian2 import targets
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, Updates, relax_backward
from actrelax.models.learning.brian2 import Learner, Phases
from actrelax.models.learning.brian2.equations import TOP_GRADIENTS
from actrelax.models.network import ACTIVATIONS, Network, Projection, build
from actrelax.models.problem import LOSSES
from actrelax.models.results import DivergenceError
from actrelax.simulations.data import digits

SHORT = Phases(steps=12, eta=0.2)
DISTINCT = list({preset.dense: name for name, preset in PRESETS.items() if not preset.is_continuous}.values())
"""One preset for each combination of assumptions in dense networks."""
KOLEN_POLLACK = 0.1


def stimuli(network, n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *network.populations[network.input].shape, generator=generator)
    return x, torch.randint(network.populations[network.output].shape[0], (n,), generator=generator)


def with_feedback(network, assumptions):
    network.add_feedback(assumptions, torch.Generator().manual_seed(3))
    return network


def learn_in_brian2(network, x, y, assumptions="ar", *, rate=0.1, phases=SHORT, **options):
    decay = KOLEN_POLLACK if needs_decay(assumptions) else None
    learner = Learner(network, rate=rate, assumptions=assumptions, phases=phases, decay=decay, **options)
    return learner.learn(x, y)


def learn_in_torch(network, x, y, assumptions="ar", *, rate=0.1, **options):
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    learning = BackwardOptions(Updates(decay=KOLEN_POLLACK if needs_decay(assumptions) else None))
    outputs = []
    for k in range(len(x)):
        optimiser.zero_grad()
        sample = x[k : k + 1], y[k : k + 1]
        relaxed = relax_backward(
            network, *sample, 12, eta=0.2, assumptions=assumptions, integrator="euler", options=learning, **options
        )
        outputs.append(relaxed.output)
        optimiser.step()
    return torch.cat(outputs)


def needs_decay(assumptions):
    return look_up("assumptions", assumptions, PRESETS).needs_decay


def distance(network, other):
    a, b = network.state_dict(), other.state_dict()
    assert list(a) == list(b)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def check_equal(network, x, y, assumptions="ar", **options):
    """Check that both learners end with the same weights, different from the initial ones."""
    first, other = copy.deepcopy(network), copy.deepcopy(network)
    output = learn_in_brian2(network, x, y, assumptions, **options)
    expected = learn_in_torch(other, x, y, assumptions, **options)
    assert distance(network, other) < 1e-12
    assert float((output - expected).abs().max()) < 1e-12
    assert distance(network, first) > 0.1


@pytest.mark.parametrize("assumptions", ["ar", "learned-feedback", "kolen-pollack", "random-feedback"])
def test_digits_are_learned_as_in_torch(assumptions):
    network = with_feedback(build("digits-mlp", generator=torch.Generator().manual_seed(0)), assumptions)
    images, labels = digits().train
    check_equal(network, images[:50].flatten(1).double(), labels[:50], assumptions)


@pytest.mark.parametrize("assumptions", DISTINCT)
def test_every_preset_is_learned_as_in_torch(assumptions):
    network = with_feedback(mlp_case().network, assumptions)
    check_equal(network, *stimuli(network, 20), assumptions)


def test_presets_differ():
    """Presets differ in PyTorch, so the agreement of both engines shows that the assumptions have an effect.

    Brian2 agrees with PyTorch by the test above.
    """
    learned = []
    for name in DISTINCT:
        network = with_feedback(mlp_case().network, name)
        learn_in_torch(network, *stimuli(network, 20), name)
        learned.append(network.projections["input->hidden1"].weight.detach().clone())
    for a, b in combinations(learned, 2):
        assert float((a - b).abs().max()) > 1e-3


@pytest.mark.parametrize("loss", TOP_GRADIENTS)
def test_losses_are_those_of_torch(loss):
    assert set(TOP_GRADIENTS) == set(LOSSES)
    network = with_feedback(mlp_case().network, "learned-feedback")
    x, labels = stimuli(network, 20)
    check_equal(network, x, labels, "learned-feedback", loss=loss)
    # targets that are not one-hot, and don't sum to one
    check_equal(network, x, torch.rand(20, 4), "learned-feedback", loss=loss)


@pytest.mark.parametrize("activation", [name for name, a in ACTIVATIONS.items() if a.formula])
def test_activations_are_those_of_torch(activation):
    network = mlp_case(activation).network
    check_equal(network, *stimuli(network, 20), "unfrozen")


def test_graphs_with_skips_copies_and_awkward_names():
    edges = [
        ("input", "1 pre", [nn.Flatten(), nn.Linear(6, 5)]),
        ("1 pre", "x_post", [nn.Linear(5, 4, bias=False)]),
        ("x_post", "é", [nn.Linear(4, 5)]),
        ("1 pre", "é", []),
        ("input", "x_post", [nn.Flatten(), nn.Linear(6, 4)]),
        ("1 pre", "output", [nn.Linear(5, 3)]),
        ("é", "output", [nn.Linear(5, 3)]),
    ]
    populations = {"1 pre": "tanh", "x_post": "sigmoid", "é": "tanh", "output": "softplus"}
    network = make_case((2, 3), populations, edges).network
    for assumptions in ("unfrozen", "kolen-pollack"):
        check_equal(with_feedback(copy.deepcopy(network), assumptions), *stimuli(network, 20), assumptions)


def test_frozen_parameters_stay():
    network = mlp_case().network
    for name in ("input->hidden1.weight", "hidden2->hidden3.bias"):
        network.get_parameter(name).requires_grad_(False)
    first = copy.deepcopy(network)
    check_equal(network, *stimuli(network, 20))
    assert torch.equal(network.get_parameter("input->hidden1.weight"), first.get_parameter("input->hidden1.weight"))


def test_torch_and_brian2_take_turns():
    network = mlp_case().network
    other = copy.deepcopy(network)
    x, y = stimuli(network, 30)
    learner = Learner(network, rate=0.1, phases=SHORT)
    learner.learn(x[:10], y[:10])
    learn_in_torch(network, x[10:20], y[10:20])
    learner.learn(x[20:], y[20:])
    learn_in_torch(other, x, y)
    assert distance(network, other) < 1e-12


def test_responding_and_watching_change_no_weight():
    network = mlp_case().network
    first = copy.deepcopy(network)
    x, y = stimuli(network, 3)
    learner = Learner(network, rate=0.1, phases=SHORT)
    with torch.no_grad():
        assert float((learner.respond(x) - network(x)).abs().max()) < 1e-12
    seen = learner.watch(x, y)
    assert distance(network, first) == 0
    assert {name: tuple(states.shape) for name, states in seen.items()} == {
        "hidden1": (3 * 17, 7),
        "hidden2": (3 * 17, 6),
        "hidden3": (3 * 17, 5),
        "output": (3 * 17, 4),
    }
    passed = first.feedforward(x).activities
    keeping = BackwardOptions(keep=True)
    relaxed = relax_backward(copy.deepcopy(network), x, y, 12, eta=0.2, integrator="euler", options=keeping).trajectory
    for name in ("hidden1", "hidden2", "hidden3"):
        assert float((seen[name][3::17] - passed[name].detach()).abs().max()) < 1e-12
        assert float((seen[name][15::17] - relaxed.final[name]).abs().max()) < 1e-12
        assert torch.equal(seen[name][15::17], seen[name][16::17])  # activities stay constant while weights change
    assert not torch.equal(learner.watch(x[:1], y[:1])["hidden1"], seen["hidden1"][17:34])


def test_a_second_learner_continues_bit_for_bit():
    """Weights and activities are the complete state between stimuli."""
    slow = Phases(steps=12, eta=0.2, feedforward_steps=10, feedforward_eta=0.4)
    network = mlp_case().network
    other = copy.deepcopy(network)
    x, y = stimuli(network, 12)
    first = Learner(network, rate=0.1, phases=slow)
    first.learn(x[:5], y[:5])
    half = copy.deepcopy(network)
    continued = Learner(half, rate=0.1, phases=slow)
    continued.activities = first.activities
    continued.learn(x[5:], y[5:])
    first.learn(x[5:], y[5:])
    assert distance(network, half) == 0
    Learner(other, rate=0.1, phases=slow).learn(x, y)
    assert distance(network, other) == 0


def test_a_slow_feedforward_phase_comes_as_close_as_it_is_long():
    network = mlp_case().network
    x, _ = stimuli(network, 3)
    errors = []
    for steps in (40, 80, 160):
        phases = Phases(steps=1, feedforward_steps=steps, feedforward_eta=0.2)
        with torch.no_grad():
            errors.append(float((Learner(network, rate=0.1, phases=phases).respond(x) - network(x)).abs().max()))
    assert errors[0] > 100 * errors[1] > 1e4 * errors[2]


@pytest.mark.skipif("cython" not in targets(), reason="no compiler")
def test_compiled_code_is_chosen_and_left_again(monkeypatch):
    import brian2

    before, network = brian2.prefs.codegen.target, mlp_case().network
    learner, used = Learner(network, rate=0.1, codegen="cython", phases=SHORT), []
    run = brian2.Network.run

    def watched(self, *arguments, **options):
        used.append(brian2.prefs.codegen.target)
        brian2.prefs.codegen.target = "numpy"  # avoids a minute of compiling
        return run(self, *arguments, **options)

    monkeypatch.setattr(brian2.Network, "run", watched)
    learner.respond(stimuli(network, 1)[0])
    assert used == ["cython"]
    assert brian2.prefs.codegen.target == before
    assert {"numpy", "cython"} <= set(targets())


def test_divergence_leaves_the_network_as_it_was():
    network = mlp_case("identity").network
    first = copy.deepcopy(network)
    learner = Learner(network, rate=1e200, loss="sum-of-squares", phases=SHORT)
    x, y = stimuli(network, 5)
    with pytest.raises(DivergenceError, match=r"'input->hidden1.weight' became non-finite: lower the learning rate"):
        learner.learn(x, y)
    assert distance(network, first) == 0
    assert torch.isfinite(learner.respond(x)).all()


def test_a_run_that_was_cut_short_is_not_taken_for_a_whole_one():
    import brian2

    network = mlp_case().network
    first = copy.deepcopy(network)
    learner = Learner(network, rate=0.1, phases=SHORT)
    stop = brian2.NetworkOperation(lambda t: t > 3 * brian2.ms and brian2.stop(), clock=None)
    learner._simulation.network.add(stop)
    with pytest.raises(KeyboardInterrupt):
        learner.learn(*stimuli(network, 5))
    assert distance(network, first) == 0
    learner._simulation.network.remove(stop)
    check_equal(network, *stimuli(network, 20))


def chain(*stages, activation="tanh"):
    projections = [Projection("input", "hidden1", *stages), Projection("hidden1", "output", nn.Linear(3, 2))]
    return Network((4,), {"hidden1": activation, "output": "identity"}, projections)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"assumptions": "continuous"}, "in Brian2 weights change after the relaxation, not during it: choose plast"),
        ({"assumptions": "learned-feedback"}, "has no learned feedback weights: call network.add_feedback"),
        ({"assumptions": "unknown"}, "unknown assumptions 'unknown'; known: ar, "),
        ({"loss": "hinge"}, "unknown Brian2 loss 'hinge'; known: cross-entropy, sum-of-squares, half-sum-of"),
        ({"codegen": "fortran"}, "unknown Brian2 target 'fortran'; known: "),
        ({"rate": -1.0}, "rate must be a number, 0 or positive, got -1.0."),
        ({"decay": 0.1}, '"kolen-pollack" feedback needs a decay rate and other feedback takes none, got decay=0.1.'),
        ({"decay": -0.1}, "decay must be 0 or positive, got -0.1."),
    ],
)
def test_what_is_refused(options, sentence):
    with pytest.raises(ActrelaxError) as refused:
        Learner(mlp_case().network, **{"rate": 0.1, **options})
    assert sentence in str(refused.value)


def test_networks_that_are_refused():
    for network, sentence in (
        (
            build("digits-cnn"),
            "Brian2 learns in dense projections, 'input->conv1' is Conv2d(1, 32, 3, padding=1), MaxPool2d(2): choose a "
            "network like digits-mlp, or average pooling with fixed weights.",
        ),
        (
            build("conv-rec", input_shape=(1, 8, 8)),
            "Brian2 learns in dense projections, 'input->conv1' is Conv2d(1, 8, 3, padding=1): choose a network like "
            "digits-mlp, or fix its weights with requires_grad_(False).",
        ),
        (
            recurrent_case().network,
            "rates must settle in a cycle of a: pass Phases(feedforward_steps=...), and a feedforward_eta below 1.",
        ),
        (
            chain(nn.Linear(4, 3), activation="gelu"),
            "activation 'gelu' of population 'hidden1' has no formula for Brian2: give it one, or choose among "
            "identity, tanh, relu, leaky-relu, sigmoid, softplus.",
        ),
    ):
        with pytest.raises(ActrelaxError) as refused:
            Learner(network, rate=0.1)
        assert str(refused.value) == sentence


def test_kolen_pollack_needs_its_decay():
    network = with_feedback(mlp_case().network, "kolen-pollack")
    with pytest.raises(ActrelaxError, match="needs a decay rate"):
        Learner(network, rate=0.1, assumptions="kolen-pollack")


@pytest.mark.parametrize(
    ("phases", "sentence"),
    [
        ({"steps": 0}, "steps must be a whole number, 1 or more, got 0."),
        ({"feedforward_steps": 2**41}, "Brian2 counts at most 2**40 steps, got 2,199,023,255,552: take fewer."),
        ({"feedforward_steps": 0}, "feedforward_steps must be a whole number, 1 or more, got 0."),
        ({"eta": 2.5}, "eta must lie between 0 and 2, got 2.5: take more and smaller steps."),
        ({"feedforward_eta": 0.0}, "feedforward_eta must lie between 0 and 2, got 0.0: take more and smaller"),
    ],
)
def test_phases_out_of_range(phases, sentence):
    with pytest.raises(ActrelaxError) as refused:
        Phases(**phases)
    assert sentence in str(refused.value)


def test_stimuli_and_targets_are_checked_as_in_torch():
    learner = Learner(mlp_case().network, rate=0.1)
    with pytest.raises(ActrelaxError, match=r"the network takes \(batch, 8\), got \(3, 7\)"):
        learner.learn(torch.zeros(3, 7), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ActrelaxError, match="labels must lie between 0 and 3, got 4"):
        learner.learn(torch.zeros(2, 8), torch.tensor([0, 4]))


def test_kinds_of_projection_are_not_mixed_up():
    """Assumptions on convolutions have no effect in a network without convolutions."""
    assumptions = Assumptions(conv=Knobs(activity_gain="none", weight_gain="none"))
    network, other = mlp_case().network, mlp_case().network
    learn_in_brian2(network, *stimuli(network, 5), assumptions)
    learn_in_brian2(other, *stimuli(network, 5), "ar")
    assert distance(network, other) == 0


def test_bad_stimuli_are_refused_and_leave_no_trace():
    network = mlp_case().network
    learner = Learner(network, rate=0.1, phases=SHORT)
    x, y = stimuli(network, 2)
    expected = learner.respond(x)
    for call in (learner.respond, lambda bad: learner.learn(bad, y), lambda bad: learner.watch(bad, y)):
        with pytest.raises(ActrelaxError, match=r"^stimuli must be finite: look for inf and nan in them\.$"):
            call(x * torch.nan)
        with pytest.raises(ActrelaxError, match=r"^stimuli must be a torch\.Tensor, got ndarray: use torch"):
            call(x.numpy())
    dense = torch.nn.functional.one_hot(y, network.populations[network.output].shape[0]).to(x.dtype)
    with pytest.raises(ActrelaxError, match=r"^targets must be finite: look for inf and nan in them\.$"):
        learner.learn(x, dense * torch.nan)
    assert torch.isfinite(learner.respond(x)).all()
    assert (learner.respond(x) - expected).abs().max() < 1e-6


def hooked(network):
    next(network.parameters()).register_hook(lambda gradient: gradient)


def tied(network):
    network.projections["hidden2->hidden3"].weight = network.projections["hidden1->hidden2"].weight


def frozen(network):
    network.projections["input->hidden1"].requires_grad_(False)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (hooked, "has a hook, but weights that learn inside Brian2 have no gradient: remove it"),
        (tied, "projections share a weight, which Brian2 would learn twice"),
        (frozen, "requires_grad has changed since the Learner was made: make a new Learner"),
    ],
)
def test_what_brian2_would_ignore_is_refused(change, sentence):
    network = mlp_case(widths=(8, 6, 6, 6, 4)).network
    learner = Learner(network, rate=0.1, phases=SHORT)
    change(network)
    with pytest.raises(ActrelaxError, match=sentence):
        learner.learn(*stimuli(network, 1))


def test_more_steps_than_brian2_counts_are_refused():
    network = mlp_case().network
    with pytest.raises(ActrelaxError, match=r"^Brian2 counts at most 2\*\*40 steps"):
        Learner(network, rate=0.1, phases=Phases(steps=2**40)).learn(*stimuli(network, 1))
