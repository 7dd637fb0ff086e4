"""Eigenvalues, pseudospectra and transient growth of a frozen relaxation.

Eigenvalues do not determine how fast errors vanish. With frozen gains dx/dt = A x + b, and all eigenvalues of A are
-1/tau for any weights (`spectra`), but eigenvalue solvers do not find them, and errors may grow before they vanish.

Left: distance of the furthest computed eigenvalue from -1. A is triangular when units are sorted by layer, an order
that LAPACK finds for shuffled units. In another orthonormal basis LAPACK can't find it, nor can ARPACK, which only
multiplies by A. Both then return eigenvalues of A with rounding errors, as pseudospectra predict. Middle: pseudospectra
of a deep network, levels of sigma_min(z - A) around -1. They are discs, and so is the numerical range (dashed), which
extends into the right half-plane: errors may grow. Right: largest growth of any error, |exp(tA)|, and exp(-t), which
the eigenvalues suggest. It takes a minute.

The last line on screen:  trained: omega 0.35, Kreiss 1.45 <= growth 2.35 at t = 8.8 <= 75
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigvals, qr
from scipy.sparse.linalg import ArpackNoConvergence, eigs, norm

from actrelax import Network, RelaxationProblem, build
from actrelax.analysis import figures, spectra, transient_growth
from actrelax.analysis.convergence import stays_below
from actrelax.simulations.data import digits, random_stream
from actrelax.simulations.studies.common import DIGITS, OUT, report, trained
from actrelax.simulations.suites.suite import varied

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# networks: mlp-DEPTHxWIDTH, tanh, one digit
DEPTHS = (2, 5, 10, 15, 20, 30, 40)
WIDTH = 16
SEEDS = 5

# convolutions; skip connections, whose pseudospectra are not discs
OTHERS = ("digits-cnn", "digits-skip")
EARLY = tuple(np.linspace(0, 5, 11).tolist())  # units of tau

# the deep network, random and trained
DEEP = "mlp-20x32"
EPOCHS = 20
BASE = varied(DIGITS, {"integrator": "equilibrium", "optimiser": "adam", "lr": 2e-3, "precision": "fp64"})
IMAGES = 5
TIMES = tuple(range(0, 51, 2))  # units of tau
GROWTH = ("omega", "kreiss", "growth", "at", "bound")


def main(
    out: Path = OUT,
    depths: tuple[int, ...] = DEPTHS,
    seeds: int = SEEDS,
    deep: str = DEEP,
    epochs: int = EPOCHS,
    images: int = IMAGES,
    points: int = 40,
) -> dict[str, dict[str, float]]:
    """Compute eigenvalues by several solvers, pseudospectra, numerical range and growth, and draw.

    Parameters
    ----------
    out : pathlib.Path
        Folder for the figure and its numbers.
    depths, seeds
        Left panel: numbers of weight layers, and number of networks per depth.
    deep, epochs, images
        Middle and right panels: the network, its training epochs, and the number of test images.
    points : int
        Middle panel: grid points per axis.

    Returns
    -------
    dict
        Solver or "predicted" -> depth -> distance of the furthest eigenvalue from -1, mean over the networks for which
        the solver converged; "SOLVER, found" -> depth -> number of these networks; "random" and "trained" -> "omega",
        "kreiss", "growth" and "bound", means over images, "at", the time of the largest growth, and "down", the time
        after which growth stays below 1e-5, both in tau; a network of OTHERS -> "omega", "growth".
    """
    found = {d: [solved(linear_part(random(f"mlp-{d}x{WIDTH}", s)), s) for s in range(seeds)] for d in depths}
    measured: dict[str, dict[str, float]] = {}
    lines = []
    network = random(deep, 0)
    with figures.saved(out / "spectrum.png", columns=3) as (_, (left, middle, right)):
        for number, solver in enumerate(found[depths[0]][0]):
            values = {float(d): [row[solver] for row in found[d] if not math.isnan(row[solver])] for d in depths}
            values = {d: distances for d, distances in values.items() if distances}
            figures.band(left, solver, values, number=number)
            measured[solver] = {f"{d:g}": float(np.mean(x)) for d, x in values.items()}
            measured[f"{solver}, found"] = {f"{d:g}": len(x) for d, x in values.items()}
            listed = [f"{np.mean(x):.2g} at depth {d:g} ({len(x)} of {seeds})" for d, x in values.items()]
            lines.append(f"{solver}: {', '.join(listed)}")
        left.set(xlabel="depth (weight layers)", ylabel="largest |computed eigenvalue + 1|", xlim=(0, None))
        left.legend()
        for name in OTHERS:
            matrix = linear_part(random(name, 0))
            omega, growth = spectra.numerical_abscissa(matrix), max(transient_growth.propagator_norms(matrix, EARLY))
            measured[name] = {"omega": omega, "growth": growth}
            lines.append(f"{name}: omega {omega:.2f}, growth {growth:.2f}")
        draw_plane(middle, linear_part(network), points)
        right.semilogy(TIMES, np.exp(-np.array(TIMES)), color="0.3", linestyle=":", label="exp(-t)")
        for number, label in enumerate(("random", "trained")):
            if label == "trained":
                network = trained(varied(BASE, {"network": deep, "epochs": epochs}))
            measured[label] = draw_growth(right, number, label, [linear_part(network, i) for i in range(images)])
            omega, kreiss, growth, at, bound = (measured[label][key] for key in GROWTH)
            grown = f"Kreiss {kreiss:.2f} <= growth {growth:.2f} at t = {at:g} <= {bound:.0f}"
            lines.append(f"{label}: omega {omega:.2f}, {grown}")
        right.set(xlabel="time (units of tau)", ylabel="|exp(tA)|", xlim=(0, TIMES[-1]), ylim=(1e-5, 30))
        right.legend()
    report(out / "spectrum.json", measured, *lines)
    return measured


def random(name: str, seed: int) -> Network:
    """Return a network with random weights."""
    shape = (64,) if name.startswith("mlp") else None
    return build(name, input_shape=shape, generator=random_stream(seed, "weights")).double()


def linear_part(network: Network, image: int = 0) -> sparse.csr_array:
    """Return the matrix A for a test image."""
    x, y = (part[[image]] for part in digits().test)
    x = x.double().reshape(1, *network.populations[network.input].shape)
    return spectra.linear_part(RelaxationProblem.from_batch(network, x, y))


def solved(matrix: sparse.csr_array, seed: int = 0) -> dict[str, float]:
    """Return solver -> distance of its furthest eigenvalue from -1, and the distance predicted for rounding errors."""
    order = np.random.default_rng(seed).permutation(matrix.shape[0])
    return {
        "LAPACK, shuffled units": furthest(eigvals(matrix.toarray()[np.ix_(order, order)])),
        "LAPACK, other basis": furthest(in_other_basis(matrix, seed)),
        "ARPACK": furthest(by_arpack(matrix)),
        "predicted": 1 + spectra.reach(matrix, float(np.finfo(float).eps * norm(matrix, 2))),
    }


def in_other_basis(matrix: sparse.csr_array, seed: int = 0) -> NDArray[np.complex128]:
    """Return LAPACK's eigenvalues of A in a random orthonormal basis, in which A is not triangular."""
    basis, _ = qr(np.random.default_rng(seed).standard_normal(matrix.shape))
    return np.asarray(eigvals(basis @ matrix.toarray() @ basis.T))


