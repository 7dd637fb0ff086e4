"""`actrelax relax` as a user sees it: files, output and refused options."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from outcomes import is_drawn

from actrelax.analysis.files import claimed
from actrelax.models.engines.request import SolveRequest
from actrelax.models.results import open_trajectory, relative_error
from actrelax.simulations import cli, relax
from actrelax.simulations.training.experiment import Model
from actrelax.simulations.training.hardware import Hardware
from actrelax.simulations.training.problem_options import ProblemOptions, make_sample
from actrelax.simulations.training.relaxation import Relaxation

SMALL = ["--network", "mlp-4x6", "--steps", "12", "--eta", "0.2"]


def run(*arguments):
    return cli.main(["relax", *map(str, arguments)])


def sample_of(npz, **changes):
    options = ProblemOptions(dataset=str(npz), model=Model("mlp-4x6"), **changes)
    return make_sample(options, Relaxation().knobs, Hardware(precision="fp64").resolved())


def test_writes_what_it_says(npz, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    assert run(*SMALL, "--dataset", npz, "--integrator", "euler", "--out", out) == 0
    said = capsys.readouterr()
    assert sorted(path.name for path in out.iterdir()) == ["relaxation.png", "trajectory.nc"]
    assert is_drawn(out / "relaxation.png")
    lines = said.out.splitlines()
    assert lines[0].startswith("RelaxationProblem(1x8x8-6-6-6-10, batch 2, tau 1,")
    assert lines[0].endswith("on tiny")
    assert lines[1].startswith("Trajectory(completed after 12 steps of 0.2 by euler on torch, stepped, 13 recorded)")
    assert lines[-1] == f"trajectory and figure: {out}"
    for line in lines[4:7]:
        _, error, predicted = line.split()
        assert error == predicted
    assert said.err == ""
    sample = sample_of(npz)
    gradients = sample.gradients()
    with open_trajectory(out / "trajectory.nc") as dataset:
        assert dataset.sizes["time"] == 13
        assert dataset.attrs["integrator"] == "euler"
        start = sample.network.feedforward(sample.x).activities["hidden2"]
        assert np.allclose(dataset["hidden2"][0], start.detach())
        last = torch.as_tensor(dataset["hidden2"][-1].values)
        assert f"{relative_error(last, gradients['hidden2'].detach()):.3e}" == lines[5].split()[1]


def test_json_is_alone_on_standard_output(npz, tmp_path, capsys):
    assert run(*SMALL, "--dataset", npz, "--out", tmp_path, "--json", "--every", 5) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["engine"], found["integrator"], found["steps"], found["dt"]) == ("torch", "sequential", 12, 0.2)
    assert (found["out"], found["status"]) == (str(tmp_path), "completed")
    assert list(found["error"]) == ["hidden1", "hidden2", "hidden3"]
    # at step 12, the end, not at step 10, the last recorded one
    assert found["error"] == pytest.approx(found["predicted_error"], rel=1e-9)
    with open_trajectory(tmp_path / "trajectory.nc") as dataset:
        assert dataset["time"].values == pytest.approx([0, 1, 2])


@pytest.mark.parametrize(
    ("integrator", "engine"), [("scipy:DOP853", "scipy"), ("brian2:rk4", "brian2"), ("rk4", "torch")]
)
def test_any_integrator(npz, tmp_path, capsys, integrator, engine):
    assert run(*SMALL, "--dataset", npz, "--integrator", integrator, "--out", tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["engine"], found["integrator"]) == (engine, integrator)
    assert found["error"] == pytest.approx(found["predicted_error"], rel=1e-5)
    with open_trajectory(tmp_path / "trajectory.nc") as dataset:
        assert dataset.sizes["time"] == 13


def test_an_engine_for_our_own_scheme(npz, tmp_path, capsys):
    errors = []
    for engine in ("torch", "brian2"):
        options = ["--integrator", "euler", "--engine", engine, "--out", tmp_path, "--json"]
        assert run(*SMALL, "--dataset", npz, *options) == 0
        errors.append(json.loads(capsys.readouterr().out)["error"])
    assert errors[1] == pytest.approx(errors[0], rel=1e-9)


def test_no_prediction_without_a_law(npz, tmp_path, capsys):
    options = ["--dataset", npz, "--out", tmp_path, "--integrator", "euler"]
    assert run(*SMALL, *options, "--assumptions", "unfrozen") == 0
    said = capsys.readouterr().out
    assert "predicted" not in said
    assert (
        "no prediction: the closed form needs frozen gains: a current activity gain makes the relaxation nonlinear."
        in said
    )
    assert run(*SMALL, *options, "--delay", 0.4, "--json") == 0
    assert json.loads(capsys.readouterr().out)["predicted_error"] is None


def test_options_change_the_relaxation(npz, tmp_path, capsys):
    def error(*changes):
        options = ["--dataset", npz, "--out", tmp_path, "--integrator", "euler", "--json"]
        assert run(*SMALL, *options, *changes) == 0
        return json.loads(capsys.readouterr().out)["error"]["hidden1"]

    plain = error()
    assert error() == plain
    changes = [["--noise", 0.3], ["--noise", 0.3, "--seed", 1], ["--delay", 0.4], ["--clip", 0.01], ["--seed", 1]]
    changes += [["--feedback-transform", "quantised-3"], ["--start", "zero"], ["--batch-size", 3], ["--steps", 13]]
    changes += [["--assumptions", "random-feedback"], ["--activation", "relu"], ["--loss", "sum-of-squares"]]
    found = [error(*change) for change in changes]
    assert len({plain, *found}) == len(found) + 1
    assert error("--noise", 0.3) == found[0]
    assert error("--input-noise", 0.3) == plain  # the input has no effect during this relaxation


def test_noise_of_the_input_that_no_gain_sees_is_named(npz, tmp_path, capsys):
    arguments = [*SMALL, "--dataset", npz, "--integrator", "euler", "--input-noise", "0.3", "--out", tmp_path]
    assert run(*arguments) == 0
    assert capsys.readouterr().err == (
        "--input-noise has no effect: under ar gains are those of the feedforward pass.\n"
    )
    assert run(*arguments, "--assumptions", "unfrozen") == 0
    assert capsys.readouterr().err == ""


def test_continuous_plasticity_is_held(npz, tmp_path, capsys):
    assert run(*SMALL, "--dataset", npz, "--out", tmp_path, "--assumptions", "continuous") == 0
    said = capsys.readouterr()
    assert said.err == "continuous plasticity is left out: weights stay constant here.\n"
    assert "start 'zero'" in said.out
    assert "predicted" in said.out


def test_a_saved_run(npz, tmp_path, capsys):
    training = ["--dataset", npz, "--network", "mlp-3x7", "--epochs", 1, "--quiet", "--seed", 3]
    training += ["--steps", "auto", "--tolerance", 0.1]  # an option of the training, not of this relaxation
    assert cli.main(["train", *map(str, training), "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert run("--run", tmp_path / "run", "--out", tmp_path / "out", "--steps", 5) == 0
    said = capsys.readouterr().out
    assert said.startswith("RelaxationProblem(1x8x8-7-7-10, batch 2,")
    assert f"on tiny, network of {tmp_path / 'run'}\n" in said
    assert relax.defaults(["--run", str(tmp_path / "run")]).problem.seed == 3


def test_a_run_keeps_its_network(npz, tmp_path, capsys):
    training = ["--dataset", npz, "--network", "mlp-3x7", "--epochs", 1, "--quiet", "--steps", 3]
    assert cli.main(["train", *map(str, training), "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    for option, value in (("--network", "cnn"), ("--activation", "relu"), ("--weight-std", 0.3)):
        assert run("--run", tmp_path / "run", "--out", tmp_path / "out", option, value) == 2
        said = capsys.readouterr().err
        assert said == (f"actrelax relax: --run provides the network: leave {option} out, or leave --run out.\n")
    assert not (tmp_path / "out").exists()
    assert run("--run", tmp_path / "run", "--out", tmp_path / "out", "--network", "mlp-3x7", "--steps", 2) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--integrator", "equilibrium"],
            'actrelax relax shows a relaxation over time, but "equilibrium" takes no time: give another',
        ),
        (
            ["--integrator", "brian2:nix"],
            "integrator 'brian2:nix' names an unknown Brian2 state updater 'nix'; known",
        ),
        (["--engine", "nix"], "unknown engine 'nix'; known: torch, scipy, brian2."),
        (
            ["--engine", "scipy", "--integrator", "euler"],
            '"euler" can\'t be used on scipy here: SciPy runs its own',
        ),
        (["--noise", "1"], '"sequential" can\'t be used here: it does not support noise'),
        (["--codegen", "numpy"], "--codegen is for Brian2, got engine torch: leave it out."),
        (["--every", "0"], "--every must be 1 or more, got 0."),
        (["--every", "13"], "--every must be at most 12, the number of steps, got 13."),
        (["--run", "nix"], "nix holds no run: config.json can't be read."),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_status_2(npz, tmp_path, capsys, arguments, sentence):
    assert run(*SMALL, "--dataset", npz, "--out", tmp_path / "out", *arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"actrelax relax: {sentence}")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (tmp_path / "out").exists()


AGAIN = {
    "noise": ["--integrator", "euler", "--noise", "0.1", "--delay", "0.4", "--assumptions", "random-feedback"],
    "brian2": ["--integrator", "brian2:euler", "--noise", "0.1"],
    "scipy": ["--integrator", "DOP853", "--tau-spread", "0.3", "--dt", "0.2", "--eta", "None"],
    "auto": ["--steps", "auto", "--tolerance", "0.01", "--feedback-transform", "sparse-0.5", "--clip", "0.5"],
}


OWN = """
from torch import nn

