"""`actrelax bench`: its output, its figure, and the measured steps; no time is asserted."""

import itertools
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from actrelax.models.errors import ActrelaxError
from actrelax.models.network import Projection
from actrelax.simulations import bench, cli
from actrelax.simulations.costs import measure, memory
from actrelax.simulations.costs.images import Source, images_for, random_images
from actrelax.simulations.costs.methods import Method, chosen
from actrelax.simulations.costs.timing import TURN, WARM_UP, Stepper, full_batches, step_times
from actrelax.simulations.training.assemble import assemble
from actrelax.simulations.training.batches import Batches, Preprocessing
from actrelax.simulations.training.execution import Execution
from actrelax.simulations.training.experiment import Experiment, Model, Optimisation
from actrelax.simulations.training.forward_phase import ForwardPhase
from actrelax.simulations.training.hardware import Hardware
from actrelax.simulations.training.loop import train

QUICK = ["--networks", "digits-mlp", "--rounds", "5", "--threads", "1"]
TIMED = [*QUICK, "--no-memory"]
COLUMNS = [
    "network",
    "method",
    "steps",
    "auto",
    "dataset",
    "batch_size",
    "milliseconds",
    "quartiles",
    "ratio_to_backprop",
    "images_per_second",
    "peak_memory_bytes",
    "peak_memory_ratio",
]


def run(*arguments):
    return cli.main(["bench", *map(str, arguments)])


def rows_of(capsys):
    report = json.loads(capsys.readouterr().out)
    assert list(report) == ["machine", "rows"]
    assert all(list(row) == COLUMNS for row in report["rows"])
    return report["rows"]


EXECUTION = Execution(threads=1)


@pytest.fixture
def base():
    return Experiment(
        batch_size=6,
        model=Model("digits-mlp"),
        optimisation=Optimisation(lr=0.5),
    )


@pytest.fixture
def data():
    return random_images((1, 8, 8), 10, 20)


def test_json(capsys):
    assert run(*TIMED, "--steps", 3, 200, "--json") == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert said.err == "digits-mlp learns from digits.\n"
    assert {"device", "name", "threads", "precision", "compile", "versions"} <= set(report["machine"])
    found = report["rows"]
    assert [list(row) for row in found] == [COLUMNS] * 8
    assert [(row["method"], row["steps"], row["auto"]) for row in found] == [
        ("backprop", None, False),
        ("autograd", None, False),
        ("closed-form", 3, False),
        ("closed-form", 200, False),
        ("closed-form", 132, True),  # 0.9^n <= 1e-6, one hop from the output
        ("equilibrium", None, False),
        ("stepped", 3, False),
        ("front-door", None, False),
    ]
    assert found[0]["ratio_to_backprop"] == 1
    for row in found:
        low, high = row["quartiles"]
        assert 0 < low <= row["milliseconds"] <= high
        assert row["ratio_to_backprop"] == pytest.approx(row["milliseconds"] / found[0]["milliseconds"])
        assert row["images_per_second"] == pytest.approx(64e3 / row["milliseconds"])
        assert row["peak_memory_bytes"] is row["peak_memory_ratio"] is None


@pytest.mark.filterwarnings("ignore:after 1 steps 0%:UserWarning")
def test_a_captured_network(capsys):
    """By every method, from either start."""
    options = ["--networks", "digits-resnet-8", "--rounds", 5, "--threads", 1, "--no-memory", "--stepped", 1]
    assert run(*options, "--steps", 100, "--start", "zero", "--batch-size", 8, "--json") == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    found = [(row["method"], row["steps"]) for row in report["rows"]]
    assert found == [
        ("backprop", None),
        ("autograd", None),
        ("closed-form", 100),
        ("closed-form", 257),
        ("equilibrium", None),
        ("stepped", 1),
        ("front-door", None),
    ]
    assert "no effect" not in said.err


