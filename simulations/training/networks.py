"""The network of a run, by name or by a function in a user's file."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from actrelax.models.errors import ActrelaxError, lacks_memory
from actrelax.models.network import CapturedNetwork, Network, build
from actrelax.simulations.data import random_stream
from actrelax.simulations.training import user_code
from actrelax.simulations.training.experiment import Model


def make_network(
    model: Model, input_shape: tuple[int, ...], classes: int, seed: int
) -> tuple[Network, nn.Module | None]:
    """Build a network by name, or by a function in a user's file, with weights determined by the seed.

    Returns
    -------
    network : Network
        Network on the CPU, with one output per class.
    module : torch.nn.Module or None
        Named module, or the module that a user's function returned, which shares its parameters with the network.

    Raises
    ------
    ActrelaxError
        For an unknown name, a missing file or function, or a network that does not fit the data.
    """
    network, module = _made(model, input_shape, classes, seed)
    found = network.populations[network.output].shape
    if found != (classes,):
        raise ActrelaxError(
            f"{model.network} has an output of shape {found}, but the data has {classes} classes: "
            f"give the output the shape ({classes},)."
        )
    return network, module


def _made(model: Model, input_shape: tuple[int, ...], classes: int, seed: int) -> tuple[Network, nn.Module | None]:
    if not user_code.is_own(model.network):
        network = build(
            model.network,
            input_shape=input_shape,
            classes=classes,
            activation=model.activation,
            weight_std=model.weight_std,
            design=model.design,
            generator=random_stream(seed, "weights"),
        )
        return network, network.module if isinstance(network, CapturedNetwork) else None
    if model.activation is not None or model.weight_std is not None:
        raise ActrelaxError("--activation and --weight-std are for networks by name: set them in your function.")
    if given := model.design.given:
        raise ActrelaxError(f"--{given[0]} is for networks by name: set it in your function.")
    with user_code.loaded(model.network) as function, torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_stream(seed, "weights").initial_seed())
        made = function(input_shape, classes)
    if isinstance(made, Network):
        return made, made.module if isinstance(made, CapturedNetwork) else None
    if isinstance(made, nn.Sequential):
        with contextlib.suppress(ActrelaxError):  # other layers than those of a hand-built network: a module like any
            return Network.from_sequential(made, input_shape), made
    if isinstance(made, nn.Module):
        return _captured(model.network, made, input_shape), made
    raise ActrelaxError(f"{model.network} must return an nn.Module or a Network, got {type(made).__name__}.")


def _captured(name: str, module: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """Capture the module that a user's function returned."""
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    try:
        return Network.from_module(module, like.new_zeros(2, *input_shape))
    except RuntimeError as error:  # PyTorch's for shapes that don't fit; others belong to the user's code
        if lacks_memory(error):
            raise
        raise ActrelaxError(
            f"the module of {name} fails for samples of shape {input_shape}: {str(error).strip().splitlines()[0]}: "
            "make it for the input_shape that the function is given."
        ) from error
