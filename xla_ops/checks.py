"""Argument checks shared by the ops: one clear error that names the argument, what came, and what is valid."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@contextlib.contextmanager
def usual_promotion() -> Iterator[None]:
    """JAX's own rules for mixed types and ranks, whatever the process has asked for: also a decorator.

    `jax_numpy_dtype_promotion="strict"` and `jax_numpy_rank_promotion="raise"` are for the code of whoever sets them;
    what is traced here, Flax and Optax included, is written for the defaults.
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def check_array(op: str, name: str, x: Any, shape: tuple[Any, ...], dtype: Any) -> jax.Array:
    """`x` as an array of exactly `dtype` and `shape`; a str in `shape` stands for any size and names it in the error.

    One Ellipsis in `shape` stands for any number of axes. `dtype` may be a tuple: one of these, the first for numbers
    that have none.

    Raises TypeError for something that is not an array of `dtype`, ValueError for a wrong shape.
    """
    dtypes = [jnp.dtype(d) for d in (dtype if isinstance(dtype, tuple) else (dtype,))]
    expected = " or ".join(d.name for d in dtypes) + f"[{', '.join('...' if s is ... else str(s) for s in shape)}]"
    dtype = next((d for d in dtypes if getattr(x, "dtype", None) == d), dtypes[0])
    if isinstance(x, (bool, int, float, list, tuple, np.generic)) and not isinstance(x, jax.Array):
        try:
            x = np.asarray(x)
        except ValueError:
            raise TypeError(f"{op}: {name} must be an array {expected}, got a ragged {type(x).__name__}") from None
        if x.size == 0 or np.can_cast(x.dtype, dtype, "same_kind"):
            x = x.astype(dtype)
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        raise TypeError(f"{op}: {name} must be an array {expected}, got {type(x).__name__}")
    if x.dtype != dtype:
        if isinstance(x, np.ndarray) and x.dtype == np.float64 and dtype == jnp.float32:
            x = x.astype(np.float32)  # NumPy's default float; JAX itself demotes it the same way
        elif isinstance(x, np.ndarray) and x.dtype == np.int64 and dtype == jnp.int32:
            if x.size and (x.min() < -(2**31) or x.max() >= 2**31):  # NumPy's default int, without silent wrapping
                raise ValueError(f"{op}: {name} must be {expected}, got values from {x.min()} to {x.max()}")
            x = x.astype(np.int32)
        else:
            raise TypeError(f"{op}: {name} must be {expected}, got dtype {x.dtype}")
    gap = shape.index(...) if ... in shape else None
    head, tail = (shape, ()) if gap is None else (shape[:gap], shape[gap + 1 :])
    num_named, num_axes = len(head) + len(tail), len(x.shape)
    sizes = (*x.shape[: len(head)], *x.shape[num_axes - len(tail) :])
    matches = num_axes == num_named if gap is None else num_axes >= num_named
    if not matches or any(not isinstance(s, str) and s != d for s, d in zip((*head, *tail), sizes, strict=True)):
        raise ValueError(f"{op}: {name} must have shape {expected}, got {tuple(x.shape)}")
    return jnp.asarray(x)


def check_scalar(
    op: str,
    name: str,
    x: Any,
    low: float = -np.inf,
    high: float = np.inf,
    *,
    strict_low: bool = False,
    infinite: bool = False,
) -> jax.Array:
    """`x` as an f32 scalar; a concrete value outside [low, high] (or NaN) raises ValueError, a traced one passes.

    infinite: whether infinity itself is valid.
    """
    valid = f"a {'' if infinite else 'finite '}number in {'(' if strict_low else '['}{low:g}, {high:g}]"
    if getattr(x, "shape", ()) != ():
        raise ValueError(f"{op}: {name} must be a scalar, got shape {x.shape}")
    if isinstance(x, jax.core.Tracer):
        return x.astype(jnp.float32)
    try:
        value = float("" if isinstance(x, (str, bytes, bytearray)) else x)  # float would read the text "0.5"
    except OverflowError:
        raise ValueError(f"{op}: {name} must be {valid}, got an integer beyond every float") from None
    except (TypeError, ValueError):
        raise TypeError(f"{op}: {name} must be {valid}, got {x!r}") from None
    is_valid = abs(value) <= float(np.finfo(np.float32).max) or (infinite and np.isinf(value))  # also as f32
    if not is_valid or not (low < value if strict_low else low <= value) or value > high:
        raise ValueError(f"{op}: {name} must be {valid}, got {value!r}")
    return jnp.float32(value)


def check_index(op: str, name: str, x: Any, low: int, high: int) -> jax.Array:
    """`x` as an i32 scalar; a concrete value outside [low, high] raises ValueError, a traced one passes.

    Raises TypeError for anything but an integer.
    """
    valid = f"an integer in [{low}, {high}]"
    if not isinstance(x, (int, np.integer, np.ndarray, jax.Array)) or isinstance(x, (bool, np.bool_)):
        raise TypeError(f"{op}: {name} must be {valid}, got {x!r}")
    if not isinstance(x, int):
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise TypeError(f"{op}: {name} must be {valid}, got dtype {x.dtype}")
        if x.shape != ():
            raise ValueError(f"{op}: {name} must be a scalar, got shape {x.shape}")
    if isinstance(x, jax.core.Tracer):
        return x.astype(jnp.int32)
    if not low <= int(x) <= high:
        raise ValueError(f"{op}: {name} must be {valid}, got {int(x)}")
    return jnp.int32(x)


def check_count(op: str, name: str, x: Any, low: int, high: int = 2**31 - 1) -> int:
    """`x` as a static int in [low, high]; raises TypeError or ValueError."""
    if isinstance(x, bool) or not isinstance(x, (int, np.integer)):
        raise TypeError(f"{op}: {name} must be a static integer in [{low}, {high}], got {x!r}")
    if not low <= int(x) <= high:
        raise ValueError(f"{op}: {name} must be an integer in [{low}, {high}], got {int(x)}")
    return int(x)


# In JAX's terms (`jax.lax.Precision` and its aliases): passes over bfloat16 parts of the factors; 0: exact float32.
_PASSES = {
    "highest": 0,
    "float32": 0,
    "high": 3,
    "bfloat16_3x": 3,
    "tensorfloat32": 3,
    "default": 1,
    "bfloat16": 1,
    "fastest": 1,
}


def check_precision(op: str, precision: Any) -> int:
    """The number of passes over bfloat16 parts that `precision` permits: 0 (exact float32), 1 or 3.

    Raises ValueError unless it is None (exact), a name or a `jax.lax.Precision`.
    """
    name = precision.name.lower() if isinstance(precision, jax.lax.Precision) else precision
    if name is None:
        return 0
    if not isinstance(name, str) or name not in _PASSES:
        raise ValueError(
            f"{op}: precision must be None, {', '.join(map(repr, _PASSES))} or a jax.lax.Precision, got {precision!r}"
        )
    return _PASSES[name]


def random_words(op: str, key: Any, shape: tuple[int, ...]) -> jax.Array:
    """u32[*shape] random bits from a JAX key (typed, or raw u32[2]); TypeError naming `key` for anything else."""
    if not (hasattr(key, "dtype") and (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.dtype == jnp.uint32)):
        raise TypeError(f"{op}: key must be a JAX random key (jax.random.key(seed)), got {key!r}")
    expected = () if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else (2,)
    if tuple(key.shape) != expected:
        raise ValueError(f"{op}: key must be one key of shape {expected}, got shape {tuple(key.shape)}")
    return jax.random.bits(key, shape, jnp.uint32)
