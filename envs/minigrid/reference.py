"""MiniGrid once more, slowly: NumPy, written from the rules of the package. For tests.

Randomness is the same Philox stream, so levels and episodes agree bit for bit with the native simulator.
"""

import numpy as np

from pufferjax.envs.four_rooms.reference import AHEAD, VIEW, sight
from pufferjax.envs.minigrid import minigrid as rows
from pufferjax.envs.philox import Philox

WALL, FREE, GOAL, LAVA = (2, 5, 0), (1, 0, 0), (8, 1, 0), (9, 0, 0)
DOOR, KEY, BALL, BOX = 4, 5, 6, 7  # objects
IS_OPEN, IS_CLOSED, IS_LOCKED = range(3)  # states of doors
RED, GREEN, BLUE, PURPLE, YELLOW, GREY = range(6)
BY_NAME = (BLUE, GREEN, GREY, PURPLE, RED, YELLOW)  # the order in which colours are chosen
NOWHERE = (-9, -9)
HALF = VIEW // 2


def board(cells: np.ndarray) -> np.ndarray:
    """u8[width, height, 4] of the cells u8[height, width] of a row, as in `MiniGrid.grid`; u8[4] of one."""
    return _OF_CODES[np.asarray(cells).T]


def _of_code(code: int) -> tuple[int, int, int, int]:
    kind, colour = code & 0xF8, code % 8
    plain = {rows.WALL: WALL, rows.FREE: FREE, rows.GOAL: GOAL, rows.LAVA: LAVA}
    things = {
        rows.CLOSED: (DOOR, IS_CLOSED), rows.LOCKED: (DOOR, IS_LOCKED), rows.OPEN: (DOOR, IS_OPEN), rows.KEY: (KEY, 0),
        rows.BALL: (BALL, 0),
    }  # fmt: skip
    if kind in plain:
        return (*plain[kind], 0)
    thing, state = things.get(kind, (BOX, 0))
    return thing, colour, state, (kind - rows.BOX) // rows.WITH_KEY if kind > rows.BOX else 0


_OF_CODES = np.array([_of_code(code) for code in range(256)], np.uint8)


class Choices:
    """Several choices from one draw, as ChoiceRandom in xla_ops/common/random.h."""

    def __init__(self, seed: int):
        self.state, self.fraction = seed | 1, 0

    def draw(self) -> None:
        self.state ^= self.state >> 12
        self.state = (self.state ^ self.state << 25) % 2**64
        self.state ^= self.state >> 27
        self.fraction = self.state * 0x2545F4914F6CDD1D % 2**64

    def below(self, n: int) -> int:
        digit, self.fraction = divmod(self.fraction * n, 2**64)
        return digit


