"""Networks: populations, projections and their graph."""

from actrelax.models.network.activations import ACTIVATIONS, Activation, Formula, Fused, leaky_relu
from actrelax.models.network.architectures import ARCHITECTURES, Architecture, build
from actrelax.models.network.captured.capture import capture
from actrelax.models.network.captured.forward_pass import CapturedPass
from actrelax.models.network.captured.network import CapturedNetwork
from actrelax.models.network.captured.operations import Operation
from actrelax.models.network.captured.structure import CapturedProjection
from actrelax.models.network.feedback import effective_feedback
from actrelax.models.network.feedforward_pass import FeedforwardPass, sum_in_order
from actrelax.models.network.from_sequential import weighted_layers
from actrelax.models.network.graph import Graph
from actrelax.models.network.named_modules import MODULES, Design, ModuleArchitecture, build_module
from actrelax.models.network.network import Network, Slot, check_network
from actrelax.models.network.population import Population
from actrelax.models.network.projection import Projection, ProjectionRoute
from actrelax.models.network.source import changed_layer, structure
from actrelax.models.network.stimuli import check_stimuli, check_tensor

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "MODULES",
    "Activation",
    "Architecture",
    "CapturedNetwork",
    "CapturedPass",
    "CapturedProjection",
    "Design",
    "FeedforwardPass",
    "Formula",
    "Fused",
    "Graph",
    "ModuleArchitecture",
    "Network",
    "Operation",
    "Population",
    "Projection",
    "ProjectionRoute",
    "Slot",
    "build",
    "build_module",
    "capture",
    "changed_layer",
    "check_network",
    "check_stimuli",
    "check_tensor",
    "effective_feedback",
    "leaky_relu",
    "structure",
    "sum_in_order",
    "weighted_layers",
]
