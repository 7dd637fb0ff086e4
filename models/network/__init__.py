"""Networks: populations, projections and their graph."""

from actrelax.models.network.activations import ACTIVATIONS, Activation, Formula, Fused, leaky_relu
from actrelax.models.network.architectures import ARCHITECTURES, Architecture, build
from actrelax.models.network.feedforward_pass import FeedforwardPass
from actrelax.models.network.from_sequential import weighted_layers
from actrelax.models.network.graph import Graph
from actrelax.models.network.network import Network, Slot, check_network
from actrelax.models.network.population import Population
from actrelax.models.network.projection import Projection, ProjectionRoute
from actrelax.models.network.source import changed_layer, structure
from actrelax.models.network.stimuli import check_tensor

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "Activation",
    "Architecture",
    "FeedforwardPass",
    "Formula",
    "Fused",
    "Graph",
    "Network",
    "Population",
    "Projection",
    "ProjectionRoute",
    "Slot",
    "build",
    "changed_layer",
    "check_network",
    "check_tensor",
    "leaky_relu",
    "structure",
    "weighted_layers",
]
