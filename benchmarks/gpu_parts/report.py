"""Results of a session: a JSON file and Markdown tables, rewritten after each result."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy
import scipy
import torch

from gpu_parts.items import Options

Result = dict[str, Any]
Row = dict[str, Any]


class Report:
    """All results so far, written after each result, so that a lost machine costs none."""

    def __init__(self, folder: Path, options: Options, checkout: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.about = {**machine(options.device, checkout), "options": {k: str(v) for k, v in asdict(options).items()}}
        self.results: dict[str, list[Result]] = {}

    def add(self, part: str, result: Result) -> None:
        """Add a result, print it in one line, and write both files."""
        self.results.setdefault(part, []).append(result)
        said = result["message"] or "; ".join(str(row["found"]) for row in result["rows"] if "found" in row)
        print(
            f"{part:10}{result['status']:10}{result['seconds']:6.1f} s  {result['item']}  {said}".rstrip(), flush=True
        )
        content = {"machine": self.about, "goals": goals(self.rows("costs")), "results": self.results}
        (self.folder / "gpu.json").write_text(json.dumps(content, indent=1) + "\n")
        (self.folder / "gpu.md").write_text(self.as_markdown())

    @property
    def failed(self) -> bool:
        """True if an item failed."""
        return any(result["status"] == "failed" for results in self.results.values() for result in results)

    def rows(self, part: str) -> list[Row]:
        """Return the rows of all results of a part."""
        return [row for result in self.results.get(part, ()) for row in result["rows"]]

    def as_markdown(self) -> str:
        """Return the session as a page of tables."""
        about = ", ".join(f"{name} {value}" for name, value in self.about.items() if name not in ("device", "options"))
        parts = [f"# {self.about['device']}", about + "."]
        costs, trainings = self.rows("costs"), self.rows("trainings")
        if costs:
            parts += ["## Goals", table(("goal", "wanted", "reached"), [list(goal.values()) for goal in goals(costs)])]
        if "checks" in self.results:
            lines = [
                (result["item"], result["status"], "; ".join(row["found"] for row in result["rows"]))
                for result in self.results["checks"]
            ]
            parts += ["## Checks", table(("check", "result", "found"), lines)]
        if costs:
            eager = "Not compiled: AR is traced, the default of `actrelax train`, and backprop runs eagerly."
            parts += ["## Costs of a training step", eager, table(COSTS, [cost_cells(row) for row in costs])]
        if trainings:
            parts += ["## Trainings", table(TRAININGS, [training_cells(row) for row in trainings])]
        others = [
            f"- {part}, {result['item']}: {result['status']}, {result['message']}"
            for part, results in self.results.items()
            for result in results
            if result["status"] != "ok"
        ]
        return "\n\n".join([*parts, *(["## Failed or left out", "\n".join(others)] if others else [])]) + "\n"


COSTS = "network", "batch", "method", "steps", "compiled", "ms", "images/s", "speed to backprop", "peak memory (MB)"
TRAININGS = "run", "data", "epochs", "batch", "test accuracy (%)", "train loss", "seconds", "images/s"


def cost_cells(row: Row) -> list[str]:
    """Return one row of the table of costs."""
    memory = row["peak_memory_bytes"]
    return [
        row["network"],
        str(row["batch"]),
        row["method"],
        "" if row["steps"] is None else str(row["steps"]),
        "yes" if row["compiled"] else "no",
        f"{row['milliseconds']:.3g}",
        f"{row['images_per_second']:,.0f}",
        f"{row['speed_to_backprop']:.2f}",
        "" if memory is None else f"{memory / 1e6:.1f}",
    ]


def training_cells(row: Row) -> list[str]:
    """Return one row of the table of trainings."""
    return [
        row["run"],
        row["data"],
        str(row["epochs"]),
        str(row["batch"]),
        f"{100 * row['test_accuracy']:.1f}",
        f"{row['train_loss']:.3f}",
        f"{row['seconds']:.1f}",
        f"{row['images_per_second']:,.0f}",
    ]


def goals(costs: Sequence[Row]) -> list[dict[str, str]]:
    """Return the goals of a session on one H200, with the measured values."""
    closed_form: Callable[[Row], bool] = lambda row: (row["method"], row["steps"]) == ("closed-form", 100)  # noqa: E731
    at_512 = [row for row in costs if row["batch"] == 512]
    eager = [row for row in at_512 if not row["compiled"]]
    fast = [row for row in at_512 if row["compiled"] and (row["network"], row["method"]) == ("cnn", "equilibrium")]
    found = [
        (
            "AR at equilibrium, speed to eager backprop, batch 512",
            "0.95",
            by_network((row for row in eager if row["method"] == "equilibrium"), "speed_to_backprop", ".2f"),
        ),
        (
            "100 steps by the closed form, speed to eager backprop, batch 512",
            "0.60",
            by_network(filter(closed_form, eager), "speed_to_backprop", ".2f"),
        ),
        (
            "images per second, AR at equilibrium, the paper's CNN, compiled",
            "100,000",
            by_network(fast, "images_per_second", ",.0f"),
        ),
    ]
    return [{"goal": goal, "wanted": wanted, "reached": reached or "not measured"} for goal, wanted, reached in found]


def by_network(rows: Iterable[Row], column: str, form: str) -> str:
    """Return the value of a column for each network, as text."""
    return ", ".join(f"{row['network']} {row[column]:{form}}" for row in rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(device: str, checkout: Path) -> dict[str, str]:
    """Return device, software versions, commit and date."""
    on_gpu = device.startswith("cuda")
    about = {
        # torch.cuda would hold the device for the whole session
        "device": nvidia("name") if on_gpu else f"CPU ({torch.get_num_threads()} threads)",
        "driver": nvidia("driver_version") if on_gpu else "",
        "CUDA": torch.version.cuda if on_gpu else "",
        "Triton": version_of("triton") if on_gpu else "",
        "PyTorch": torch.__version__,
        "NumPy": numpy.__version__,
        "SciPy": scipy.__version__,
        "Python": platform.python_version(),
        "commit": output_of("git", "-C", str(checkout), "rev-parse", "--short", "HEAD"),
        "on": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    return {name: value for name, value in about.items() if value}


def nvidia(field: str) -> str:
    """Return a field of nvidia-smi for the first GPU, or "unknown"."""
    return output_of("nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader") or "unknown"


def version_of(package: str) -> str:
    """Return the version of a package, or "none"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def output_of(*command: str) -> str:
    """Return the first line of a command's output, or "" if the command is missing or takes too long."""
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return printed.partition("\n")[0].strip()
