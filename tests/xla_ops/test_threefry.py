"""The native hash gives the bits of jax.random."""

import jax
import numpy as np

from pufferjax.xla_ops.threefry.lowering import lower


def test_the_bits_are_those_of_jax():
    def draw(key, keys):
        data = jax.random.key_data
        return (
            data(jax.random.split(key, (3, 5))),
            data(jax.random.fold_in(key, 7)),
            jax.random.uniform(key, (1000, 7)),
            jax.vmap(lambda key: jax.random.bits(key, (9,)))(keys),
            jax.vmap(lambda key, n: data(jax.random.fold_in(key, n)))(keys, np.arange(6)),
            jax.random.permutation(key, 101),
            jax.random.normal(key, (200_001,)),  # on several threads
            jax.random.bits(key, (0,)),
        )

    key = jax.random.key(3)
    operands = key, jax.random.split(key, 6)
    lowered = lower(jax.jit(draw), *operands, platform="cpu")
    assert "pufferjax.threefry2x32" in lowered.as_text()
    assert "pufferjax.threefry2x32" not in jax.jit(draw).lower(*operands).as_text()  # nobody else's programs
    for ours, theirs in zip(lowered.compile()(*operands), jax.jit(draw)(*operands), strict=True):
        np.testing.assert_array_equal(ours, theirs)
