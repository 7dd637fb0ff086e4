"""Numbers, arrays, generators and quantities of NumPy and Brian2 as arguments."""

import numpy as np
import pytest
import torch
from brian2 import ms, mV, second
from networks import mlp_case

from actrelax.analysis.convergence import errors_over_time, predicted_errors, predicted_steps
from actrelax.analysis.fixed_points import scattered
from actrelax.analysis.transients import error_bounds
from actrelax.models._values import as_generator, as_number, as_values, without_unit
from actrelax.models.engines import SciPyOptions, Steps, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import BackwardOptions, Updates, activity_gradients, relax_backward
from actrelax.models.network import build
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import Record


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def test_values_become_pythons_and_torchs():
    found = [as_number(x) for x in (np.float32(0.5), np.array(2), torch.tensor(0.5), 3, 5 * ms / ms, "a")]
    assert found == [0.5, 2, 0.5, 3, 5, "a"]
    array = np.arange(3)
    values = as_values({"a": array, "b": np.float64(1), "c": ms})
    array[:] = 7
    assert values["a"].tolist() == [0, 1, 2]
    assert values["a"].dtype == torch.float64
    assert (values["b"], values["c"] == ms) == (1, True)
    assert as_values(np.ones(2, np.float32)).dtype == torch.float32


def test_generators_of_numpy_and_seeds():
    def drawn(given):
        return torch.rand(1, generator=as_generator(given)).item()

    assert drawn(3) == drawn(np.int64(3)) == drawn(torch.Generator().manual_seed(3))
    assert drawn(np.random.default_rng(3)) == drawn(np.random.default_rng(3)) != drawn(np.random.default_rng(4))
    rng = np.random.default_rng(3)
    assert drawn(rng) != drawn(rng)
    assert drawn(np.random.RandomState(3)) == drawn(np.random.RandomState(3))
    assert as_generator(None) is None


def test_every_generator_may_be_a_seed():
    def noise(given):
        return solve(problem_of(mlp_case(), noise=0.1), "euler", 3, generator=given).final["hidden1"]

    assert torch.equal(noise(5), noise(torch.Generator().manual_seed(5)))
    one, same = (build("digits-mlp", generator=given) for given in (5, torch.Generator().manual_seed(5)))
    assert torch.equal(one(torch.ones(1, 64)), same(torch.ones(1, 64)))
    for network, given in ((one, 6), (same, torch.Generator().manual_seed(6))):
        network.add_feedback("learned-feedback", given)
    assert torch.equal(one.projections["hidden1->output"].feedback, same.projections["hidden1->output"].feedback)
    assert BackwardOptions(generator=np.random.default_rng(0)).generator.get_state() is not None
    case = mlp_case()
    single = RelaxationProblem.from_batch(case.network, case.x[:1], case.y[:1])
    assert len(list(scattered(single, 2, 0))) == 2


@pytest.mark.parametrize("given", [-1, 2**63, 0.5, "0", True, [0]])
def test_what_is_no_generator_is_refused_in_a_sentence(given):
    for call in (
        lambda: solve(problem_of(mlp_case()), "euler", 3, generator=given),
        lambda: build("digits-mlp", generator=given),
        lambda: BackwardOptions(generator=given),
        lambda: mlp_case().network.add_feedback("learned-feedback", given),
    ):
        with pytest.raises(ActrelaxError, match=r"^generator must be a torch\.Generator, .*pass torch\.Generator"):
            call()


def test_arrays_are_taken_like_tensors():
    case = mlp_case()
    tau, sigma, start = (np.linspace(a, b, 7) for a, b in ((0.5, 2), (0.1, 0.2), (0, 1)))
    starts = {name: case.network.feedforward(case.x).activities[name] for name in case.network.hidden}
    starts["hidden1"] = torch.from_numpy(np.tile(start, (len(case.x), 1)))

    def relaxed(convert):
        fields = {"tau": {"hidden1": convert(tau)}, "noise": {"hidden1": convert(sigma)}, "clip": np.array(5.0)}
        begin = {name: convert(x.detach().numpy()) for name, x in starts.items()}
        return solve(problem_of(case, start=begin, **fields), "euler", np.int64(4), dt=np.array(0.2), generator=0).final

    of_arrays, of_tensors = relaxed(lambda x: x), relaxed(torch.from_numpy)
    assert all(torch.equal(x, of_tensors[name]) for name, x in of_arrays.items())


def test_numbers_of_numpy_are_numbers_everywhere():
    assert Steps(3, eta=np.array(0.1)) == Steps(3, eta=0.1)
    assert Steps.until(np.float32(0.5)).tolerance == 0.5
    assert SciPyOptions(rtol=np.array(1e-6)) == SciPyOptions(rtol=1e-6)
    assert Updates({"conv": np.array(2.0)}, np.array(1.0), np.array(0.5)) == Updates({"conv": 2.0}, 1.0, 0.5)


def test_single_precision_means_the_number_that_it_prints():
    """Times are counted in steps: np.float32(0.3) is 0.30000001192."""
    case = mlp_case()
    problem = problem_of(case, delays=np.float32(0.3), tau=np.array(0.7, np.float32))
    assert problem.tau == 0.7
    assert solve(problem, "euler", duration=np.float32(2.1), dt=np.float16(0.1)).steps == 21