class MiniGrid:
    """N simulators in lockstep; `words` are the two u32 that a call's key gives, `jax.random.bits(key, (2,))`."""

    def __init__(
        self,
        num_envs: int,
        *,
        task: str,
        max_steps: int = 0,
        see_through_walls: bool = False,
        num_levels: int = 0,
        seed: int = 42,
    ):
        self.num_levels, self.seed = num_levels, seed
        self.task = rows.TASKS[task]
        self.height, self.width = rows.grid_shape(task)
        self.max_steps = max_steps or self.task.max_steps
        self.sees_all = see_through_walls or self.task.family == "Empty"
        self.tick = np.zeros(num_envs, np.int64)
        self.agent = [NOWHERE] * num_envs
        self.heading = [0] * num_envs
        self.carrying: list[tuple | None] = [None] * num_envs  # (object, colour, state), contents
        self.target: list[tuple | None] = [None] * num_envs  # (object, colour, state)
        # [x, y]: object, colour, state, and one plus the colour of the key in a box; VIEW cells of wall around it.
        frame = (num_envs, self.width + 2 * VIEW, self.height + 2 * VIEW, 4)
        self.framed = np.tile(np.array([*WALL, 0], np.uint8), (*frame[:3], 1))

    def grid(self, env: int) -> np.ndarray:
        """u8[width, height, 4], a view."""
        return self.framed[env, VIEW:-VIEW, VIEW:-VIEW]

    def reset(self, words: np.ndarray) -> np.ndarray:
        for env in range(len(self.tick)):
            self._begin(env, Philox(words[0], words[1], env))
        return self.observe()

    def step(self, words: np.ndarray, actions: np.ndarray) -> tuple:
        """obs, reward, terminated, truncated, info: as in `Env.step`."""
        num_envs = len(self.tick)
        reward, length = np.zeros(num_envs, np.float32), np.zeros(num_envs, np.int32)
        terminated, truncated = np.zeros(num_envs, bool), np.zeros(num_envs, bool)
        self.tick += 1
        for env, action in enumerate(actions.tolist()):
            solved, lost = self._act(env, action)
            terminated[env] = solved or lost
            truncated[env] = not terminated[env] and self.tick[env] >= self.max_steps
            if solved:
                reward[env] = 1 - 0.9 * (self.tick[env] / self.max_steps)
            if terminated[env] or truncated[env]:
                length[env] = self.tick[env]
                self._begin(env, Philox(words[0], words[1], env))
        perf = (reward > 0).astype(np.float32)
        info = {"episode_return": reward, "episode_length": length, "score": reward, "perf": perf}
        return self.observe(), reward, terminated, truncated, info

    def observe(self) -> np.ndarray:
        views = np.stack([self._view(env) for env in range(len(self.tick))])
        hides = (views[..., 0] == WALL[0]) | ((views[..., 0] == DOOR) & (views[..., 2] != IS_OPEN))
        seen = np.ones(hides.shape, bool) if self.sees_all else sight(~hides)
        views = np.where(seen[..., None], views, np.uint8(0))
        for env, thing in enumerate(self.carrying):
            views[env, HALF, VIEW - 1] = thing[0] if thing else FREE
        return views

    def _act(self, env: int, action: int) -> tuple[bool, bool]:
        """Whether the episode ended solved, or lost."""
        grid, (x, y), (dx, dy) = self.grid(env), self.agent[env], AHEAD[self.heading[env]]
        ahead = grid[x + dx, y + dy]
        shown, contents = tuple(ahead[:3].tolist()), int(ahead[3])
        kind, colour, state = shown
        if action < 2:
            self.heading[env] = (self.heading[env] + (1 if action else -1)) % 4
        elif action == 2 and (shown in (FREE, GOAL, LAVA) or (kind == DOOR and state == IS_OPEN)):
            self.agent[env] = (x + dx, y + dy)
            return shown == GOAL, shown == LAVA
        elif action == 3 and kind in (KEY, BALL, BOX) and self.carrying[env] is None:
            self.carrying[env] = (shown, contents)
            ahead[:] = (*FREE, 0)
            return (shown == self.target[env] and contents == 0), False
        elif action == 4 and shown == FREE and self.carrying[env] is not None:
            thing, contents = self.carrying[env]
            ahead[:] = (*thing, contents)
            self.carrying[env] = None
        elif action == 5 and kind == BOX:
            ahead[:] = (KEY, contents - 1, 0, 0) if contents else (*FREE, 0)
        elif action == 5 and kind == DOOR:
            has_key = self.carrying[env] is not None and self.carrying[env][0] == (KEY, colour, 0)
            if state != IS_LOCKED:
                ahead[2] = IS_CLOSED if state == IS_OPEN else IS_OPEN
            elif has_key:
                ahead[2] = IS_OPEN
            if ahead[2] == IS_OPEN and self.task.family == "Unlock":
                return True, False
            if ahead[2] == IS_OPEN and self.task.family == "RedBlueDoors" and colour == BLUE:
                doors = grid[..., :3].reshape(-1, 3).tolist()
                is_in_order = [DOOR, RED, IS_OPEN] in doors
                return is_in_order, not is_in_order
        return False, False

    def _view(self, env: int) -> np.ndarray:
        """u8[7, 7, 3], turned so that the agent looks at column j = 0 from (3, 6)."""
        (x, y), (dx, dy) = self.agent[env], AHEAD[self.heading[env]]
        left, top = x + VIEW - HALF + HALF * dx, y + VIEW - HALF + HALF * dy
        return np.rot90(self.framed[env, left : left + VIEW, top : top + VIEW, :3], -(self.heading[env] + 1))

    def _begin(self, env: int, random: Philox) -> None:
        if self.num_levels:
            random = Philox(self.seed % 2**32, self.seed >> 32, random.below(self.num_levels), 1)
        level = Level(self.task, self.grid(env), random)
        self.agent[env], self.heading[env], self.target[env] = level.agent, level.heading, level.target
        self.carrying[env] = None
        self.tick[env] = 0


