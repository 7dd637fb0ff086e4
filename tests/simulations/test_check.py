"""`actrelax check` as a user sees it: table, JSON, exit status, and remarks on omitted entries."""

import json
from dataclasses import replace

import pytest

from actrelax.models.engines import INTEGRATORS
from actrelax.models.engines.brian2 import targets
from actrelax.simulations import cli

SMALL = ["--network", "mlp-4x6"]
FAST = [*SMALL, "--engine", "torch"]


def run(*arguments):
    return cli.main(["check", *map(str, arguments)])


def rows_of(capsys):
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["ok", "rows"]
    return report["rows"]


def test_everything_agrees(npz, capsys):
    assert run(*SMALL, "--dataset", npz, "--json") == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    rows = report["rows"]
    assert report["ok"] is True
    assert list(rows[0]) == ["engine", "integrator", "reference", "population", "error", "bound", "ok"]
    assert {row["engine"] for row in rows} == {"torch", "scipy", "brian2", "closed-form"}
    assert {row["population"] for row in rows} == {"hidden1", "hidden2", "hidden3"}
    assert all(row["ok"] and row["error"] <= row["bound"] for row in rows)
    assert {row["bound"] for row in rows} == {1e-10, 1e-8, 1e-4}
    assert "brian2 leaves out sequential, heun, rk4, exact, equilibrium: Brian2 has no such integrator" in said.err
    assert "RelaxationProblem(1x8x8-6-6-6-10, batch 2, tau 1, start 'feedforward'," in said.err


def test_a_captured_network_agrees(npz, capsys):
    """On all engines; BatchNorm mixes the samples of the batch."""
    assert run("--network", "digits-resnet-8", "--width", 2, "--dataset", npz, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert {row["engine"] for row in report["rows"]} == {"torch", "scipy", "brian2", "closed-form"}
    assert {row["integrator"] for row in report["rows"]} > set(INTEGRATORS)
    assert {"autograd", "binomial law", "Poisson law"} < {row["reference"] for row in report["rows"]}
    exact = [row["error"] for row in report["rows"] if row["bound"] == 1e-10]
    assert max(exact) < 1e-12


def test_a_network_with_cycles(npz, capsys):
    """Both phases agree on all engines, with backprop through steps, and with each other's spectrum."""
    assert run("--network", "digits-rec", "--dataset", npz, "--json") == 0
    said = capsys.readouterr()
    rows = json.loads(said.out)["rows"]
    found = {(row["integrator"], row["reference"]) for row in rows}
    assert {("equilibrium", "autograd"), ("equilibrium", "sparse solve"), ("euler", "binomial law")} < found
    assert {("euler", "settled rates"), ("scipy:DOP853", "settled rates"), ("euler", "BPTT through 5 steps")} < found
    assert {("J_B", "transpose of J_F"), ("J_B", "eigenvalues of J_F")} < found
    assert {row["engine"] for row in rows} == {"torch", "scipy", "brian2", "closed-form"}
    assert {row["population"] for row in rows if row["reference"] == "settled rates"} >= {"output"}
    assert "forward phase: scipy leaves out euler" in said.err


@pytest.mark.parametrize("network", ["digits-rec", "conv-rec"])
def test_one_integrator_on_a_network_with_cycles(network, npz, capsys):
    assert run("--network", network, "--dataset", npz, "--integrator", "euler", "--json") == 0
    assert {(row["integrator"], row["reference"]) for row in rows_of(capsys)} == {
        ("euler", "settled rates"),
        ("euler", "binomial law"),
        ("euler", "torch euler"),
    }


def test_when_rates_have_settled_is_an_option(npz, capsys):
    options = ["--network", "digits-rec", "--dataset", npz, "--integrator", "euler", "--engine", "torch", "--json"]
    assert run(*options, "--settle-tolerance", "1e-5", "--settle-eta", "0.4") == 0
    rates = [row for row in rows_of(capsys) if row["reference"] == "settled rates"]
    assert all(row["bound"] == pytest.approx(2e-4) for row in rates)
    assert all(row["error"] > 1e-9 for row in rates)
    assert run(*options, "--settle-steps", "4") == 2
    assert "the rates have not settled after 4 steps: give a smaller --settle-eta" in capsys.readouterr().err
    assert run(*FAST, "--dataset", npz, "--settle-eta", "0.4") == 2
    assert "--settle-eta needs a network with cycles, but mlp-4x6 has none: leave it" in capsys.readouterr().err


def test_other_feedback_in_a_cycle(npz, capsys):
    """Random feedback has no gradient of the loss to rest at, and other eigenvalues than the rates."""
    options = ["--network", "digits-rec", "--assumptions", "random-feedback", "--engine", "torch", "--json"]
    assert run(*options, "--dataset", npz) == 0
    references = {(row["integrator"], row["reference"]) for row in rows_of(capsys)}
    assert ("equilibrium", "sparse solve") in references
    assert "autograd" not in {reference for _, reference in references}
    assert not [1 for _, reference in references if "BPTT" in reference or "J_F" in reference]


def test_the_table(npz, capsys):
    assert run(*FAST, "--dataset", npz, "--integrator", "euler") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["engine", "integrator", "compared", "with", *(f"hidden{i}" for i in (1, 2, 3)), "bound"]
    assert lines[1].split()[:4] == ["torch", "euler", "binomial", "law"]
    assert lines[1].split()[-2:] == ["1e-10", "agrees"]
    assert lines[-1] == "the one comparison agrees"


def test_a_wrong_step_is_status_1(npz, capsys, monkeypatch):
    def step(problem, state, dt):
        return {v: x * (1 + 1e-8) for v, x in INTEGRATORS["euler"].step(problem, state, dt).items()}

    monkeypatch.setitem(INTEGRATORS, "sequential", replace(INTEGRATORS["sequential"], step=step))
    assert run(*FAST, "--dataset", npz) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.endswith("DISAGREES")] == ["sequential"]
    assert lines[-1] == "1 of 7 comparisons disagree"
    assert run(*FAST, "--dataset", npz, "--json") == 1
    assert {row["integrator"] for row in rows_of(capsys) if not row["ok"]} == {"sequential"}


