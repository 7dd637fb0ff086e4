"""A tape of a module's forward pass: its weighted operations, cut out of autograd's graph (docs/any-module.md).

The module's own code runs, under a mode that sees each PyTorch function. Weighted operations run apart from the graph;
autograd records everything between them.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from actrelax.models.errors import ActrelaxError
from actrelax.models.network.captured.drive import Drive
from actrelax.models.network.captured.edges import Edge, Place, Seen, edge_of
from actrelax.models.network.captured.gains import BATCH_NORM, POINTWISE, SHIFTS, Known, adds_constant
from actrelax.models.network.captured.gates import Hook
from actrelax.models.network.captured.operations import Operation
from actrelax.models.network.captured.weighted_functions import OPERATIONS


class Tape(TorchFunctionMode):
    """Notes the weighted operations of a forward pass, in order, and the sequence of its other functions.

    Parameters
    ----------
    constants : mapping
        The module's parameters and buffers by identity.
    stimulus : torch.Tensor
    expected : sequence of str, optional
        The functions of a recorded path; another one is refused. None records a path.
    wanted : mapping
        Call -> (place, population, whether to copy the value) for the values to keep of a recorded path.
    notes : {"", "seen", "copied"}
        Keep every tensor that is seen, or a copy of it, to find the values of populations on a new path.
    cut : bool
        Cut weighted operations out of the graph. Without, autograd records everything, and `edges` has the wanted
        tensors in its graph.
    where : callable, optional
        Returns the name of the module that is running.

    Attributes
    ----------
    operations : list of Operation
    sources : list
        Per operation, the edge that it reads, None where it reads the stimulus.
    drives : dict
        Node of a drive -> number of its operation.
    calls : list of str
        Names of the functions whose results need gradients.
    modules : list of str
        Per call of a new path, the module that makes it, as `where` says.
    left_in : str
        The module that took another path than the recorded one.
    hooks : dict
        Edge -> the hooks that the module has registered there.
    known, norms : list of Known
        The pointwise functions known by name, and the BatchNorms.
    shifted : set of Node
        Additions of constants, and paddings with a value other than 0.
    of_weights : set of Node
        Nodes of which weights are computed.
    """

    def __init__(
        self,
        constants: Mapping[int, Tensor],
        stimulus: Tensor,
        expected: Sequence[str] | None = None,
        wanted: Mapping[int, Sequence[tuple[Place, int, bool]]] | None = None,
        notes: str = "",
        where: Callable[[], str] | None = None,
        cut: bool = True,
    ) -> None:
        super().__init__()
        self.constants, self.stimulus, self.expected, self.wanted = constants, stimulus, expected, wanted or {}
        self.cut = cut
        self.operations: list[Operation] = []
        self.sources: list[Edge | None] = []
        self.drives: dict[Node, int] = {}
        self.calls: list[str] = []
        self.modules: list[str] = []
        self.values: dict[int, Tensor] = {}
        self.edges: dict[int, Edge] = {}
        self.hooks: dict[Edge, list[Hook]] = {}
        self.known, self.norms, self.shifted = list[Known](), list[Known](), set[Node]()
        self.seen: dict[Edge, Seen] | None = {} if notes else None
        self._copies = notes == "copied"
        self.left_in, self._where, self.of_weights = "", where, set[Node]()
        self._handle = torch.empty(0, requires_grad=True)
        self._hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one function of the module."""
        kwargs = kwargs or {}
        if not torch.is_grad_enabled() or _transform() is not None:
            return func(*args, **kwargs)  # transforms of torch.func belong to pieces as they are
        if types and (other := [t for t in types if t not in _TENSORS]):
            raise ActrelaxError(
                f"the module works on {other[0].__name__}, a subclass of Tensor, which can't be captured: convert it "
                "to a plain Tensor."
            )
        make = OPERATIONS.get(func)
        if make is not None:
            operation = make(self, *args, **kwargs)
            if operation is not None and self.cut:
                return self._drive(func.__name__, operation, args, kwargs)
            if operation is not None:
                return self._other(lambda *a, **k: func(*a, **k) + self._handle.sum(), args, kwargs, func.__name__)
        elif func is F.multi_head_attention_forward:
            with self:
                return _attention(*args, **kwargs)
        elif func in POINTWISE or func in BATCH_NORM:
            result = self._other(func, args, kwargs)
            if result.requires_grad:
                (self.norms if func in BATCH_NORM else self.known).append(Known.of(func, args, kwargs, result))
            return result
        elif func in SHIFTS and adds_constant(func, args, kwargs):
            result = self._other(func, args, kwargs)
            if result.requires_grad:
                self.shifted.add(result.grad_fn)
            return result
        elif func in _DIFFERENTIATE and self.cut and any(self.is_data(x) for x in tree_leaves(args[0])):
            raise ActrelaxError(
                "the module differentiates in its forward pass, past weights cut out of the graph: use torch.func.grad."
            )
        elif func is Tensor.retain_grad and args[0].grad_fn is not None:
            raise ActrelaxError(
                "the module calls retain_grad, which would keep a part of the gradient: use register_hook, which gets "
                "all of it."
            )
        elif func is Tensor.register_hook and args[0].grad_fn is not None:
            args = args[0], (hook := Hook(args[1]))
            self.hooks.setdefault(edge_of(args[0]), []).append(hook)
        return self._other(func, args, kwargs)

    def is_weight(self, tensor: object) -> bool:
        """Return whether a tensor is real, and made of parameters and buffers alone."""
        assert isinstance(tensor, Tensor)
        if tensor.is_complex():
            return False  # pieces may be complex, populations not
        held = tensor if tensor._base is None else tensor._base  # a frozen parameter's views have no history
        is_held = id(held) in self.constants and tensor.grad_fn is None
        return is_held or (tensor.requires_grad and not self.is_data(tensor))

    def is_data(self, tensor: Tensor) -> bool:
        """Return whether a tensor depends on a drive, or on a stimulus that requires a gradient."""
        if tensor.grad_fn is None:
            return tensor is self.stimulus
        visited, stack = set[Node](), [tensor.grad_fn]
        while stack:
            node = stack.pop()
            if node in self.drives or getattr(node, "variable", None) is self.stimulus:
                return True
            if node not in visited and node not in self.of_weights:
                visited.add(node)
                stack += [child for child, _ in node.next_functions if child is not None]
        self.of_weights |= visited  # decided: none of them depends on data
        return False

    def cast(self, tensor: Tensor) -> Tensor:
        """Return the tensor in the precision of autocast."""
        dtype = _autocast_dtype(tensor) if torch._C._is_any_autocast_enabled() else None
        if dtype is None or not tensor.is_floating_point() or tensor.dtype is torch.float64:
            return tensor
        return tensor.to(dtype)

    def _drive(self, name: str, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if torch._C._autograd._top_saved_tensors_default_hooks(True) != self._hooks:
            raise ActrelaxError(
                "activation checkpointing recomputes what was cut out of the graph: call the module without it."
            )
        read = operation.read
        assert read is not None
        self.sources.append(edge_of(read) if read.requires_grad else None)
        index = len(self.calls)
        if self.seen is not None:
            self.seen.update(self._new(index, True, (args, kwargs)))
        elif index in self.wanted:
            self._keep(index, True, (args, kwargs))
        operation.read = None
        drive: Tensor = Drive.apply(self._handle, operation.call)  # type: ignore[no-untyped-call]
        assert drive.grad_fn is not None
        self.drives[drive.grad_fn] = len(self.operations)
        self.operations.append(operation)
        operation.call_number = index
        self._count(name, index, drive)
        return drive

    def _other(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = "") -> Any:
        index, before = len(self.calls), None
        if self.seen is not None:
            before = self._new(index, True, (args, kwargs))
        elif index in self.wanted:
            self._keep(index, True, (args, kwargs))
        result = func(*args, **kwargs)
        if _needs_gradient(result) or (result is None and _needs_gradient(args)):
            if before is not None and self.seen is not None:
                self.seen.update(before)
            self._count(name or func.__name__, index, result)
        return result

    def _count(self, name: str, index: int, result: Any) -> None:
        """Note one call and its result; refuse a call that a recorded path doesn't have."""
        self.calls.append(name)
        if self.expected is not None:
            if index >= len(self.expected) or self.expected[index] != name:
                self.left_in = "" if self._where is None else self._where()
                raise AnotherPath(index)
            if index in self.wanted:
                self._keep(index, False, result)
            return
        if self._where is not None:
            self.modules.append(self._where())
        if self.seen is not None:
            self.seen.update(self._new(index, False, result))

    def _new(self, index: int, is_argument: bool, tree: Any) -> list[tuple[Edge, Seen]]:
        """Return the tensors of the graph among some values that have not been seen before."""
        assert self.seen is not None
        found = []
        for leaf, value in enumerate(tree_leaves(tree)):
            if isinstance(value, Tensor) and value.requires_grad:
                edge = edge_of(value)
                if edge not in self.seen:
                    tensor = value.detach()
                    kept = tensor.clone() if self._copies else tensor
                    found.append((edge, Seen(kept, (index, is_argument, leaf), tensor, tensor._version)))
        return found

    def _keep(self, index: int, is_argument: bool, tree: Any) -> None:
        leaves = None
        for (_, of_arguments, leaf), population, copies in self.wanted[index]:
            if of_arguments == is_argument:
                leaves = tree_leaves(tree) if leaves is None else leaves
                if leaf < len(leaves) and isinstance(leaves[leaf], Tensor):
                    value = leaves[leaf].detach()
                    self.values[population] = value.clone() if copies else value
                    if not self.cut and leaves[leaf].requires_grad:
                        self.edges[population] = edge_of(leaves[leaf])


_TENSORS = (Tensor, nn.Parameter, nn.Buffer)
_transform = torch._C._functorch.peek_interpreter_stack
_DIFFERENTIATE = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)


class AnotherPath(Exception):  # noqa: N818
    """A call that the recorded path doesn't have, by its number."""


def _needs_gradient(result: Any) -> bool:
    if type(result) is Tensor:
        return result.requires_grad
    if isinstance(result, tuple | list):
        return any(isinstance(each, Tensor) and each.requires_grad for each in result)
    return isinstance(result, Tensor) and result.requires_grad


def _autocast_dtype(like: Tensor) -> torch.dtype | None:
    kind = like.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def _own_attention() -> Callable[..., Any]:
    """Return a copy of PyTorch's attention function whose inner calls the mode sees."""
    function = F.multi_head_attention_forward
    plain = {**function.__globals__, "has_torch_function": lambda tensors: False}
    return types.FunctionType(function.__code__, plain, function.__name__, function.__defaults__, function.__closure__)


_attention = _own_attention()
