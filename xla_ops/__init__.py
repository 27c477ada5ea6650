"""Custom calls of pufferjax, native on the CPU, some on CUDA; each has a pure-JAX twin: specification and fallback."""

from pufferjax.xla_ops.entity_encoder.op import entity_encoder
from pufferjax.xla_ops.ffi import backends
from pufferjax.xla_ops.gae_vtrace.op import gae_vtrace
from pufferjax.xla_ops.linear_max.op import linear_max
from pufferjax.xla_ops.linear_recurrence.op import linear_recurrence
from pufferjax.xla_ops.mingru_layer.op import mingru_layer
from pufferjax.xla_ops.one_hot_linear.op import one_hot_linear
from pufferjax.xla_ops.prioritized_sample.op import prioritized_sample
from pufferjax.xla_ops.state_heap.op import state_heap_insert, state_heap_rescore

# The native targets behind each public op; `backends()` reports from this table.
OP_TARGETS = {
    "entity_encoder": ("pufferjax.entity_encoder", "pufferjax.entity_encoder.fwd", "pufferjax.entity_encoder.bwd"),
    "gae_vtrace": ("pufferjax.gae_vtrace",),
    "linear_max": ("pufferjax.linear_max", "pufferjax.linear_max.fwd", "pufferjax.linear_max.bwd"),
    "linear_recurrence": (
        "pufferjax.linear_recurrence",
        "pufferjax.linear_recurrence.bwd",
        "pufferjax.linear_recurrence.bf16",
        "pufferjax.linear_recurrence.bwd.bf16",
    ),
    "mingru_layer": ("pufferjax.mingru_layer", "pufferjax.mingru_layer.fwd", "pufferjax.mingru_layer.bwd"),
    "one_hot_linear": ("pufferjax.one_hot_linear.fwd", "pufferjax.one_hot_linear.bwd"),
    "prioritized_sample": ("pufferjax.prioritized_sample",),
    "state_heap_insert": ("pufferjax.state_heap.insert",),
    "state_heap_rescore": ("pufferjax.state_heap.rescore",),
}

# Those of another native form, for platforms that lack the first.
ALTERNATIVE_TARGETS = {
    "entity_encoder": (
        "pufferjax.entity_encoder",
        "pufferjax.entity_encoder.fwd",
        "pufferjax.entity_encoder.bwd.scratch",
    ),
    "linear_max": ("pufferjax.linear_max", "pufferjax.linear_max.fwd", "pufferjax.linear_max.bwd.scratch"),
    "mingru_layer": ("pufferjax.mingru_layer.cell", "pufferjax.mingru_layer.cell.bwd"),
    "one_hot_linear": ("pufferjax.one_hot_linear.fwd", "pufferjax.one_hot_linear.bwd.scratch"),
    "prioritized_sample": ("pufferjax.prioritized_sample.scratch",),
}

__all__ = [
    "backends",
    "entity_encoder",
    "gae_vtrace",
    "linear_max",
    "linear_recurrence",
    "mingru_layer",
    "one_hot_linear",
    "prioritized_sample",
    "state_heap_insert",
    "state_heap_rescore",
]
