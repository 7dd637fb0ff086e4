"""Batched GMRES. Oracles: dense solves, dense eigenvalues."""

import pytest
import torch

from actrelax.models.integrators.gmres import gmres


def systems(generator, scales=(0.5, 0.9, 1.3), size=30):
    """Return matrices with spectral radii of about `scales`, (batch, n, n), and right-hand sides of unequal size."""
    A = torch.randn(len(scales), size, size, generator=generator) / size**0.5 * torch.tensor(scales)[:, None, None]
    return A, torch.randn(len(scales), size, generator=generator) * torch.tensor([1.0, 1e-3, 1e3])[: len(scales), None]


def applied(matrices):
    return lambda x: torch.einsum("bij,bj->bi", matrices, x)


def test_each_sample_is_solved_to_the_tolerance(generator):
    A, b = systems(generator)
    exact = torch.linalg.solve(torch.eye(30) - A, b)
    for tolerance in (1e-3, 1e-6, 1e-12):
        found = gmres(applied(A), b, tolerance=tolerance)
        true = (b + applied(A)(found.x) - found.x).norm(dim=1) / b.norm(dim=1)
        assert (true <= 1.01 * tolerance + 1e-14).all()
        assert torch.allclose(found.residual, true, rtol=1e-3, atol=1e-15)
    assert torch.allclose(found.x, exact, rtol=0, atol=1e-9 * float(exact.abs().max()))
    assert found.products == 30 + 1


def test_a_sample_does_not_depend_on_the_others(generator):
    """An easy sample is done early, and is not touched again."""
    A, b = systems(generator, (1e-3, 0.9, 0.9))
    together = gmres(applied(A), b, tolerance=1e-8)
    for i in range(3):
        alone = gmres(applied(A[i : i + 1]), b[i : i + 1], tolerance=1e-8)
        assert torch.allclose(alone.x[0], together.x[i], rtol=1e-9, atol=0)
        assert float(alone.abscissa) == pytest.approx(float(together.abscissa[i]), rel=1e-6)
    assert gmres(applied(A[:1]), b[:1], tolerance=1e-8).products < together.products / 2


def test_a_complete_basis_has_the_eigenvalues(generator):
    A, b = systems(generator)
    expected = torch.linalg.eigvals(A).real.amax(1)
    assert expected[0] < 1 < expected[2]
    assert torch.allclose(gmres(applied(A), b, tolerance=1e-15).abscissa, expected, rtol=0, atol=1e-8)


def test_few_products_leave_a_residual(generator):
    A, b = systems(generator)
    products = []
    found = gmres(lambda x: products.append(1) or applied(A)(x), b, tolerance=1e-12, most=8)
    assert found.products == len(products) == 8
    true = (b + applied(A)(found.x) - found.x).norm(dim=1) / b.norm(dim=1)
    assert torch.allclose(found.residual, true, rtol=1e-12, atol=0)
    assert (true > 1e-9).any()
    # the smallest residual over the Krylov space
    for i in range(3):
        powers = [b[i]]
        for _ in range(6):
            powers.append(A[i] @ powers[-1])
        K = torch.linalg.qr(torch.stack(powers, 1)).Q
        best = torch.linalg.lstsq(K - A[i] @ K, b[i][:, None]).solution
        least = (b[i] - ((K - A[i] @ K) @ best)[:, 0]).norm() / b[i].norm()
        assert float(found.residual[i]) == pytest.approx(float(least), rel=1e-8)


def test_a_sample_without_input_stays_zero(generator):
    A, b = systems(generator)
    b[1] = 0
    found = gmres(applied(A), b, tolerance=1e-10)
    assert not found.x[1].any()
    assert found.residual[1] == 0
    assert not gmres(applied(A), 0 * b, tolerance=1e-10).x.any()


def test_nilpotent_and_zero_maps_end_early():
    A = torch.zeros(2, 4, 4)
    A[1, 1, 0] = A[1, 2, 1] = 2.0
    b = torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 0]])
    found = gmres(applied(A), b, tolerance=1e-14)
    assert torch.allclose(found.x, torch.tensor([[1.0, 0, 0, 0], [1.0, 2.0, 4.0, 0]]), rtol=0, atol=1e-13)
    assert found.products <= 5
