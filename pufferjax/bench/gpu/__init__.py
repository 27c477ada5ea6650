"""`pufferjax bench gpu`: everything that needs a GPU, run and measured there within minutes, one JSON line each.

Also `python -m pufferjax.bench.gpu`, which needs only jax, flax, optax and numpy beside the native modules. The process
that is started (`__main__`) touches no GPU: it starts children (`children`), each for some of the items of the phases,
and writes what they send (`report`). An item that crashes or hangs costs its child; another one goes on after it.
"""