from actrelax import Network, Projection


def net(input_shape, classes):
    below = Projection("input", "L2/3", nn.Flatten(), nn.Linear(64, 5))
    above = Projection("L2/3", "output", nn.Linear(5, classes))
    return Network(input_shape, {"L2/3": "tanh", "output": "identity"}, [below, above])
"""


@pytest.mark.parametrize("integrator", ["euler", "DOP853", "brian2:rk4"])
def test_a_name_that_files_lack_is_refused_before_the_relaxation(npz, tmp_path, capsys, monkeypatch, integrator):
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.setattr(SolveRequest, "time", lambda self, step: pytest.fail("relaxed") if step else 0.0)
    arguments = ["--network", tmp_path / "own.py:net", "--dataset", npz, "--integrator", integrator]
    assert run(*arguments, "--out", tmp_path / "new") == 2
    assert capsys.readouterr().err.startswith("actrelax relax: NetCDF does not allow the name 'L2/3': begin with")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("options", AGAIN.values(), ids=AGAIN)
def test_again_from_the_file_alone(npz, tmp_path, capsys, options):
    assert (
        run(*SMALL, "--dataset", npz, *options, "--every", 3, "--seed", 4, "--json", "--out", tmp_path / "first") == 0
    )
    first = json.loads(capsys.readouterr().out)
    npz.unlink()
    file = (tmp_path / "first" / "trajectory.nc").rename(tmp_path / "sent.nc")
    assert run("--again", file, "--out", tmp_path / "second", "--json") == 0
    assert json.loads(capsys.readouterr().out) == first | {"out": str(tmp_path / "second")}
    with open_trajectory(file) as one, open_trajectory(tmp_path / "second" / "trajectory.nc") as other:
        assert one.identical(other)
    assert is_drawn(tmp_path / "second" / "relaxation.png")


def test_again_takes_nothing_else(tmp_path, npz, capsys):
    assert run(*SMALL, "--dataset", npz, "--out", tmp_path) == 0
    file = tmp_path / "trajectory.nc"
    before = file.read_bytes()
    for options, said in (
        (
            ["--again", file, "--steps", 3],
            "--again takes all options from its file: give only --out, --html, --samples, --ledger and --json with it.",
        ),
        (
            ["--again", file, "--out", tmp_path],
            f"--again would replace its own file {file}: give another --out.",
        ),
        (["--again", tmp_path / "nix.nc"], f"{tmp_path / 'nix.nc'} holds no problem to relax again: it is missing,"),
    ):
        assert run(*options) == 2
        assert capsys.readouterr().err.startswith(f"actrelax relax: {said}")
    assert file.read_bytes() == before


def test_one_relaxation_writes_into_a_folder_at_a_time(npz, tmp_path, capsys):
    out = tmp_path / "out"
    with claimed(out):
        assert run(*SMALL, "--dataset", npz, "--out", out) == 2
    assert capsys.readouterr().err.startswith(f"actrelax relax: another process is writing into {out}: wait until")
    assert not out.exists()


def test_a_page_beside_the_trajectory(npz, tmp_path, capsys):
    pytest.importorskip("bokeh", reason="there is no bokeh to draw charts with")
    file, page, again = tmp_path / "out" / "trajectory.nc", tmp_path / "pages" / "one.html", tmp_path / "again.html"
    options = ["--dataset", npz, "--batch-size", 3, "--samples", 2, "--every", 3, "--out", tmp_path / "out"]
    assert run(*SMALL, *options, "--html", page) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == [f"page, to open in a browser: {page}", "", f"trajectory and figure: {tmp_path / 'out'}"]
    text = page.read_text()
    assert "A relaxation of 2 images" in text
    assert "5 recorded" in text
    assert "on tiny" in text
    assert run("--again", file, "--html", again, "--samples", 2, "--json", "--out", tmp_path / "second") == 0
    assert json.loads(capsys.readouterr().out)["html"] == str(again)
    data = [re.search(r'"populations": .*', each.read_text()).group() for each in (page, again)]
    assert data[0] == data[1]


def test_pages_that_are_refused(npz, tmp_path, capsys, monkeypatch):
    pytest.importorskip("bokeh", reason="there is no bokeh to draw charts with")
    page, options = tmp_path / "page.html", [*SMALL, "--dataset", npz, "--out", tmp_path / "out"]
    many = ["--steps", 1_000_000, "--html", page]
    for changes, said in (
        (["--samples", 1], "--samples needs --html: give --html FILE, or leave --samples out."),
        (["--samples", 3, "--html", page], "--samples must be between 1 and 2, got 3."),
        (["--samples", 0, "--html", page], "--samples must be between 1 and 2, got 0."),
        (["--html", tmp_path], f"can't write to {tmp_path}: Is a directory."),
        (["--html", npz / "page.html"], f"can't write to {npz}: Not a directory."),
        (many, "a page of 1,000,001 times and 2 samples would have 161 MB, and 25 MB are allowed: show fewer times "),
    ):
        assert run(*options, *changes) == 2
        assert capsys.readouterr().err.startswith(f"actrelax relax: {said}")
    monkeypatch.setitem(sys.modules, "bokeh", None)
    assert run(*options, "--html", page) == 2
    assert capsys.readouterr().err == 'actrelax relax: --html needs the package bokeh: pip install "bokeh>=3.6".\n'
    assert [path.name for path in tmp_path.iterdir() if path != npz] == []


def test_any_image_and_any_knobs(npz, tmp_path, capsys):
    def states(*options):
        assert run(*SMALL, "--integrator", "euler", "--out", tmp_path / "out", *options) == 0
        capsys.readouterr()
        with open_trajectory(tmp_path / "out" / "trajectory.nc") as dataset:
            return {name: dataset[name].values for name in ("hidden1", "hidden3")}

    three = states("--dataset", npz, "--batch-size", 3)
    second = states("--dataset", npz, "--batch-size", 1, "--first", 2)
    for name, found in second.items():
        assert np.allclose(found[:, 0], three[name][:, 2], rtol=1e-12)
        assert np.abs(three[name][:, 1] - three[name][:, 2]).max() > 1e-3
    named, spelled = (
        states("--dataset", npz, "--assumptions", each)
        for each in ("no-derivatives-relaxation", "ar,dense.activity-gain=none,conv.activity-gain=none")
    )
    assert np.array_equal(named["hidden1"], spelled["hidden1"])
    projections = [p.name for p in sample_of(npz).network.projections.values() if p.source != "input"]
    lifts = [word for name in projections for word in ("--lift", f"{name}.activity-gain=none")]
    assert np.array_equal(named["hidden1"], states("--dataset", npz, *lifts)["hidden1"])
    first = states("--dataset", npz, *lifts[:2])["hidden1"]
    assert not np.array_equal(named["hidden1"], first)
    assert run(*SMALL, "--lift", f"{projections[0]}!.feedback=sign", "--dataset", npz) == 2
    assert f"assumptions name an unknown projection '{projections[0]}!'; known: {projections[0]}, " in (
        capsys.readouterr().err
    )
    assert np.abs(named["hidden1"][:, 0] - three["hidden1"][:, 0]).max() > 1e-3


def test_a_captured_network(npz, tmp_path, capsys):
    """The law's prediction and the error against autograd agree, with relays."""
    options = ["--network", "digits-vit", "--width", 8, "--dataset", npz, "--steps", 30, "--out", tmp_path / "out"]
    assert run(*options) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines[4:-2]]
    assert table[0][0] == "patches"
    assert len(table) == 17
    assert all(error == predicted for _, error, predicted in table)
    with open_trajectory(tmp_path / "out" / "trajectory.nc") as dataset:
        assert dataset["blocks.0.qkv"].shape == (31, 2, 17 * 8)
    assert run("--again", tmp_path / "out" / "trajectory.nc", "--out", tmp_path / "again") == 2
    assert capsys.readouterr().err.endswith("can't be relaxed again: a file can't hold the module VisionTransformer.\n")
    for engine in (["--engine", "brian2", "--integrator", "euler"], ["--integrator", "RK45"]):
        assert run(*options, *engine) == 0
        table = [line.split() for line in capsys.readouterr().out.splitlines()[4:-2]]
        assert len(table) == 17
        assert all(error == predicted for _, error, predicted in table)


