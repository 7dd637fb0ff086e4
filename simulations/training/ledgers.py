"""What learning used in training runs, as sections of a report."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from actrelax.analysis.ledger import Ledger, ledger_of
from actrelax.analysis.reports.load_runs import Run, rule_of
from actrelax.analysis.reports.page import Section
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.saved import load_run

_DECIDE = ("network", "width", "skips", "norm", "activation", "rule", "assumptions", "lift")
"""Options on which the ledger of a run depends."""


def ledger_sections(runs: Sequence[Run]) -> list[Section]:
    """Return the ledger of each kind of run that relaxed, folded; runs whose network can't be loaded are left out."""
    kinds = {tuple(str(run.config.get(option)) for option in _DECIDE): run for run in reversed(runs)}
    sections = []
    for run in reversed(kinds.values()):
        try:
            ledger = ledger_of_run(run) if run.config["rule"] == "ar" else None
        except ActrelaxError:
            continue
        if ledger is not None:
            facts = [f"{name}: {text}" if name else text for name, text in ledger.facts]
            title = f"What learning used: {rule_of(run.config)}, {run.config['network']}"
            sections.append(Section(title, tables=[ledger.table()], notes=facts, folded=True))
    return sections


def ledger_of_run(run: Run) -> Ledger:
    """Return what the weight updates of a run used.

    Raises
    ------
    ActrelaxError
        If the run's network can't be loaded.
    """
    loaded = load_run(run.folder.path)
    network = loaded.network.train()
    like = next(network.parameters())
    images = torch.rand(4, *loaded.input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ledger_of(network, loaded.experiment.relaxation.knobs, images.to(like))