def test_table_and_figure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "peak_in_own_process", memory.peak)  # a process takes seconds to start
    assert run(*QUICK, "--methods", "stepped", "--stepped", 2, "--out", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["network", "method", "steps", "ms", "ratio", "peak", "MB", "ratio", "images/s"]
    backprop, stepped = (line.split() for line in lines[1:3])
    assert backprop[:2] == ["digits-mlp", "backprop"]
    assert (backprop[3], backprop[5]) == ("1.00", "1.00")
    assert stepped[:3] == ["digits-mlp", "stepped", "2"]
    assert float(stepped[5]) > 0.01
    assert lines[-1] == f"figure: {tmp_path / 'costs.png'}"
    assert (tmp_path / "costs.png").stat().st_size > 5000


def test_a_figure_of_nothing_is_not_drawn(tmp_path, capsys):
    assert run(*TIMED, "--methods", "equilibrium", "--out", tmp_path) == 0
    said = capsys.readouterr()
    assert said.err.endswith(
        "no figure was drawn: it needs a method with a number of steps, or MLPs of several depths.\n"
    )
    assert [line.split()[1] for line in said.out.splitlines()] == ["method", "backprop", "equilibrium"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_what_was_measured_is_not_lost_with_a_figure(tmp_path, capsys, options):
    (tmp_path / "file").touch()
    assert run(*TIMED, "--methods", "stepped", "--steps", 2, "--out", tmp_path / "file", *options) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith(f"actrelax bench: can't write to {tmp_path / 'file' / 'costs.png'}: ")
    assert "stepped" in said.out
    assert "figure" not in said.out
    if options:
        assert len(json.loads(said.out)["rows"]) == 2


def test_memory_in_a_process_of_its_own(base, capsys):
    assert run(*QUICK, "--methods", "backprop", "--batch-size", 6, "--json") == 0
    (row,) = rows_of(capsys)
    assert row["peak_memory_ratio"] == 1
    assert row["peak_memory_bytes"] == memory.peak(Method("backprop"), base, EXECUTION, (1, 8, 8), 10)


def test_options_reach_the_measurement(npz, capsys):
    options = ["--dataset", npz, "--batch-size", 32, "--methods", "stepped", "--precision", "fp64", "--compile", "no"]
    assert run(*TIMED, *options, "--steps", 2, 1000, "--json") == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert (report["machine"]["precision"], report["machine"]["compile"]) == ("fp64", "no")
    assert [(row["method"], row["steps"]) for row in report["rows"]] == [("backprop", None), ("stepped", 2)]
    assert {(row["dataset"], row["batch_size"]) for row in report["rows"]} == {("tiny", 32)}


@pytest.mark.parametrize(("layout", "shape"), [("nchw", (3, 8, 4)), ("nhwc", (4, 3, 8))])
def test_the_layout_of_images_that_can_be_read_in_two_ways(tmp_path, layout, shape):
    path = tmp_path / "two.npz"
    images, labels = np.zeros((9, 3, 8, 4), np.uint8), np.arange(9) % 3
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    hardware = Hardware(device="cpu", threads=1)
    with pytest.raises(ActrelaxError, match="give --layout nchw or nhwc"):
        images_for("digits-mlp", Source(str(path)), 2, hardware)
    assert images_for("digits-mlp", Source(str(path), layout=layout), 2, hardware).input_shape == shape


def test_options_that_have_no_effect_are_named(capsys):
    assert run(*TIMED, "--methods", "equilibrium", "--steps", 7, "--stepped", 5, "--start", "zero") == 0
    said = capsys.readouterr().err
    assert "--start has no effect: none of the methods starts there.\n" in said
    assert "--steps has no effect: none of the methods takes its numbers of steps.\n" in said
    assert "--stepped has no effect: neither stepped nor unrolled is among --methods.\n" in said
    for effective in (["stepped", "--steps", 7], ["closed-form", "--steps", 7], ["stepped", "--stepped", 5]):
        assert run(*TIMED, "--methods", *effective) == 0
        assert "no effect" not in capsys.readouterr().err


@pytest.mark.parametrize(("threads", "rounds"), [(1, 5), (2, 7)])
def test_threads_rounds_and_folder_reach_the_measurement(npz, capsys, monkeypatch, threads, rounds):
    found = []

    def noted(trainings, numbers):
        found.append((torch.get_num_threads(), len(numbers)))
        return [[1.0, 2.0, 3.0] for _ in trainings]

    monkeypatch.setattr(measure, "step_times", noted)
    monkeypatch.setattr(measure, "tqdm", lambda items, **_: items)
    options = ["--dataset", npz.stem, "--data-dir", npz.parent, "--threads", threads, "--rounds", rounds]
    assert run(*TIMED, "--methods", "backprop", *options, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert found == [(threads, WARM_UP + rounds)]
    assert report["machine"]["threads"] == threads
    assert [row["dataset"] for row in report["rows"]] == ["tiny"]


def test_random_images_where_no_file_is_at_hand(tmp_path, capsys):
    assert run(*TIMED, "--networks", "mlp-3x5", "--methods", "backprop", "--data-dir", tmp_path, "--json") == 0
    said = capsys.readouterr()
    assert said.err == "mlp-3x5 learns from random images, because no data set was found.\n"
    assert len(json.loads(said.out)["rows"]) == 1


def test_stepping_a_thousand_times_is_for_those_who_ask():
    config = bench.Config()
    asked = replace(config, stepped=(1000,))
    assert [m.steps for m in bench.resolved(config)[-1] if m.name == "stepped"] == [10, 100]
    assert [m.steps for m in bench.resolved(asked)[-1] if m.name == "stepped"] == [1000]
    assert [m.steps for m in bench.resolved(config)[-1] if m.name == "closed-form"] == [10, 100, 1000, "auto"]


def test_methods_of_a_network_with_cycles(capsys):
    options = ["--networks", "digits-rec", "--rounds", 5, "--threads", 1, "--no-memory", "--stepped", 7]
    assert run(*options, "--batch-size", 8, "--json") == 0
    said = capsys.readouterr()
    found = [(row["method"], row["steps"]) for row in json.loads(said.out)["rows"]]
    assert found == [
        ("backprop", None),
        ("equilibrium", None),
        ("stepped", 7),
        ("front-door", None),
        ("unrolled", 7),
    ]
    for name in ("autograd", "closed-form"):
        assert said.err.count(f"{name} is left out for digits-rec, which has cycles.") == 1


def test_exact_methods_learn_alike_with_cycles(base, data):
    """After 300 steps all have settled; stepped and unrolled take as many forward steps."""
    base = replace(
        base, precision="fp64", model=Model("digits-rec"), forward=ForwardPhase(settle_tolerance=1e-7, settle_steps=900)
    )
    weights = {}
    for method in chosen(("equilibrium", "stepped", "unrolled"), (300,), (300,)):
        training = method.training(base, EXECUTION, data)
        before = torch.cat([p.detach().flatten() for p in training.network.parameters()])
        Stepper(training).step()
        weights[method.name] = torch.cat([p.detach().flatten() for p in training.network.parameters()]) - before
    assert list(weights) == ["backprop", "equilibrium", "stepped", "unrolled"]
    for change in weights.values():
        assert (change - weights["backprop"]).abs().max() < 1e-4 * weights["backprop"].abs().max()


def test_unrolling_calls_as_many_projections_as_stepping_forwards(base, data, monkeypatch):
    base, calls, find = replace(base, model=Model("digits-rec")), [], Projection.find
    monkeypatch.setattr(Projection, "find", lambda p, x: calls.append(p.name) or find(p, x))
    counts = {}
    for name in ("stepped", "unrolled"):
        for steps in (5, 25):
            stepper = Stepper(Method(name, steps).training(base, EXECUTION, data))
            calls.clear()
            stepper.step()
            counts[name, steps] = calls.count("hidden1->hidden1")
    assert counts["stepped", 25] - counts["stepped", 5] == 20
    assert counts["unrolled", 25] - counts["unrolled", 5] == 20


@pytest.mark.parametrize("precision", ["fp64", "bf16"])
def test_all_exact_methods_learn_alike(base, data, precision):
    """At equilibrium all methods update the weights like backprop, so the timed steps are the named ones."""
    base = replace(base, precision=precision)
    methods = chosen(("autograd", "closed-form", "equilibrium", "stepped", "front-door"), (400,), (400,))
    weights = []
    assert {method.relaxation.start for method in chosen(("stepped",), (), (3,), "zero")[1:]} == {"zero"}
    for method in methods:
        stepper = Stepper(method.training(base, EXECUTION, data))
        before = torch.cat([p.detach().flatten() for p in stepper.training.network.parameters()])
        for _ in range(4):
            stepper.step()
        weights.append(torch.cat([p.detach().flatten() for p in stepper.training.network.parameters()]) - before)
    assert [method.name for method in methods[:2]] == ["backprop", "autograd"]
    bound = 1e-5 if precision == "fp64" else 0.05
    for change in weights[1:]:
        assert (change - weights[0]).abs().max() < bound * weights[0].abs().max()


def test_a_step_is_the_trainers(base, data):
    """Three full batches, stepped one by one, give the same weights and totals as `train` on the same images."""
    full = replace(data, train=type(data.train)(data.train.images[:18], data.train.labels[:18]))
    once = replace(base, epochs=1)
    trained = Method("stepped", 5).training(once, EXECUTION, full)
    stepper = Stepper(Method("stepped", 5).training(once, EXECUTION, full))
    for _ in range(3):
        stepper.step()
    assert stepper.training.totals["loss"] > 0
    train(trained)
    for mine, its in zip(stepper.training.network.parameters(), trained.network.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_steps_are_what_differs(base, data):
    changes = []
    for steps in (1, 2):
        training = Method("stepped", steps).training(base, EXECUTION, data)
        Stepper(training).step()
        changes.append(training.network.projections["input->hidden1"].weight.detach().clone())
    assert not torch.equal(*changes)


def test_stepping_is_more_work_the_more_steps_and_the_closed_form_is_not(base, data, monkeypatch):
    """The count is the number of images that a step propagates back through projections; five layers have four hops."""
    deep = replace(base, model=Model("mlp-5x7"))
    untraced = Execution(threads=1, compile="no")  # tracing would hide the calls
    carried, signal = [], Projection.feedback_from_weights
    monkeypatch.setattr(
        Projection, "feedback_from_weights", lambda *args: carried.append(len(args[1])) or signal(*args)
    )

    def work(*method):
        stepper = Stepper(Method(*method).training(deep, untraced, data))
        carried.clear()
        stepper.step()
        return sum(carried) / deep.batch_size

    assert [work("stepped", steps) for steps in (10, 100, 1000)] == [40, 400, 4000]
    assert [work("closed-form", steps) for steps in (10, 100, 1000)] == [6, 6, 6]
    assert work("closed-form", "auto") == work("equilibrium") == work("front-door") == 4
    assert work("backprop") == work("autograd") == 0


def test_batches_are_full_and_never_end(data):
    batches = Batches(data, Preprocessing(torch.float32), 6, seed=0)
    stream = full_batches(batches)
    found = [next(stream) for _ in range(7)]
    assert {len(batch.labels) for batch in found} == {6}
    first = [batch.labels for batch in batches.epoch(1)][:3]
    second = [batch.labels for batch in batches.epoch(2)][:3]
    assert all(torch.equal(a.labels, b) for a, b in zip(found, first + second, strict=False))


def test_methods_take_turns(base, data, monkeypatch):
    """A turn has warm-up steps and measured steps; warm-up rounds are not measured."""
    trainings = [Method(name).training(base, EXECUTION, data) for name in ("backprop", "equilibrium")]
    taken = []
    step = Stepper.step

    def noted(self):
        taken.append(trainings.index(self.training))
        step(self)

    monkeypatch.setattr(Stepper, "step", noted)
    times = step_times(trainings, range(WARM_UP + 2))
    turns = [(index, len(list(steps))) for index, steps in itertools.groupby(taken)]
    assert turns == [(0, 2 + TURN), (1, 2 + TURN)] * (WARM_UP + 2)
    assert [len(mine) for mine in times] == [2] * 2


def test_a_time_is_that_of_one_step(base, data, monkeypatch):
    """The time is the mean over a turn, not its total, against the steps' own clock."""
    slept = []

    def sleep(_):
        begin = time.perf_counter()
        time.sleep(0.05)
        slept.append(time.perf_counter() - begin)

    monkeypatch.setattr(Stepper, "step", sleep)
    ((seconds,),) = step_times([Method("backprop").training(base, EXECUTION, data)], range(WARM_UP + 1))
    mean = sum(slept[-TURN:]) / TURN
    assert mean <= seconds < 2 * mean


def test_peak_memory_is_that_of_the_tensors(base):
    """It includes at least batch and gradients, grows with hidden populations, and doubles with the batch."""
    small = memory.peak(Method("backprop"), base, EXECUTION, (1, 8, 8), 10)
    batch, gradients = 6 * 64 * 4, 4 * (64 * 32 + 32 + 32 * 10 + 10)
    assert batch + gradients < small < 3 * (batch + gradients)
    assert (
        memory.peak(Method("backprop"), replace(base, batch_size=600), EXECUTION, (1, 8, 8), 10) > small + 594 * 64 * 4
    )


def test_peak_memory_by_the_allocator():
    """At most two tensors of a million numbers live at a time; freeing older memory does not count."""
    held = [torch.zeros(5000)]

    def step():
        held.clear()
        a = torch.ones(1_000_000, dtype=torch.float32)
        b = a + 1
        del a
        c = b + 1
        del b, c

    assert 8_000_000 <= memory.peak_on_cpu(step) < 8_000_100  # numbers become small tensors


def test_a_process_that_fails_is_one_sentence(base):
    broken = replace(base, model=Model("nix"))
    with pytest.raises(ActrelaxError, match=r"^the peak memory of backprop could not be measured: .*unknown network"):
        memory.peak_in_own_process(Method("backprop"), broken, EXECUTION, (1, 8, 8), 10)


def test_times_survive_a_memory_that_can_not_be_measured(capsys, monkeypatch):
    def failing(method, *rest):
        if method.name == "equilibrium":
            raise ActrelaxError("no.")
        return memory.peak(method, *rest)

    monkeypatch.setattr(measure, "peak_in_own_process", failing)
    assert run(*QUICK, "--methods", "equilibrium", "--json") == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "no."
    backprop, equilibrium = json.loads(said.out)["rows"]
    assert backprop["peak_memory_ratio"] == 1
    assert equilibrium["peak_memory_bytes"] is equilibrium["peak_memory_ratio"] is None
    assert equilibrium["milliseconds"] > 0


def test_where_memory_is_not_measured(base, capsys, monkeypatch):
    monkeypatch.setattr(Execution, "hardware", lambda *_: Hardware(threads=1))
    monkeypatch.setattr(measure, "images_for", lambda *_: random_images((1, 8, 8), 10, 20))
    monkeypatch.setattr(Method, "training", lambda self, base, _, data: assemble(base, EXECUTION, data=data).training)
    (row,) = measure.measured("digits-mlp", base, Execution("mps"), [Method("backprop")], 5, True)
    assert row.peak_memory_bytes is None
    assert capsys.readouterr().err.endswith("peak memory is left out: PyTorch does not count it on mps.\n")


def test_lines_of_the_figure():
    def row(network, method, steps, ratio, auto=False):
        return bench.Row(network, method, steps, auto, "mnist", 64, 1.0, (1.0, 1.0), ratio, 1.0, None, None)

    shallow = [
        row("mlp-5x3", "backprop", None, 1.0),
        row("mlp-5x3", "closed-form", 100, 1.2),
        row("mlp-5x3", "closed-form", 10, 1.1),
        row("mlp-5x3", "closed-form", 190, 1.05, auto=True),
    ]
    assert bench.by_steps(shallow) == {"mlp-5x3, closed-form": ([10, 100], [1.1, 1.2])}
    assert bench.by_depth(shallow) == {}
    deeper = [
        row("mlp-9x3", "closed-form", 10, 1.3),
        row("mlp-3x3", "closed-form", 10, 1.0),
        row("mlp", "stepped", 1, 2),
    ]
    lines = bench.by_depth([*shallow, *deeper])
    assert lines["closed-form, 10 steps"] == ([3, 5, 9], [1.0, 1.1, 1.3])
    assert lines["closed-form, auto"] == ([5], [1.05])
    assert set(bench.by_depth([*shallow, row("mlp-9x4", "closed-form", 10, 1.3)])) >= {"closed-form, 10 steps (4 wide)"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--networks"], "--networks needs one or more names, got none."),
        (["--networks", "nix"], "unknown network 'nix'; known: digits-mlp,"),
        (["--networks", "mlp-1x3"], "mlp-1x3 has no hidden population to relax: take a deeper network."),
        (
            ["--methods", "nix"],
            "unknown method 'nix'; known: backprop, autograd, closed-form, equilibrium, stepped, front-door, unrolled.",
        ),
        (["--rounds", "4"], "--rounds must be 5 or more, got 4."),
        (["--steps", "0"], "--steps must be 1 or more, got 0."),
        (["--stepped", "0"], "--stepped must be 1 or more, got 0."),
        (["--batch-size", "0"], "--batch-size must be 1 or more, got 0."),
        (["--batch-size", "5000"], "--batch-size must be at most 1437, the training images of digits, got 5000."),
        (["--dataset", "nix"], "unknown dataset 'nix'; known: digits,"),
        (["--layout", "nchw"], "--layout is for .npz files, but digits has a fixed layout: leave it out."),
        (["--networks", "mlp", "--layout", "nchw"], "--layout is for .npz files, but the images are random: leave"),
        (["--device", "cuda:99"], "device 'cuda:99' is not available: this machine has cpu"),
        (["--channels-last"], "--channels-last is for convolutions, but digits-mlp has none: leave it out."),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_status_2(tmp_path, capsys, arguments, sentence):
    assert run(*TIMED, "--data-dir", tmp_path, *arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"actrelax bench: {sentence}")
    assert said.err.count("\n") == 1
    assert said.out == ""