def test_it_is_of_full_precision_alone(capsys):
    for options in (["--precision", "bf16"], ["--precision", "tf32"], ["--channels-last"]):
        with pytest.raises(SystemExit) as stopped:
            run(*FAST, *options)
        assert stopped.value.code == 2


def test_single_precision_has_its_own_bound(npz, capsys):
    assert run(*FAST, "--dataset", npz, "--precision", "fp32", "--json") == 0
    rows = rows_of(capsys)
    assert {row["bound"] for row in rows} == {1e-4}
    assert 1e-9 < max(row["error"] for row in rows) < 1e-5


def test_options_reach_the_problem(npz, capsys):
    options = ["--tau", 2, "--start", "zero", "--clip", 3, "--feedback-transform", "sparse-0.5", "--loss"]
    assert run(*FAST, "--dataset", npz, *options, "sum-of-squares", "--batch-size", 5, "--integrator", "euler") == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "actrelax check: nothing can be compared: "
    )  # no closed form with a clip, and only one engine
    assert run(*SMALL, "--dataset", npz, *options, "sum-of-squares", "--engine", "all", "--integrator", "euler") == 0
    said = capsys.readouterr().err
    assert "tau 2, start 'zero', clip 3.0, assumptions 'ar', feedback transform Sparse(probability=0.5" in said
    assert run(*FAST, "--dataset", npz, "--tau-spread", 0.3, "--json") == 2
    assert "eta is dt/tau and needs one tau, but the problem has several: give dt." in capsys.readouterr().err


@pytest.mark.parametrize("assumptions", ["random-feedback", "no-derivatives"])
def test_other_assumptions_are_compared_with_a_sparse_solve(npz, capsys, assumptions):
    options = ["--assumptions", assumptions, "--integrator", "equilibrium", "--json"]
    assert run(*FAST, "--dataset", npz, *options) == 0
    assert {row["reference"] for row in rows_of(capsys)} == {"sparse solve"}


def test_continuous_plasticity_is_held(npz, capsys):
    assert run(*FAST, "--dataset", npz, "--assumptions", "continuous") == 0
    said = capsys.readouterr()
    assert "continuous plasticity is left out: weights stay constant here.\n" in said.err
    assert "binomial law" in said.out
    assert "start 'zero'" in said.err


