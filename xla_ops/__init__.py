"""Custom calls of pufferjax: native on the CPU, each with a pure-JAX twin that is its specification and fallback."""

from pufferjax.xla_ops.ffi import backends
from pufferjax.xla_ops.gae_vtrace.op import gae_vtrace
from pufferjax.xla_ops.linear_recurrence.op import linear_recurrence
from pufferjax.xla_ops.mingru_scan.op import mingru_scan

# The native targets behind each public op; `backends()` reports from this table.
OP_TARGETS = {
    "gae_vtrace": ("pufferjax.gae_vtrace",),
    "linear_recurrence": ("pufferjax.linear_recurrence", "pufferjax.linear_recurrence.bwd"),
    "mingru_scan": ("pufferjax.mingru_scan", "pufferjax.mingru_scan.fwd", "pufferjax.mingru_scan.bwd"),
}

__all__ = ["backends", "gae_vtrace", "linear_recurrence", "mingru_scan"]
