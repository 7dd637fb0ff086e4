"""An inhibition-stabilised network: with slow inhibition rates oscillate, and so do gradients.

Excitatory units excite each other so strongly that they would run away without inhibition, as in models of visual
cortex (Tsodyks et al. 1997, Journal of Neuroscience 17:4382; Ozeki et al. 2009, Neuron 62:578). The fixed point of the
rates does not depend on time constants, but its stability does: if inhibition is slow, the rates circle around it. The
relaxation from the same fixed point has the same eigenvalues (docs/theory.md), so its gradients stop settling at the
same time constant of inhibition.

Left: mean excitatory rate in the forward phase, from silence. Middle: mean excitatory gradient in the relaxation, with
rates and gains held at the fixed point. Right: growth rate of small deviations from both fixed points, measured
(symbols) and predicted by the eigenvalues of the two Jacobians (line).

The last line on screen:  oscillations begin at tau_I/tau_E = 2.50 in both phases, measured between 2.4 and 2.8
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor, nn

from actrelax import ForwardProblem, Network, Projection, RelaxationProblem, Settle, Steps, digits, settle, solve
from actrelax.analysis import figures
from actrelax.analysis.implicit_gradients import implicit_gradients
from actrelax.analysis.stability import Phase, loop_matrix, stability
from actrelax.simulations.data import random_stream

# time, in milliseconds
TAU_E = 10.0
DT = 2.0
DURATION = 1000.0

# network: summed weights (to, from)
SIZES = {"E": 40, "I": 10}
WEIGHTS = {("E", "E"): 7.6, ("E", "I"): -7.1, ("I", "E"): 6.7, ("I", "I"): -2.9}
BIASES = {"E": -1.0, "I": -2.0}

RATIOS = (1.0, 1.5, 2.0, 2.4, 2.8, 3.2, 3.6)  # tau_I / tau_E
DRAWN = (1.5, 2.8)
KICK = 1e-6  # deviation from the fixed point


def main(
    out: Path = Path("runs/examples"), duration: float = DURATION, ratios: tuple[float, ...] = RATIOS
) -> dict[str, float]:
    """Run both phases at several time constants of inhibition, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure.
    duration : float
        Duration of each phase, in milliseconds.
    ratios : tuple of float
        Values of tau_I / tau_E.

    Returns
    -------
    dict
        "alone" -> abscissa of the excitatory population alone; "forward" and "backward" -> ratio at which each phase
        becomes unstable; "PHASE RATIO" -> measured growth rate, and "PHASE RATIO predicted", in 1 / ms.
    """
    network, (images, labels) = excitatory_inhibitory(), digits().test
    x, y = images[:1].flatten(1).double(), labels[:1]
    rates = settle(network, x, Settle(Steps.until(1e-13, eta=0.2)))
    problem = RelaxationProblem.from_batch(network, rates, y, start="zero", time_unit="ms")
    gradients = implicit_gradients(network, rates, y)

    def rate(ratio: float, phase: Phase) -> float:
        return stability(replace(problem, tau=taus(ratio)), phase).rate

    phases: tuple[Phase, Phase] = ("forward", "backward")
    measured: dict[str, float] = {}
    for phase in phases:
        measured[phase] = float(brentq(rate, 1, 10, args=(phase,), xtol=1e-6))
    inside = loop_matrix(problem, "forward").toarray()
    place = slice(*((0, SIZES["E"]) if problem.relaxing[0] == "E" else (SIZES["I"], None)))
    measured["alone"] = float(np.linalg.eigvals(inside[place, place]).real.max())
    for ratio in ratios:
        for phase in phases:
            times, deviation = deviations(problem, gradients, phase, ratio, duration)
            measured[f"{phase} {ratio}"] = growth(times, deviation)
            measured[f"{phase} {ratio} predicted"] = rate(ratio, phase)

    whole = stability(problem, "forward").abscissa
    print(f"largest real part of an eigenvalue: excitation alone {measured['alone']:.2f}, with inhibition {whole:.2f}")
    off = max(abs(measured[f"{p} {r}"] - measured[f"{p} {r} predicted"]) for p in phases for r in ratios)
    print(f"growth rates measured and predicted differ by up to {off:.0e} / ms")
    stable = [r for r in ratios if max(measured[f"{phase} {r}"] for phase in phases) < 0]
    growing = [r for r in ratios if min(measured[f"{phase} {r}"] for phase in phases) > 0]
    print(
        f"oscillations begin at tau_I/tau_E = {measured['forward']:.2f} in both phases, "
        f"measured between {max(stable):g} and {min(growing):g}"
    )

    with figures.saved(out / "inhibition_stabilised.png", columns=3) as (_, (left, middle, right)):
        for ratio in DRAWN:
            forward = ForwardProblem(network, x, tau=taus(ratio, TAU_E), time_unit="ms")
            backward = replace(problem, tau=taus(ratio))
            for ax, each, scale in ((left, forward, 1.0), (middle, backward, float(gradients["E"].mean()))):
                shown = solve(each, "rk4", dt=DT, duration=0.6 * duration, record=["E"])
                ax.plot(shown.times, shown["E"].mean((1, 2)) / scale, label=f"tau_I = {ratio:g} tau_E")
        left.set(xlabel="time (ms)", ylabel="mean excitatory rate", title="forward phase")
        middle.set(xlabel="time (ms)", ylabel="mean gradient (relative to autograd's)", title="relaxation")
        middle.set_ylim(-5, 8)
        left.legend(loc="upper right")
        fine = np.linspace(min(ratios), max(ratios), 16)
        right.plot(fine, [rate(ratio, "forward") for ratio in fine], color="0.3", label="predicted")
        for phase, symbol in zip(phases, "ox", strict=True):
            right.plot(ratios, [measured[f"{phase} {r}"] for r in ratios], symbol, label=f"{phase} phase, measured")
        right.axhline(0, color="0.6", linewidth=1, linestyle="-")
        right.set(xlabel="tau_I / tau_E", ylabel="growth rate (1 / ms)")
        right.legend()
    return measured


def excitatory_inhibitory() -> Network:
    """Return a network whose excitatory weights are positive and whose inhibitory ones are negative."""
    generator = random_stream(0, "weights")
    projections = [Projection("input", name, nn.Linear(64, size)) for name, size in SIZES.items()]
    projections += [
        Projection(source, target, nn.Linear(SIZES[source], SIZES[target], bias=False)) for target, source in WEIGHTS
    ]
    projections.append(Projection("E", "output", nn.Linear(SIZES["E"], 10)))
    network = Network((64,), {"E": "sigmoid", "I": "sigmoid", "output": "identity"}, projections).double()
    with torch.no_grad():
        for p in network.projections.values():
            assert p.weight is not None
            mean = WEIGHTS.get((p.target, p.source), 0.0) / p.weight.shape[1]
            if mean:
                p.weight.uniform_(0.5, 1.5, generator=generator).mul_(mean)
            else:
                p.weight.normal_(0, 0.05, generator=generator)
            if p.bias is not None:
                p.bias.fill_(BIASES.get(p.target, 0.0))
    return network


def taus(ratio: float, output: float | None = None) -> dict[str, float]:
    """Return the time constants in milliseconds, with the output's in the forward phase."""
    return {"E": TAU_E, "I": ratio * TAU_E, **({} if output is None else {"output": output})}


