"""Custom calls of pufferjax: native on the CPU, each with a pure-JAX twin that is its specification and fallback."""

from pufferjax.xla_ops.ffi import backends
from pufferjax.xla_ops.gae_vtrace.op import gae_vtrace
from pufferjax.xla_ops.one_hot_linear.op import one_hot_linear

# The native targets behind each public op; `backends()` reports from this table.
OP_TARGETS = {
    "gae_vtrace": ("pufferjax.gae_vtrace",),
    "one_hot_linear": ("pufferjax.one_hot_linear.fwd", "pufferjax.one_hot_linear.bwd"),
}

__all__ = ["backends", "gae_vtrace", "one_hot_linear"]