class Level:
    """Draws a level into `grid` u8[width, height, 4]; `agent`, `heading` and `target` are the rest of it."""

    def __init__(self, task, grid: np.ndarray, random: Philox):
        self.task, self.grid, self.below = task, grid, random.below
        self.random = random
        self.width, self.height = grid.shape[:2]
        self.agent, self.heading, self.target = NOWHERE, 0, None
        grid[:] = (*WALL, 0)
        pickup = self._unlock
        makers = {
            "MultiRoom": self._multi_room, "KeyCorridor": self._key_corridor, "Unlock": pickup, "UnlockPickup": pickup,
            "BlockedUnlockPickup": pickup, "ObstructedMaze": self._obstructed_maze, "RedBlueDoors": self._red_blue,
        }  # fmt: skip
        makers.get(task.family, self._room_with_goal)()

    def colour(self) -> int:
        return BY_NAME[self.below(6)]

    def set(self, cell, thing, contents: int = 0) -> None:
        self.grid[cell] = (*thing, contents)

    def fill(self, left, top, width, height, thing) -> None:
        self.grid[left : left + width, top : top + height] = (*thing, 0)

    def free_cell(self, left, top, width, height, apart: int = 1) -> tuple[int, int]:
        while True:
            x = left + self.below(width)
            y = top + self.below(height)
            distance = abs(x - self.agent[0]) + abs(y - self.agent[1])
            if tuple(self.grid[x, y, :3].tolist()) == FREE and distance >= apart:
                return x, y

    def place_agent(self, *box: int) -> None:
        self.agent = NOWHERE
        self.agent = self.free_cell(*box)
        self.heading = self.below(4)

    # --- one room
    def _room_with_goal(self) -> None:
        size, flags = self.task.size, self.task.flags
        self.fill(1, 1, self.width - 2, self.height - 2, FREE)
        self.set((self.width - 2, self.height - 2), GOAL)
        if self.task.family == "DoorKey":
            wall = 2 + self.below(size - 4)
            self.fill(wall, 0, 1, size, WALL)
            self.place_agent(0, 0, wall, size)
            self.set((wall, 1 + self.below(size - 3)), (DOOR, YELLOW, IS_LOCKED))
            self.set(self.free_cell(0, 0, wall, size), (KEY, YELLOW, 0))
        elif self.task.family == "Crossing":
            self.agent = (1, 1)
            self._crossing(WALL if flags else LAVA)
        elif flags:
            self.place_agent(0, 0, size, size)
        else:
            self.agent = (1, 1)

    def _crossing(self, thing) -> None:
        size = self.task.size
        rivers = [(is_level, at) for is_level in (False, True) for at in range(2, size - 2, 2)]
        chosen = sorted(rivers.pop(self.below(len(rivers))) for _ in range(self.task.count))
        upright = [at for is_level, at in chosen if not is_level]
        level = [at for is_level, at in chosen if is_level]
        for x in upright:
            self.fill(x, 1, 1, size - 2, thing)
        for y in level:
            self.fill(1, y, size - 2, 1, thing)
        ahead = [True] * len(upright) + [False] * len(level)
        path = [ahead.pop(self.below(len(ahead))) for _ in range(self.task.count)]
        column, row = [0, *upright, size - 1], [0, *level, size - 1]
        for is_upright in path:
            if is_upright:
                cell = column[1], row[0] + 1 + self.below(row[1] - row[0] - 1)
                column = column[1:]
            else:
                cell = column[0] + 1 + self.below(column[1] - column[0] - 1), row[1]
                row = row[1:]
            self.set(cell, FREE)

    def _red_blue(self) -> None:
        size, left = self.task.size, self.task.size // 2
        self.fill(1, 1, self.width - 2, size - 2, FREE)
        walls = (left, left + size - 1)
        for x in walls:
            self.fill(x, 0, 1, size, WALL)
        self.place_agent(left, 0, size, size)
        for x, colour in zip(walls, (RED, BLUE), strict=True):
            self.set((x, 1 + self.below(size - 2)), (DOOR, colour, IS_CLOSED))

    # --- grids of rooms, numbered (column, row); sides are right, down, left, up
    def _rooms(self) -> None:
        pitch, inside = self.task.size - 1, self.task.size - 2
        self.columns, self.rows = (self.width - 1) // pitch, (self.height - 1) // pitch
        self.doors = {}  # (room, side): cell
        self.joined = set()  # (room, side) with a door or without a wall
        for row in range(self.rows):
            for column in range(self.columns):
                x, y = column * pitch, row * pitch
                self.fill(x + 1, y + 1, inside, inside, FREE)
                if column + 1 < self.columns:
                    door = x + pitch, y + 1 + self.below(inside)
                    self.doors[(column, row), 0] = self.doors[(column + 1, row), 2] = door
                if row + 1 < self.rows:
                    door = x + 1 + self.below(inside), y + pitch
                    self.doors[(column, row), 1] = self.doors[(column, row + 1), 3] = door
        middle = self.task.size // 2
        self.agent = (self.columns // 2 * pitch + middle, self.rows // 2 * pitch + middle)

    def _beside(self, room, side):
        return room[0] + AHEAD[side][0], room[1] + AHEAD[side][1]

    def _join(self, room, side) -> None:
        self.joined |= {(room, side), (self._beside(room, side), (side + 2) % 4)}

    def _door(self, room, side, colour, state) -> tuple[int, int]:
        self.set(self.doors[room, side], (DOOR, colour, state))
        self._join(room, side)
        return self.doors[room, side]

    def _box_of(self, room) -> tuple[int, int, int, int]:
        pitch = self.task.size - 1
        return room[0] * pitch, room[1] * pitch, pitch + 1, pitch + 1

    def _put(self, room, thing, contents: int = 0) -> None:
        self.set(self.free_cell(*self._box_of(room), apart=2), thing, contents)

    def _agent_in(self, room) -> None:
        while True:
            self.place_agent(*self._box_of(room))
            if tuple(self.grid[self._beside(self.agent, self.heading)][:3].tolist()) in (FREE, WALL):
                return

    def _unlock(self) -> None:
        self._rooms()
        if self.task.family != "Unlock":
            self.target = (BOX, self.colour(), 0)
            self._put((1, 0), self.target)
        colour = self.colour()
        x, y = self._door((0, 0), 0, colour, IS_LOCKED)
        if self.task.family == "BlockedUnlockPickup":
            self.set((x - 1, y), (BALL, self.colour(), 0))
        self._put((0, 0), (KEY, colour, 0))
        self._agent_in((0, 0))

    def _key_corridor(self) -> None:
        self._rooms()
        size = self.task.size
        for row in range(1, self.rows):
            self.fill(size, row * (size - 1), size - 2, 1, FREE)
            self._join((1, row), 3)
        locked = (2, self.below(self.rows))
        colour = self.colour()
        self._door(locked, 2, colour, IS_LOCKED)
        self.target = (BALL, self.colour(), 0)
        self._put(locked, self.target)
        self._put((0, self.below(self.rows)), (KEY, colour, 0))
        self._agent_in((1, self.rows // 2))
        while len(self._reached((1, self.rows // 2))) < 3 * self.rows:
            room = self.below(3), self.below(self.rows)
            side = self.below(4)
            x, y = other = self._beside(room, side)
            exists = 0 <= x < 3 and 0 <= y < self.rows
            if exists and (room, side) not in self.joined and locked not in (room, other):
                self._door(room, side, self.colour(), IS_CLOSED)

    def _reached(self, room) -> set:
        reached, more = set(), [room]
        while more:
            room = more.pop()
            if room not in reached:
                reached.add(room)
                more += [self._beside(room, side) for side in range(4) if (room, side) in self.joined]
        return reached

    def _obstructed_maze(self) -> None:
        self._rooms()
        flags, quarters = self.task.flags, self.task.count
        in_box, blocked, keys_last, at_the_side = (bool(flags & bit) for bit in (1, 2, 4, 8))
        left = list(BY_NAME)
        colours = [left.pop(self.below(len(left))) for _ in range(6)]
        self.target = (BALL, BLUE, 0)

        def lock(room, side, colour):
            x, y = self._door(room, side, colour, IS_LOCKED)
            if blocked:
                self.set((x - AHEAD[side][0], y - AHEAD[side][1]), (BALL, GREEN, 0))

        def add_key(room, colour):
            self._put(room, (BOX, GREY, 0) if in_box else (KEY, colour, 0), 1 + colour if in_box else 0)

        if quarters == 0:
            lock((0, 0), 0, colours[0])
            add_key((0, 0), colours[0])
            self._put((1, 0), self.target)
            return self._agent_in((0, 0))
        for side, room in enumerate([(2, 1), (1, 2), (0, 1), (1, 0)][:quarters]):
            self._door((1, 1), side, colours[side], IS_CLOSED)
            of_doors = [(side + k) % 6 for k in (-1, 1)]
            for k, index in zip((-1, 1), of_doors, strict=True):
                lock(room, (side + k) % 4, colours[index])
                if not keys_last:
                    add_key(room, colours[index])
            for index in of_doors if keys_last else ():
                add_key(room, colours[index])
        self._put([(2, 0), (2, 2), (0, 2), (0, 0)][self.below(quarters)], self.target)
        self._agent_in((2, 1) if at_the_side else (1, 1))

    # --- rooms one after the other
    def _multi_room(self) -> None:
        self.fill(0, 0, self.width, self.height, FREE)
        choices = Choices(self.random.next() << 32 | self.random.next())
        rooms = []
        while len(rooms) < self.task.count:
            rooms = self._chain(choices)
        before = None
        for (x, y, width, height), door in rooms:
            for wall in (
                (x, y, width, 1),
                (x, y + height - 1, width, 1),
                (x, y, 1, height),
                (x + width - 1, y, 1, height),
            ):
                self.fill(*wall, WALL)
            if door is not None:
                colours = [colour for colour in BY_NAME if colour != before]
                before = colours[self.below(len(colours))]
                self.set(door, (DOOR, before, IS_CLOSED))
        self.place_agent(*rooms[0][0])
        self.set(self.free_cell(*rooms[-1][0]), GOAL)

    def _chain(self, choices: Choices) -> list:
        """[((left, top, width, height), entry door or None), ...], as many as found a place."""
        below, largest = choices.below, self.task.size
        choices.draw()
        x, y, entry, rooms = below(self.width - 2), below(self.width - 2), 2, []
        while len(rooms) < self.task.count:
            for _ in range(8 if rooms else 1):
                side = entry
                if rooms:
                    choices.draw()
                    left, top, width, height = rooms[-1][0]
                    leave = [other for other in range(4) if other != entry][below(3)]
                    along = 1 + below((height if leave % 2 == 0 else width) - 2)
                    x, y = [(left + width - 1, top + along), (left + along, top + height - 1), (left, top + along),
                            (left + along, top)][leave]  # fmt: skip
                    side = (leave + 2) % 4
                width, height = 4 + below(largest - 3), 4 + below(largest - 3)
                left, top = x - (width - 1) * (side == 0), y - (height - 1) * (side == 1)
                if rooms and side % 2 == 0:
                    top += below(height - 2) - (height - 2)
                elif rooms:
                    left += below(width - 2) - (width - 2)
                box = (left, top, width, height)
                if self._fits(box, [other for other, _ in rooms[:-1]]):
                    rooms.append((box, (x, y) if rooms else None))
                    entry = side
                    break
            else:
                return rooms
        return rooms

    def _fits(self, box, others) -> bool:
        left, top, width, height = box
        if left < 0 or top < 0 or left + width > self.width or top + height >= self.height:
            return False
        return all(left + width < x or x + w <= left or top + height < y or y + h <= top for x, y, w, h in others)