@pytest.mark.parametrize(
    "call",
    [
        lambda: problem_of(mlp_case(), tau=True),
        lambda: problem_of(mlp_case(), tau={"hidden1": torch.ones(7, dtype=torch.bool)}),
        lambda: problem_of(mlp_case(), noise={"hidden1": torch.ones(7, dtype=torch.complex128)}),
        lambda: problem_of(mlp_case(), clip=True),
        lambda: problem_of(mlp_case(), input_noise=True),
        lambda: problem_of(mlp_case(), delays=True),
        lambda: Steps(True),
        lambda: Steps(3, eta=True),
        lambda: Record(every=True),
        lambda: Updates(clip=True),
    ],
)
def test_true_is_no_number(call):
    with pytest.raises(ActrelaxError, match=r"must be .*, got "):
        call()


@pytest.mark.parametrize(("name", "value"), [("clip", "1"), ("decay", "1"), ("decay", -1), ("factors", {"conv": None})])
def test_updates_that_are_no_numbers(name, value):
    with pytest.raises(ActrelaxError, match=r"must be (0 or )?(positive|a number), got"):
        Updates(**{name: value})


def test_brian2s_quantities_are_times_in_ms():
    case = mlp_case()
    plain = solve(problem_of(case, tau=10.0, delays=2.0), "euler", dt=0.5, duration=20.0, record=True)
    fields = {"tau": dict.fromkeys(case.network.hidden, 10 * ms), "delays": 0.002 * second}
    problem = problem_of(case, **fields)
    timed = solve(problem, "euler", Steps(dt=0.5 * ms, duration=20 * ms), record=True)
    assert torch.equal(timed["hidden1"], plain["hidden1"])
    assert (timed.times[-1], timed.dt) == (20.0, 0.5)
    units = [t.to_xarray()["time"].attrs["units"] for t in (plain, timed)]
    assert units == ["the unit of tau", "ms"]
    assert repr(Steps(dt=0.5 * ms)) == "Steps(dt=0.5, unit='ms')"
    per_neuron = problem_of(case, tau={**fields["tau"], "hidden1": np.arange(3, 10) / 10 * ms})
    assert per_neuron.taus.of("hidden1").tolist() == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    gradients = activity_gradients(case.network, case.x, case.y)
    quick = problem_of(case, tau=10 * ms)
    assert predicted_errors(quick, gradients, "euler", dt=1 * ms, at=[5]) == predicted_errors(
        quick, gradients, "euler", dt=1.0, at=[5]
    )
    relax_backward(case.network, case.x, case.y, dt=1 * ms, duration=20 * ms, tau=10 * ms)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: problem_of(mlp_case(), tau=10 * mV), r"^tau must be a time, got .*: give 10 \* ms, or 10\.0"),
        (lambda: problem_of(mlp_case(), tau=10 * ms, delays=1.0), r"^tau is a Brian2 quantity and delays is a number"),
        (lambda: problem_of(mlp_case(), delays=1 * ms), r"^delays is a Brian2 quantity and tau is a number: give all"),
        (lambda: problem_of(mlp_case(), tau={"hidden1": 10 * ms}), r"but not for 'hidden3': add 'hidden3' to tau\.$"),
        (lambda: problem_of(mlp_case(), time_unit="s"), r"^unknown time_unit 's'; known: ms\.$"),
        (lambda: problem_of(mlp_case(), noise=0.1 * mV), r"^noise of 'hidden3' must be a number or a tensor, got"),
        (lambda: Steps(dt=1 * ms, duration=20), r"^dt is a Brian2 quantity and duration is a number"),
        (lambda: Steps(eta=1 * ms), r"^eta must be a positive number, got"),
        (
            lambda: solve(problem_of(mlp_case()), dt=1 * ms),
            r"^dt is a Brian2 quantity, but the problem's tau is a numb",
        ),
        (lambda: predicted_errors(problem_of(mlp_case()), {}, "euler", dt=1 * ms, at=[1]), r"^dt is a Brian2 quantity"),
    ],
)
def test_quantities_that_are_refused(call, sentence):
    with pytest.raises(ActrelaxError, match=sentence):
        call()


def test_a_time_of_zero_needs_no_unit():
    assert without_unit(tau=2 * ms, delays=0) == ({"tau": 2.0, "delays": 0}, "ms")
    assert without_unit(tau=2, delays=None) == ({"tau": 2, "delays": None}, None)


def test_gradients_of_some_populations():
    case = mlp_case()
    problem, exact = problem_of(case), activity_gradients(case.network, case.x, case.y)
    some = {"hidden2": exact["hidden2"].numpy()}
    for found in (
        lambda given: predicted_errors(problem, given, "euler", dt=0.1, at=[3]),
        lambda given: predicted_steps(problem, given, "euler", dt=0.1, tolerance=0.1),
        lambda given: {v: x.tolist() for v, x in errors_over_time(problem, given, "euler", 3).recorded.items()},
        lambda given: {v: x.tolist() for v, x in solve(problem, "euler", 3, record=True).error(given).items()},
    ):
        assert found(some) == {"hidden2": found(exact)["hidden2"]}
        with pytest.raises(ActrelaxError, match=r"^gradients names an unknown population 'hidden9'; known: .*hidden1"):
            found({"hidden9": exact["hidden2"]})
    with pytest.raises(ActrelaxError, match=r"^gradients must cover all hidden populations, got none for hidden1, "):
        error_bounds(problem, some)
    with pytest.raises(ActrelaxError, match=r"^the gradient of 'hidden2' must have shape \(3, 6\), got \(2,\)\.$"):
        predicted_errors(problem, {"hidden2": torch.ones(2)}, "euler", dt=0.1, at=[3])
