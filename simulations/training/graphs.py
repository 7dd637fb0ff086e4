"""A list of kernels as one CUDA graph: launched at once, without Python or the driver between two kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from actrelax.models.learning.trace import Kernels


def captured(kernels: Kernels, x: Tensor, target: Tensor) -> Kernels:
    """Capture a list of kernels on a GPU.

    Parameters
    ----------
    kernels : callable
        (x, target) -> tensors: loss, output and flag, then gradients.
    x, target : torch.Tensor
        A batch of the shape that all will have.

    Returns
    -------
    callable
        The same, of tensors that the next batch leaves alone.
    """
    given = (x.clone(), target.clone())
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries make their workspaces in the first runs, outside of the graph
        for _ in range(3):
            kernels(*given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = kernels(*given)

    def replayed(x: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        for mine, its in zip(given, (x, target), strict=True):
            mine.copy_(its)
        graph.replay()
        loss, output, finite, *gradients = results
        return (loss.clone(), output.clone(), finite.clone(), *(gradient.clone() for gradient in gradients))

    return replayed
