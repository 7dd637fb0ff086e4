"""The PyTorch engine: steps or the closed form, and the end of a relaxation."""

import pytest
import torch
from networks import exploding_case, mlp_case

from actrelax.models.engines import Steps, TorchOptions, solve
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning import activity_gradients
from actrelax.models.problem import RelaxationProblem
from actrelax.models.results import DivergenceError, relative_error


def problem_of(case, **fields):
    return RelaxationProblem.from_batch(case.network, case.x, case.y, **fields)


def seeded(seed=4):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("own", [True, False], ids=["a generator", "the global one"])
def test_a_diverging_run_is_repeated_with_the_same_noise(own, generator):
    """The error's trajectory equals a shorter run with the same seed."""
    case = exploding_case(generator)
    problem = problem_of(case, assumptions="random-feedback", start="zero", noise={"hidden1": 0.3})

    def run(steps):
        torch.manual_seed(8)
        given = seeded(8) if own else None
        return solve(problem, "euler", steps=steps, eta=0.5, record="hidden1", generator=given)

    with pytest.raises(DivergenceError, match=r'^population "hidden1" became non-finite at step 3 of 50') as caught:
        run(50)
    reached, expected = caught.value.trajectory, run(2)
    assert reached.steps == 2
    assert expected.final["hidden1"].any()
    for name, x in expected.final.items():
        assert torch.equal(reached.final[name], x)
    assert torch.equal(reached["hidden1"], expected["hidden1"])


def test_a_line_that_still_carries_news_is_not_settled():
    """From silence nothing changes until the first delayed signal arrives."""
    case = mlp_case(widths=(8, 7, 5, 4))
    delays, until = {"hidden1->hidden2": 20.0}, Steps.until(1e-6, of="change", dt=0.2, most=1000)
    trajectory = solve(problem_of(case, delays=delays, start="zero"), "euler", until)
    gradients = activity_gradients(case.network, case.x, case.y)
    assert trajectory.time > 20
    assert relative_error(trajectory.final["hidden1"], gradients["hidden1"]) < 1e-3


def test_divergence_with_delays_names_population_and_step(generator):
    case = exploding_case(generator)
    problem = problem_of(case, assumptions="random-feedback", start="zero", delays=1.0)
    with pytest.raises(DivergenceError, match=r'^population "hidden1" became non-finite at step 7 of 50') as caught:
        solve(problem, "euler", steps=50, dt=0.5)
    assert caught.value.trajectory.steps == 6


def test_an_evaluation_that_is_not_known():
    with pytest.raises(ActrelaxError, match=r"^unknown evaluation 'fast'; known: auto, stepped, closed-form\.$"):
        solve(problem_of(mlp_case()), evaluation="fast")


def test_recording_and_stopping_by_the_change_are_stepped():
    problem = problem_of(mlp_case())
    for options, sentence in (
        ({"record": "hidden1"}, "recording needs every step: leave record out, or step the relaxation."),
        (
            {"steps": Steps.until(0.3, of="change", most=500)},
            'of="change" compares successive steps: pass of="activity", or step the relaxation.',
        ),
    ):
        with pytest.raises(ActrelaxError, match=f'^evaluation="closed-form" can\'t be used here: {sentence}$'):
            solve(problem, "euler", evaluation="closed-form", **options)
        trajectory = solve(problem, "euler", **options)
        plain = solve(problem, "euler", trajectory.steps, evaluation="stepped")
        assert trajectory.evaluation == plain.evaluation == "stepped"
        assert all(torch.equal(trajectory.final[v], x) for v, x in plain.final.items())


def test_a_relaxation_that_diverges_is_stepped_to_say_where(generator):
    problem = problem_of(exploding_case(generator), assumptions="random-feedback", start="zero")
    with pytest.raises(DivergenceError) as caught:
        solve(problem, "euler", steps=50, eta=0.5)
    assert str(caught.value).startswith('population "hidden1" became non-finite at step 3 of 50: lower eta')
    unseen = solve(problem, "euler", steps=50, eta=0.5, options=TorchOptions(check_finite=False))
    assert unseen.evaluation == "closed-form"
    assert not torch.isfinite(unseen.final["hidden1"]).all()
