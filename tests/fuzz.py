"""Call the programs with malformed options, files and arguments, each in a separate process.

    python tests/fuzz.py            (or make fuzz; twenty minutes)

Rules: no traceback; exit status 0, 1, 2, 130 or 143; no call over a minute; a refused call (status 2) changes no
file. Processes are forked from one that has loaded the libraries. `--seed N` draws other inputs, `--inputs N`
calls N times, `--only N` repeats one input. Exit status 1 if a call breaks a rule.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import brian2  # noqa: F401  (loaded before the first fork)
import numpy as np
import torch

from actrelax.simulations import cli
from actrelax.simulations.data import digits

LIMIT = 60
ALLOWED = (0, 1, 2, 130, 143)

COMMANDS = {
    "relax": ["--network", "digits-mlp", "--steps", "3", "--batch-size", "2"],
    "check": ["--network", "digits-mlp", "--steps", "2", "--integrator", "euler", "--engine", "torch"],
    "train": ["--network", "digits-mlp", "--dataset", "tiny.npz", "--epochs", "1", "--steps", "3", "--quiet"],
    "evaluate": ["run"],
    "analyze": ["run"],
    "plasticity": ["--images", "4", "--every", "4", "--epochs", "1", "--steps", "2"],
    "bench": ["--networks", "digits-mlp", "--rounds", "5", "--no-memory", "--methods", "closed-form", "--steps", "3"],
    "reproduce": ["smoke", "--report-only"],
    "sweep": ["smoke", "--report-only"],
}
"""Program -> arguments for a quick call."""

OTHERS = (
    ["train", "--resume", "run", "--quiet"],
    ["relax", "--run", "run", "--steps", "3"],
    ["check", "--run", "run", "--steps", "2", "--engine", "torch", "--integrator", "euler"],
    ["plasticity", "--resume", "brian"],
    ["plasticity", "--resume", "brian", "--epochs", "2"],
    ["analyze", "suite"],
    ["analyze", "run", "suite"],
    ["analyze", "."],
    ["reproduce", "smoke", "--report-only", "--out", "suite"],
    ["reproduce", "smoke", "--report-only", "--own-rates", "rates"],
    ["evaluate", "run", "--dataset", "tiny.npz"],
    ["train", "--network", "own.py:net", "--dataset", "tiny.npz", "--epochs", "1", "--quiet"],
)
"""Further commands, which read files that may be damaged."""

VALUES = (
    *("", " ", "0", "-1", "1", "3", "0.5", "nan", "inf", "-inf", "1e-320", "1e38", "1e400", "0x10", "None", "true"),
    *(
        "--help",
        "-",
        "=",
        "[]",
        "{",
        "auto",
        "x" * 300,
        "a\nb",
        "\u2192",
        "\udcff",
        "..",
        "/",
        "/dev/null",
        "/dev/full",
    ),
    *("run", "run/config.json", "tiny.npz", "none.npz", "own.py:net", "own.py:none", "none.py:f", ":", "a:b", "loop"),
    *("ar", "backprop", "euler", "DOP853", "brian2:rk4", "equilibrium", "learned-feedback", "continuous", "torch"),
    *("mlp-3x5", "mlp-0x5", "mlp-2x99999999999999999999", "cuda", "mps", "cpu:9", "sparse-2", "quantised-1"),
)
LARGE = ("2147483648", "9" * 25, "1e30")
LASTING = [
    "steps",
    "stepped",
    "epochs",
    "duration",
    "rounds",
    "max-steps",
    "seeds",
    "jobs",
    "images",
    "threads",
    "dt",
    "feedforward-steps",
]
"""Options whose large values may take long."""

CELLS = ("", "nan", "x", "1e999", "-1", ";", '"', "\0", "\xff")
TYPES = (None, True, -1, 10**400, 1e300, "", "x", [], {}, [[]], {"a": {}})


def main() -> int:
    """Call programs with one input after another, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    options = {name: list(options_of(import_module(f"actrelax.simulations.{name}").Config)) for name in COMMANDS}
    found, first = 0, given.seed if given.only is None else given.only
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template"
        prepare(template)
        for number in range(first, first + (given.inputs if given.only is None else 1)):
            place = Path(folder) / "place"
            shutil.copytree(template, place, symlinks=True)
            random_ = random.Random(number)
            arguments = drawn(random_, options)
            damaged = damage(random_, place) if random_.random() < 0.5 else ""
            broken = tried(arguments, place)
            if broken:
                found += 1
                print(f"{number}: {arguments} {damaged}\n{broken}\n", flush=True)
            shutil.rmtree(place, ignore_errors=True)
    print(f"{number - first + 1} inputs, {found} findings")
    return 1 if found else 0


def options_of(config: type) -> list[tuple[str, str]]:
    """Return the options of a program, each with a valid value."""
    hints, found = get_type_hints(config), []
    for f in fields(config):
        kind = hints[f.name]
        if is_dataclass(kind):
            found += options_of(kind)
        else:
            default = "1" if f.default in (None, MISSING) else str(f.default)
            found.append((f.name.replace("_", "-"), "" if f.type in ("bool", bool) else default))
    return found


