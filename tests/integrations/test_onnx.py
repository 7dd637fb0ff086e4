"""Export of a trained network's forward pass to ONNX."""

import pytest
import torch
from torch import nn

from actrelax import ActivationRelaxation

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.mark.filterwarnings("ignore")
def test_the_exported_module_gives_the_same(tmp_path):
    model = ActivationRelaxation(
        nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).float(), input_shape=(64,)
    )
    x = torch.rand(3, 64).float()
    torch.onnx.export(model.module, (x,), tmp_path / "network.onnx", dynamo=True, verbose=False)
    loaded = onnx.load(tmp_path / "network.onnx")
    onnx.checker.check_model(loaded)
    run = onnx.reference.ReferenceEvaluator(loaded)
    (output,) = run.run(None, {loaded.graph.input[0].name: x.numpy()})
    assert torch.allclose(torch.from_numpy(output), model.module(x), atol=1e-6)
