"""pufferjax: learn from a reward that a random agent meets once in ten million steps, in JAX."""

import pkgutil

# Imported from the repository's root, this folder hides the installed package, which alone holds xla_ops and envs.
__path__ = pkgutil.extend_path(__path__, __name__)
