"""gymnax: its environments have the interface of `from_gymnax` already. Their parameters are the numbers among the
arguments of the class and the fields of its `default_params`."""

from typing import Any

import gymnax

from pufferjax.envs.base import Env
from pufferjax.envs.gymnax import from_gymnax
from pufferjax.envs.suites.plain import plain_arguments, plain_fields


def names() -> tuple[str, ...]:
    return tuple(gymnax.registered_envs)


def defaults(name: str) -> dict[str, Any]:
    env, params = gymnax.make(name)
    return {**plain_arguments(type(env), env), **plain_fields(params)}


def build(name: str, params: dict[str, Any]) -> Env:
    env, default_params = gymnax.make(name)
    arguments = plain_arguments(type(env), env)
    env, default_params = gymnax.make(name, **{key: params[key] for key in arguments})
    fields = {key: params[key] for key in plain_fields(default_params)}
    return from_gymnax(env, default_params.replace(**fields), name=f"gymnax:{name}")