RECURRENT = ["--network", "digits-rec", "--steps", "40", "--eta", "0.5"]


def test_both_phases_of_a_network_with_cycles(npz, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(*RECURRENT, "--dataset", npz, "--integrator", "euler", "--out", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(path.name for path in out.iterdir()) == ["forward.nc", "relaxation.png", "trajectory.nc"]
    assert is_drawn(out / "relaxation.png")
    assert lines[0].startswith("ForwardProblem(1x8x8-32-10, batch 2, tau 1, start 'zero') on tiny")
    assert lines[1].startswith("Trajectory(completed after 40 steps of 0.5 by euler on torch, stepped, 41 recorded)")
    assert lines[3].split() == ["population", "error", "of", "the", "rates"]
    printed = {line.split()[0]: line.split()[1] for line in lines[4:6]}
    assert list(printed) == ["hidden1", "output"]
    assert lines[7].startswith("RelaxationProblem(1x8x8-32-10, batch 2,")
    with open_trajectory(out / "forward.nc") as forward, open_trajectory(out / "trajectory.nc") as backward:
        assert forward.sizes["time"] == backward.sizes["time"] == 41
        assert not forward["hidden1"][0].any()
        assert not backward["hidden1"][0].any()
        rates, gradients = (
            torch.as_tensor(forward["hidden1"][-1].values),
            torch.as_tensor(backward["hidden1"][-1].values),
        )
    sample = make_sample(
        ProblemOptions(dataset=str(npz), model=Model("digits-rec")),
        Relaxation().knobs,
        Hardware(precision="fp64").resolved(),
    )
    assert f"{relative_error(rates, sample.rates.activities['hidden1'].detach()):.3e}" == printed["hidden1"]
    assert relative_error(rates, sample.rates.activities["hidden1"]) < 1e-3
    assert relative_error(gradients, sample.gradients()["hidden1"]) < 1e-2


@pytest.mark.parametrize("integrator", ["DOP853", "brian2:rk4", "sequential"])
def test_both_phases_on_any_engine(npz, tmp_path, capsys, integrator):
    options = ["--network", "conv-rec", "--steps", 40, "--eta", 0.5, "--dataset", npz, "--integrator", integrator]
    assert run(*options, "--every", 4, "--json", "--out", tmp_path / "out") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["forward"]["engine"] == found["engine"]
    assert list(found["forward"]["error"]) == ["conv1", "conv2", "output"]
    assert max([*found["forward"]["error"].values(), *found["error"].values()]) < 1e-3
    assert run("--again", tmp_path / "out" / "trajectory.nc", "--json", "--out", tmp_path / "again") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["error"] == pytest.approx(found["error"], rel=1e-6)
    assert again["forward"] is None
    assert run("--again", tmp_path / "out" / "forward.nc", "--out", tmp_path / "again") == 2
    assert "--again repeats a relaxation, and " in capsys.readouterr().err


def test_phases_that_settle(npz, tmp_path, capsys):
    options = ["--network", "hierarchy", "--dataset", npz, "--steps", "auto", "--tolerance", 1e-5, "--eta", 0.5]
    assert run(*options, "--json", "--out", tmp_path / "out") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["forward"]["status"]) == ("settled", "settled")
    assert max([*found["forward"]["error"].values(), *found["error"].values()]) < 1e-4


POOLED = """
from torch import nn

from actrelax import Network, Projection


def net(input_shape, classes):
    projections = [
        Projection("input", "maps", nn.Conv2d(input_shape[0], 2, 3, padding=1), nn.MaxPool2d(2)),
        Projection("maps", "maps", nn.Conv2d(2, 2, 3, padding=1, bias=False)),
        Projection("maps", "output", nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, classes)),
    ]
    return Network(input_shape, {"maps": "tanh", "output": "identity"}, projections)
"""


def test_the_forward_phase_can_have_steps_of_its_own(npz, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("--dataset", npz, *RECURRENT, "--settle-steps", 7, "--settle-eta", 0.25, "--out", out) == 0
    with open_trajectory(out / "forward.nc") as forward, open_trajectory(out / "trajectory.nc") as backward:
        assert (forward.steps, forward.dt, backward.steps, backward.dt) == (7, 0.25, 40, 0.5)
    assert run("--dataset", npz, "--network", "digits-mlp", "--settle-steps", 7, "--out", out) == 2
    assert "--settle-steps needs a network with cycles, but digits-mlp has none" in capsys.readouterr().err


def test_a_forward_phase_with_max_pooling_runs_on_pytorch(npz, tmp_path, capsys):
    (tmp_path / "own.py").write_text(POOLED)
    options = ["--network", tmp_path / "own.py:net", "--dataset", npz, "--integrator", "brian2:euler", "--json"]
    assert run(*options, "--out", tmp_path / "out") == 0
    said = capsys.readouterr()
    assert said.err == (
        "the forward phase runs by sequential on torch: max pooling routes by the rates of the moment in the forward "
        'phase: pass engine="torch".\n'
    )
    assert json.loads(said.out)["forward"]["engine"] == "torch"
    assert json.loads(said.out)["engine"] == "brian2"


def test_a_drawing(tmp_path, capsys):
    pixels = [0, 5, 15] * 21 + [10]
    drawing = "".join(f"{x:x}" for x in pixels)
    options = ["--network", "digits-cnn", "--steps", 3, "--drawing", drawing, "--label", 4, "--batch-size", 1]
    assert run(*options, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("on a drawing")
    chosen = ProblemOptions(drawing=drawing, label=4, model=Model("digits-cnn"))
    sample = make_sample(chosen, Relaxation().knobs, Hardware(precision="fp64").resolved())
    assert sample.x.flatten().tolist() == pytest.approx([x / 15 for x in pixels])
    assert sample.x.shape == (1, 1, 8, 8)
    assert sample.y.tolist() == [4]
    start = sample.network.feedforward(sample.x).activities["conv2"]
    with open_trajectory(tmp_path / "out" / "trajectory.nc") as dataset:
        assert np.allclose(dataset["conv2"][0], start.detach().flatten(1))
    for changes, said in (
        (["--drawing", "00"], "--drawing takes 64 digits from 0 to f, one per pixel of the network's images, got 2 "),
        (["--drawing", "F" * 64], "--drawing takes 64 digits from 0 to f, one per pixel of the network's images, got "),
        (["--first", 3], "--drawing is one image: leave --first and --batch-size out."),
        (["--label", 10], "--label must be between 0 and 9, got 10."),
        (
            ["--network", "cnn"],
            "--drawing is grey, but the network's images of shape (3, 32, 32) have colours: leave it out.",
        ),
    ):
        assert run(*options, *changes) == 2
        assert capsys.readouterr().err.startswith(f"actrelax relax: {said}")
    assert run("--network", "digits-cnn", "--label", 3) == 2
    assert "--label needs --drawing: give --drawing, or leave --label out." in capsys.readouterr().err


@pytest.mark.parametrize("network", ["mlp-4x6", "digits-resnet-8", "digits-rec"])
def test_the_ledger_says_what_an_update_would_use(network, npz, tmp_path, capsys):
    options = ["--network", network, "--dataset", npz, "--integrator", "euler", "--steps", 3, "--out", tmp_path]
    assert run(*options, "--ledger") == 0
    said = capsys.readouterr().out
    assert "  projection " in said
    assert "  not local       " in said
    assert said.splitlines()[-1] == f"trajectory and figure: {tmp_path}"
    assert run(*options, "--ledger", "--json") == 0
    ledger = json.loads(capsys.readouterr().out)["ledger"]
    by_autograd = {entry["by_autograd"] for entry in ledger["entries"]}
    assert by_autograd == ({True, False} if network == "digits-resnet-8" else {False})
    assert ledger["phases"][0] == ("rates settle" if network == "digits-rec" else "forward pass")
    assert "weight transport" in ledger["not_local"]
    assert run(*options, "--json") == 0
    assert json.loads(capsys.readouterr().out)["ledger"] is None


def test_the_ledger_of_lifted_assumptions_and_of_a_relaxation_from_its_file(npz, tmp_path, capsys):
    options = [*SMALL, "--dataset", npz, "--assumptions", "random-feedback", "--ledger", "--json"]
    assert run(*options, "--out", tmp_path / "first") == 0
    first = json.loads(capsys.readouterr().out)["ledger"]
    assert first["not_local"] == []
    assert {entry["feedback"] for entry in first["entries"]} == {"", "fixed psi"}
    assert run("--again", tmp_path / "first" / "trajectory.nc", "--out", tmp_path / "second", "--ledger", "--json") == 0
    assert json.loads(capsys.readouterr().out)["ledger"] == first


def test_a_residual_network(tmp_path, capsys):
    """Errors follow the closed form, in the table and in the figure."""
    assert run("--network", "digits-resnet-8", "--width", 4, "--steps", 20, "--eta", 0.2, "--out", tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"relaxation.png", "trajectory.nc"}
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    errors = [(row[1], row[2]) for row in rows if len(row) == 3 and "e" in row[1] and row[1][0].isdigit()]
    assert len(errors) >= 7
    assert all(measured == predicted for measured, predicted in errors)
