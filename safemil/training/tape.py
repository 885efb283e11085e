"""On CPUs: one update of the training loop taken down as a list of operations, which the updates after it repeat.

Around a small network's arithmetic Python and autograd take about as long as the arithmetic. What they come to is the
same in every update: the same operations in the same order on the same memory. So two updates are run with a tape on,
which is told of every operation below autograd; if both tapes say the same, the rest are calls of the function that
torch.fx writes from it. The results are the same bit for bit. CUDA graphs (safemil/training/capture.py) are this on a
GPU.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

INDEXING = {torch.ops.aten.index, torch.ops.aten.index_put_}  # of a fixed shape unless by a mask
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # its only draws would be dropout
NEVER_THE_SAME = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded)


def tensors(nested: Any) -> list[Tensor]:
    """Those in an operation's arguments or result."""
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


def can_be_repeated(operation: torch._ops.OpOverload, arguments: tuple) -> bool:
    """Not if it reads data back, has a shape that depends on data, draws, or makes a tensor from Python's values."""
    if operation is torch.ops.aten.lift_fresh.default:
        return False
    if operation.overloadpacket in INDEXING:
        return not any(own.dtype in (torch.bool, torch.uint8) for own in tensors(arguments[1]))
    return operation.overloadpacket is ATTENTION or not any(tag in operation.tags for tag in NEVER_THE_SAME)


class Tape(TorchDispatchMode):
    """Takes down what is run within ``with``; ``function()`` runs it again.

    Tensors that were there before stay what they are: constants, of which views are taken once. Those made on the way
    are made anew each time, and freed after their last use.
    """

    def __init__(self) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.constants: list[Tensor] = []
        self.nodes = WeakTensorKeyDictionary()  # of tensors that are still in use
        self.complete = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch's way to say that no compiler sees this: else it is imported here, which takes a second."""
        return False

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        options = options or {}
        result = operation(*arguments, **options)
        self.complete = self.complete and can_be_repeated(operation, arguments)
        if self.complete:
            self.take_down(operation, arguments, options, result)
        return result

    def keep(self, constant: Tensor) -> None:
        self.nodes[constant] = self.graph.placeholder(f"constant_{len(self.constants)}")
        self.constants.append(constant.detach())

    def node(self, tensor: Tensor) -> fx.Node:
        if tensor not in self.nodes:
            self.keep(tensor)
        return self.nodes[tensor]

    def take_down(self, operation, arguments: tuple, options: dict, result: Any) -> None:
        read = [self.node(own) for own in tensors((arguments, options))]
        if operation is torch.ops.aten.detach.default:
            self.nodes[result] = read[0]
        elif is_view(operation) and all(node.op == "placeholder" for node in read):
            for own in tensors(result):
                self.keep(own)
        else:
            made = self.graph.call_function(operation, *tree_map_only(Tensor, self.node, (arguments, options)))
            for number, own in enumerate(tensors(result)):
                single = isinstance(result, Tensor)
                self.nodes[own] = made if single else self.graph.call_function(operator.getitem, (made, number))

    def says_the_same_as(self, other: Tape) -> bool:
        """Operations, constants and the numbers between them."""
        memory = [[(own.data_ptr(), own.shape, own.stride()) for own in tape.constants] for tape in (self, other)]
        return self.complete and other.complete and memory[0] == memory[1] and str(self.graph) == str(other.graph)

    def function(self) -> Callable[[], None]:
        """What is on the tape, as a function; ``print(tape.graph.python_code("self").src)`` shows its source."""
        self.graph.output(None)
        run = fx.GraphModule(nn.Module(), self.graph).forward
        return torch.inference_mode()(functools.partial(run, *self.constants))


def is_view(operation: torch._ops.OpOverload) -> bool:
    return any(own.alias_info is not None and not own.alias_info.is_write for own in operation._schema.returns)


class TapedUpdate:
    """Calls of ``update``, which takes and gives nothing: the first as it is, two with a tape on, then from the tape.

    If the tapes differ, or hold what cannot be repeated, all are calls as they are.
    """

    def __init__(self, update: Callable[[], Any]) -> None:
        self.update, self.tapes = update, []
        self.repeats = False  # whether calls come from the tape by now
        self.run = self.first

    def __call__(self) -> None:
        self.run()

    def first(self) -> None:
        self.update()  # makes what stays: sums of metrics
        self.run = self.taped

    def taped(self) -> None:
        tape = Tape()
        with tape:
            self.update()
        self.tapes.append(tape)
        if len(self.tapes) == 2:
            self.repeats = self.tapes[0].says_the_same_as(tape)
            self.run, self.tapes = tape.function() if self.repeats else self.update, []
