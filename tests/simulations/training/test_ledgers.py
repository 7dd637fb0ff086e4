"""Sections of a report on what learning used in runs."""

import shutil

import numpy as np
import pytest

from actrelax.analysis.reports.load_runs import gather, run_folders
from actrelax.simulations import cli
from actrelax.simulations.data import digits
from actrelax.simulations.training.ledgers import ledger_sections

RUNS = {
    "ar": ["--network", "digits-mlp"],
    "ar-again": ["--network", "digits-mlp", "--seed", "1"],
    "random": ["--network", "digits-mlp", "--assumptions", "random-feedback"],
    "backprop": ["--network", "digits-mlp", "--rule", "backprop"],
    "resnet": ["--network", "digits-resnet-8", "--width", "2", "--start", "zero"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder of runs of one epoch on a few digits."""
    folder, data = tmp_path_factory.mktemp("runs"), digits().train
    x, y = (255 * data.images[:60, 0]).round().byte().numpy(), data.labels[:60].numpy()
    np.savez(folder / "few.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    usual = ["--dataset", str(folder / "few.npz"), "--epochs", "1", "--threads", "1", "--quiet", "--steps", "3"]
    for name, options in RUNS.items():
        assert cli.main(["train", *options, *usual, "--out", str(folder / name)]) == 0
    return folder


def test_each_kind_of_run_that_relaxed_has_a_section(trained):
    sections = {
        section.title: section for section in ledger_sections(gather(run_folders([trained / name for name in RUNS])))
    }
    assert sorted(sections) == [
        "What learning used: ar, digits-mlp",
        "What learning used: ar, digits-resnet-8",
        "What learning used: random-feedback, digits-mlp",
    ]
    (table,) = sections["What learning used: random-feedback, digits-mlp"].tables
    assert [row[:3] for row in table.rows] == [["input->hidden1", "yes", "-"], ["hidden1->output", "yes", "fixed psi"]]
    (table,) = sections["What learning used: ar, digits-resnet-8"].tables
    assert "no: weight sharing, other samples" in {row[1] for row in table.rows}  # as in training
    assert "hops: 7, from the output to stem" in sections["What learning used: ar, digits-resnet-8"].notes


def test_a_run_that_cannot_be_loaded_has_none(trained, tmp_path):
    shutil.copytree(trained / "ar", tmp_path / "ar")
    (tmp_path / "ar" / "checkpoint.pt").write_bytes(b"damaged")
    assert ledger_sections(gather(run_folders([tmp_path / "ar"]))) == []