def by_arpack(matrix: sparse.csr_array) -> NDArray[np.complex128]:
    """Return the rightmost eigenvalues that ARPACK finds."""
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    try:
        return np.asarray(eigs(matrix, k=6, which="LR", v0=start, return_eigenvectors=False))
    except ArpackNoConvergence as stopped:
        return np.asarray(stopped.eigenvalues)


def furthest(eigenvalues: NDArray[np.complex128]) -> float:
    """Return the largest distance of eigenvalues from -1; nan if there are none."""
    return float(np.abs(eigenvalues + 1).max()) if len(eigenvalues) else math.nan


def draw_plane(ax: Axes, matrix: sparse.csr_array, points: int) -> None:
    """Draw the levels of sigma_min, the numerical range, and the computed eigenvalues."""
    real, imaginary = np.linspace(-2.4, 0.4, points), np.linspace(-1.4, 1.4, points)
    shown = (-16, -12, -8, -4, -2, -1)
    levels = np.log10(spectra.pseudospectrum(matrix, real, imaginary))
    lines = ax.contour(real, imaginary, levels, shown, cmap="viridis", vmax=2, linewidths=1)
    ax.clabel(lines, shown[2:], fmt=lambda level: f"1e{level:g}", fontsize="small")
    border = spectra.numerical_range(matrix)
    for z, style, color, label in (
        (np.append(border, border[0]), "--", "0.3", "numerical range"),
        (in_other_basis(matrix), ".", "#56B4E9", "LAPACK, other basis"),
        (by_arpack(matrix), "x", "#D55E00", "ARPACK"),
    ):
        ax.plot(z.real, z.imag, style, color=color, markersize=2 if style == "." else 4, label=label)
    ax.plot(-1, 0, "+", color="black", markersize=7, label="eigenvalue")
    ax.axvline(0, color="0.6", linewidth=0.8, linestyle="-")
    ax.set(xlabel="Re z (1/tau)", ylabel="Im z (1/tau)", aspect="equal", xlim=(-2.5, 0.5))
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def draw_growth(ax: Axes, number: int, label: str, parts: Sequence[sparse.csr_array]) -> dict[str, float]:
    """Draw |exp(tA)| over time, and return its maximum and bounds."""
    norms = np.array([transient_growth.propagator_norms(matrix, TIMES) for matrix in parts])
    figures.band(ax, f"{label} weights", dict(zip(TIMES, norms.T.tolist(), strict=True)), number=number, log=True)
    growth, at = float(norms.max(axis=1).mean()), float(np.mean([TIMES[i] for i in norms.argmax(axis=1)]))
    omega = float(np.mean([spectra.numerical_abscissa(matrix) for matrix in parts]))
    kreiss = float(np.mean([transient_growth.kreiss_constant(matrix) for matrix in parts]))
    bound = math.e * transient_growth.levels(parts[0]) * kreiss
    down = stays_below(np.exp(np.log(norms).mean(axis=0)), 1e-5)
    measured = dict(zip(GROWTH, (omega, kreiss, growth, at, bound), strict=True))
    return measured if down is None else measured | {"down": TIMES[down]}


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