def test_noise(npz, capsys, monkeypatch):
    options = [*SMALL, "--dataset", npz, "--noise", 0.3, "--json"]
    assert run(*options) == 0
    rows = rows_of(capsys)
    assert {row["reference"] for row in rows} == {"mean of the scheme", "covariance of the scheme"}
    assert {row["engine"] for row in rows} == {"torch", "brian2"}
    assert run(*options) == 0
    assert rows_of(capsys) == rows
    assert run(*options, "--batch-size", 5) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["rows"] == rows
    assert "--batch-size has no effect: with noise, copies of the first image relax.\n" in said.err
    assert run(*options, "--assumptions", "unfrozen") == 2
    assert capsys.readouterr().err == (
        "actrelax check: a check of noise needs a linear relaxation: leave out noise or current gains.\n"
    )


@pytest.mark.skipif("cython" not in targets(), reason="no compiler")
def test_codegen_may_be_repeated(npz, capsys):
    """Each target has separate rows; an unknown one is refused before anything runs."""
    options = [*SMALL, "--dataset", npz, "--engine", "brian2", "--integrator", "euler", "--json"]
    assert run(*options, "--codegen", "numpy", "--codegen", "cython") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["engine"] for row in rows} == {"brian2", "brian2 (cython)"}
    assert run(*options, "--codegen", "nix") == 2
    assert capsys.readouterr().err.startswith("actrelax check: unknown Brian2 target 'nix'; known: ")
    assert run(*options[:-4], "torch", *options[-3:], "--codegen", "numpy") == 2
    assert "--codegen is for Brian2, got --engine torch: leave it out" in capsys.readouterr().err


def test_a_saved_run(npz, tmp_path, capsys):
    out = tmp_path / "run"
    training = ["--dataset", npz, "--network", "mlp-3x7", "--assumptions", "random-feedback", "--tau", 2, "--seed", 3]
    quick = ["--epochs", 1, "--steps", 2, "--quiet"]
    assert cli.main(["train", *map(str, [*training, *quick, "--out", out])]) == 0
    capsys.readouterr()
    assert run("--run", out, "--engine", "torch") == 0
    said = capsys.readouterr()
    assert said.err.startswith("RelaxationProblem(1x8x8-7-7-10, batch 2, tau 2, start 'feedforward', clip None, ass")
    assert f"assumptions 'random-feedback') on tiny, network of {out}\n" in said.err
    assert "sparse solve" in said.out
    # given options replace the run's options
    assert run("--run", out, "--engine", "torch", "--assumptions", "ar", "--tau", 5) == 0
    said = capsys.readouterr()
    assert "tau 5" in said.err
    assert "autograd" in said.out


def test_random_images_where_no_file_is_at_hand(tmp_path, capsys):
    assert run(*FAST, "--data-dir", tmp_path, "--integrator", "euler") == 0
    said = capsys.readouterr().err
    assert "RelaxationProblem(784-6-6-6-10, batch 2" in said
    assert "on random images\n" in said
    assert run("--network", "digits-skip", "--engine", "torch", "--integrator", "euler") == 0
    assert "on digits\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--engine", "nix"], "unknown engine 'nix'; known: torch, scipy, brian2, closed-form, all."),
        (["--integrator", "nix"], "unknown integrator 'nix'; known: euler, sequential,"),
        (["--integrator", "scipy:nix"], "integrator 'scipy:nix' names an unknown SciPy method 'nix'; known: RK23,"),
        (["--assumptions", "nix"], "unknown assumptions 'nix'; known: ar,"),
        (["--loss", "nix"], "unknown loss 'nix'; known: cross-entropy,"),
        (["--feedback-transform", "nix"], "unknown feedback transform 'nix'; known: sparse-SHARE"),
        (["--batch-size", "0"], "--batch-size must be 1 or more, got 0."),
        (["--noise", "-1"], "--noise must be 0 or more, got -1."),
        (
            ["--delay", "0.3", "--integrator", "euler"],
            "the delay of 'hidden1->hidden2' must be a whole number of dt, got 0.3",
        ),
        (["--network", "mlp-1x3"], "mlp-1x3 has no hidden population to relax: take a deeper network."),
        (["--device", "cuda:99"], "device 'cuda:99' is not available: this machine has cpu"),
        (["--dt", "0.1", "--eta", "0.1"], "--dt and --eta exclude each other: give one of them."),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_status_2(npz, capsys, arguments, sentence):
    assert run(*FAST, "--dataset", npz, *arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"actrelax check: {sentence}")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_float64_on_mps_is_one_sentence(npz, capsys, monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert run(*FAST, "--dataset", npz, "--device", "mps") == 2
    said = capsys.readouterr().err
    assert said == "actrelax check: device 'mps' can't compute in fp64: use fp32, or --device cpu.\n"
