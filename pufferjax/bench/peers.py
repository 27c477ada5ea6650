"""The same games in other people's JAX suites, as something `bench envs --peer` can step: pip install '.[peers]'.

Every peer resets by itself, as that suite does it, and its observations go from step to step, so that XLA cannot leave
them out. Where the rules differ from ours, its name says how.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import jax


@dataclasses.dataclass(frozen=True)
class Peer:
    """reset(keys[N]) -> state of N environments; step(key, state, action i32[N]) -> (state, rewards f32[N]).

    The state holds the observations.
    """

    name: str  # and what is not as in ours
    reset: Callable
    step: Callable
    num_actions: int


def _jumanji(name: str, environment: Any) -> Peer:
    from jumanji.wrappers import AutoResetWrapper, VmapWrapper

    env = VmapWrapper(AutoResetWrapper(environment))

    def reset(keys):
        state, timestep = env.reset(keys)
        return state, timestep.observation

    def step(_, carry, action):  # the states bring the keys of their resets
        state, timestep = env.step(carry[0], action)
        return (state, timestep.observation), timestep.reward

    return Peer(f"Jumanji {name}", reset, step, int(env.action_spec.num_values))


def _jumanji_2048(params: Mapping[str, Any]) -> Peer:
    from jumanji.environments import Game2048

    return _jumanji("Game2048", Game2048())


def _jumanji_sokoban(params: Mapping[str, Any]) -> Peer:
    from jumanji.environments import Sokoban
    from jumanji.environments.routing.sokoban.generator import SimpleSolveGenerator

    # Its generators of many levels read files that would have to be fetched.
    return _jumanji("Sokoban, always the same level", Sokoban(generator=SimpleSolveGenerator()))


def _jumanji_maze(params: Mapping[str, Any]) -> Peer:
    from jumanji.environments import Maze
    from jumanji.environments.routing.maze.generator import RandomGenerator

    maze = Maze(generator=RandomGenerator(params["size"], params["size"]))
    return _jumanji("Maze of the same size, seen whole; under vmap it makes a maze in every step", maze)


def _navix_four_rooms(params: Mapping[str, Any]) -> Peer:
    # Its agents need packages that do not import with every JAX of today; the environments need neither.
    unused = dict.fromkeys(("navix.agents", "navix.experiment"), mock.MagicMock())
    with mock.patch.dict(sys.modules, {} if "navix" in sys.modules else unused):
        import navix

    env = navix.make("Navix-FourRooms-v0", observation_fn=navix.observations.symbolic_first_person)

    def step(_, timestep, action):
        timestep = jax.vmap(env.step)(timestep, action)
        return timestep, timestep.reward

    return Peer("NAVIX FourRooms", jax.vmap(env.reset), step, int(env.action_space.maximum) + 1)


def _gymnax_breakout(params: Mapping[str, Any]) -> Peer:
    import gymnax

    env, env_params = gymnax.make("Breakout-MinAtar")

    def reset(keys):
        observations, state = jax.vmap(env.reset, (0, None))(keys, env_params)
        return state, observations

    def step(key, carry, action):
        keys = jax.random.split(key, len(action))
        results = jax.vmap(env.step, (0, 0, 0, None))(keys, carry[0], action, env_params)
        observations, state, reward = results[:3]
        return (state, observations), reward

    return Peer("gymnax Breakout-MinAtar, on 10 x 10 cells", reset, step, int(env.num_actions))


# Native environment -> how to make its peer from our parameters.
PEERS: dict[str, Callable[[Mapping[str, Any]], Peer]] = {
    "boxoban": _jumanji_sokoban,
    "breakout": _gymnax_breakout,
    "four_rooms": _navix_four_rooms,
    "g2048": _jumanji_2048,
    "maze": _jumanji_maze,
}


def make_peer(name: str, params: Mapping[str, Any]) -> Peer:
    """The peer of the native environment `name`. ValueError if no suite has one, or saying what to install."""
    if name not in PEERS:
        raise ValueError(f"--peer: no other suite has {name}; those with one are {', '.join(PEERS)}")
    try:
        return PEERS[name](params)
    except ImportError as error:
        raise ValueError(f"--peer needs another package: pip install '.[peers]' ({error})") from None