def prepare(place: Path) -> None:
    """Create a data set, runs of two programs, results of a suite and a network file."""
    place.mkdir()
    data = digits()
    parts = {"train": data.train, "test": data.test}
    arrays = {f"x_{name}": (part.images[:60, 0] * 255).byte().numpy() for name, part in parts.items()}
    np.savez(place / "tiny.npz", **arrays, **{f"y_{name}": part.labels[:60].numpy() for name, part in parts.items()})
    (place / "own.py").write_text(
        "from torch import nn\n\n\ndef net(input_shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, classes))\n"
    )
    (place / "loop").symlink_to("loop")
    results = Path(__file__).parent.parent / "results"
    shutil.copytree(results / "smoke", place / "suite")
    for arguments in (
        ["train", *COMMANDS["train"], "--out", "run"],
        ["plasticity", *COMMANDS["plasticity"], "--out", "brian"],
    ):
        if broken := tried(arguments, place):
            raise SystemExit(f"{arguments}: {broken}")
    (place / "rates").mkdir()
    lines = ["suite,variant,condition,lr,found_by", "smoke,,ar,0.1,actrelax sweep smoke"]
    (place / "rates" / "rates.csv").write_text("\n".join(lines) + "\n")


def drawn(random_: random.Random, options: dict[str, list[tuple[str, str]]]) -> list[str]:
    """Draw random arguments of a call."""
    if random_.random() < 0.4:
        return list(random_.choice(OTHERS))
    name = random_.choice(list(COMMANDS))
    arguments = [name, *COMMANDS[name]]
    for _ in range(random_.randint(1, 3)):
        option, usual = random_.choice(options[name])
        value = random_.choice([usual, *(VALUES if option in LASTING else VALUES + LARGE)])
        arguments += [f"--{option}"] if not usual and random_.random() < 0.8 else [f"--{option}", value]
    if random_.random() < 0.1:
        arguments.insert(random_.randrange(len(arguments) + 1), random_.choice(VALUES))
    return [argument.replace("\0", "") for argument in arguments]


def damage(random_: random.Random, place: Path) -> str:
    """Damage one file, and return a description; Python files are spared, because their exceptions pass through."""
    path = random_.choice([p for p in sorted(place.rglob("*")) if p.is_file() and p.suffix != ".py"])
    content = path.read_bytes()
    how = random_.choice(["cut", "flip", "empty", "noise", "deep", "folder", "loop", "saved", "cell", "gone"])
    if how == "cell" and path.suffix == ".json":
        path.write_text(json.dumps(changed(random_, json.loads(content))))
    elif how == "cell":
        cells = content.split(b",")
        cells[random_.randrange(len(cells))] = random_.choice(CELLS).encode("latin-1")
        path.write_bytes(b",".join(cells))
    elif how == "saved":
        path.write_bytes(b"\xef\xbb\xbf" + content.replace(b",", b";").replace(b"\n", b"\r\n"))
    elif how == "cut":
        path.write_bytes(content[: random_.randrange(len(content) + 1)])
    elif how == "flip" and content:
        at = random_.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    elif how in ("folder", "loop", "gone"):
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "loop":
            path.symlink_to(path.name)
    else:
        path.write_bytes({"deep": b"[" * 100_000, "noise": random_.randbytes(500)}.get(how, b""))
    return f"with {how} in {path.relative_to(place)}"


def changed(random_: random.Random, value: object) -> object:
    """Replace one value of a JSON document."""
    if isinstance(value, dict) and value and random_.random() < 0.9:
        key = random_.choice(list(value))
        if random_.random() < 0.1:
            return {name: each for name, each in value.items() if name != key}
        return value | {key: changed(random_, value[key])}
    if isinstance(value, list) and value and random_.random() < 0.9:
        at = random_.randrange(len(value))
        return [*value[:at], changed(random_, value[at]), *value[at + 1 :]]
    return random_.choice(TYPES)


def tried(arguments: list[str], place: Path) -> str:
    """Call a program in a forked process, and return the broken rule, or ""."""
    before = snapshot(place)
    said = place.parent / "said"
    child = os.fork()
    if child == 0:
        call(arguments, place, said)
    begin = time.monotonic()
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() - begin > LIMIT:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"took more than {LIMIT} s"
        time.sleep(0.01)
    return judged(said.read_bytes().decode(errors="replace"), before, snapshot(place))


def call(arguments: list[str], place: Path, said: Path) -> None:
    """Run the program, and exit."""
    status = 70
    try:
        os.setsid()
        os.chdir(place)
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        status = cli.main(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.write(f"\nstatus {status}\n")
        sys.stderr.flush()
        os._exit(0)


def judged(said: str, before: dict[str, bytes], after: dict[str, bytes]) -> str:
    """Return the rule that a call broke, or ""."""
    last = said.rstrip().splitlines()[-1] if said.strip() else "ended without a word"
    status = int(last.removeprefix("status ")) if last.startswith("status ") else None
    tail = "\n".join(said.splitlines()[-12:])
    if status not in ALLOWED or "Traceback (most recent call last)" in said:
        return tail
    if status == 2 and before != after:
        differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        return f"refused, but changed {', '.join(differing)}\n{tail}"
    return ""


def snapshot(place: Path) -> dict[str, bytes]:
    """Return file -> content of a folder."""
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


if __name__ == "__main__":
    raise SystemExit(main())