def deviations(
    problem: RelaxationProblem, gradients: dict[str, Tensor], phase: Phase, ratio: float, duration: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Start both populations near their fixed point; return times and the mean excitatory deviation from it."""
    network, rates = problem.network, problem.feedforward.activities
    rest = {name: (rates if phase == "forward" else gradients)[name] for name in SIZES}
    start = {name: x * (1 + KICK) for name, x in rest.items()}
    if phase == "forward":
        start["output"] = rates["output"]
        kicked: ForwardProblem | RelaxationProblem = ForwardProblem(
            network, rates[network.input], tau=taus(ratio, TAU_E), start=start
        )
    else:
        kicked = replace(problem, tau=taus(ratio), start=start, time_unit=None)
    found = solve(kicked, "rk4", dt=DT, duration=duration, record=["E"])
    return np.asarray(found.times), (found["E"] - rest["E"]).mean((1, 2)).numpy()


def growth(times: NDArray[np.float64], deviation: NDArray[np.float64]) -> float:
    """Return the slope of the logarithm of an oscillation's peaks, in its second half and above rounding."""
    size = np.abs(deviation)
    peaks = np.flatnonzero((size[1:-1] > size[:-2]) & (size[1:-1] >= size[2:])) + 1
    peaks = peaks[size[peaks] > 1e-4 * size.max()]
    peaks = peaks[len(peaks) // 3 :]
    return float(np.polyfit(times[peaks], np.log(size[peaks]), 1)[0])


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
