"""Kitchen: cooks share a small kitchen, carry onions to a pot, wait, and serve the soup on a dish.

The two-cook game known as Overcooked-AI, as pure functions of tensors, batched over kitchens. Two sets of rules: those
under which people were recorded in 2019, and those of the game today. Any number of cooks is allowed: as many as the
grid has numbered starts.

Source of the rules: Carroll et al. 2019, arXiv:1910.05789, and the recordings of that paper; `overcooked-ai` 1.1.0 for
today's.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError, EnvError, expect_shape, nearest
from understudy.core.scene import Scene
from understudy.core.symmetry import Groups
from understudy.core.types import Discrete, EnvSpec, View, to_device
from understudy.envs import kitchen_expert, kitchen_features, kitchen_native, kitchen_picture
from understudy.envs.kitchen_board import (
    ALIASES,
    COUNTER,
    DISH,
    DISHES,
    FLOOR,
    INTERACT,
    NONE_YET,
    NOTHING,
    ONION,
    ONIONS,
    POT,
    SERVING,
    SOUP,
    STAY,
    Board,
    State,
    board_of,
    one_hot,
    rows_of,
)

LIT = -1  # ticks of a soup whose cooking begins with this very step; never seen between steps
LONGEST = 30_000  # ticks at which the count stops, within int16


@dataclass(frozen=True)
class Kitchen:
    layout: str = "cramped_room"
    rules: str = "2019"  # or "current"
    horizon: int = 400  # steps in an episode
    grid: tuple[str, ...] | None = None  # rows of a kitchen of one's own; `layout` is then only its name
    starts: str = "fixed"  # cooks begin on their numbers; or "random": anywhere that they can walk to
    cook_time: int = 20  # steps until a soup is ready
    past: int = 6  # joint actions that the state remembers, the newest first
    delivery: float | None = None  # points for a soup; None: 5 in 2019, as people were paid, 20 under current rules

    def __post_init__(self) -> None:
        for name, value, known in (
            ("rules", self.rules, ("2019", "current")),
            ("starts", self.starts, ("fixed", "random")),
        ):
            if value not in known:
                raise ConfigError(f"{name}: unknown {value!r}.{nearest(str(value), known)}")
        if not 1 <= self.cook_time <= LONGEST:
            raise ConfigError(f"cook_time: got {self.cook_time}; it must be 1 to {LONGEST} steps.")
        if self.past < 1:
            raise ConfigError(
                f"past: got {self.past}, but observations hold the last joint action at least: 1 or more."
            )
        self.board()  # refuses a broken layout now rather than later

    @property
    def rows(self) -> tuple[str, ...]:
        """The floor plan as strings, cooks' starts included."""
        return rows_of(self.layout, self.grid)

    @cached_property
    def _boards(self) -> dict[torch.device, Board]:
        return {torch.device("cpu"): board_of(self.rows)}

    def board(self, device: torch.device | str = "cpu") -> Board:
        """The layout's tables on `device`, moved there once."""
        device = torch.device(device)
        if device not in self._boards:
            self._boards[device] = to_device(self._boards[torch.device("cpu")], device)
        return self._boards[device]

    @property
    def points(self) -> float:
        """What a soup of three onions pays."""
        if self.delivery is not None:
            return self.delivery
        return 5.0 if self.rules == "2019" else 20.0

    @property
    def native(self) -> bool:
        """Whether compiled functions play it, on the CPU; torch does elsewhere."""
        return kitchen_native.ready(self)

    @property
    def spec(self) -> EnvSpec:
        board = self.board()
        cooks = len(board.start)
        return EnvSpec(
            agents=cooks,
            obs=len(self.feature_names),
            action=Discrete(6),
            horizon=self.horizon,
            reset_noise=len(board.places) if self.starts == "random" else 0,
            whole=sum(self._whole_sizes()),
            names=tuple(f"cook_{i + 1}" for i in range(cooks)),
            roles=("cook",) * cooks,
            teams=("kitchen",) * cooks,
            dt=0.15,
            title=f"kitchen:{ALIASES.get(self.layout, self.layout)}",
        )

    def reset(self, noise: Float[Tensor, "env noise"]) -> State:
        """Cooks face north with empty hands; pots and counters are empty.

        With random starts a cook begins on any place it could walk to from its number, all equally likely, so that
        a kitchen in two halves keeps a cook in each.
        """
        board, envs = self.board(noise.device), len(noise)
        cell = board.start.repeat(envs, 1)
        if self.starts == "random":
            expect_shape("noise", noise, "env noise", noise=len(board.places))
            order = noise.clone()
            for cook, mine in enumerate(board.reach):
                place = order.masked_fill(~mine, 2).argmin(dim=-1)
                order = order.scatter(1, place[:, None], 2)  # taken
                cell[:, cook] = board.places[place]
        cooks = cell.shape[1]
        return State(
            cell=cell,
            facing=torch.zeros_like(cell),
            hands=cell.new_zeros((envs, cooks, 3), dtype=torch.int16),
            things=cell.new_zeros((envs, len(board.tile), 3), dtype=torch.int16),
            last_actions=cell.new_full((envs, cooks, self.past), NONE_YET),
            soups=cell.new_zeros(envs),
            age=cell.new_zeros(envs),
        )

    def step(
        self, state: State, actions: Int[Tensor, "env agent"], noise: Float[Tensor, "env noise"]
    ) -> tuple[State, Float[Tensor, "env agent"], Bool[Tensor, " env"]]:
        """First all interacts, the lower-numbered cook's first; then all moves at once; then the pots cook.

        A move turns the cook and takes it one cell on where there is floor. If any two cooks would meet on a cell or
        change places, nobody moves in that kitchen, but all turn. Every cook is paid what the kitchen earned.
        `actions` are 0 north, 1 south, 2 east, 3 west, 4 stay, 5 interact. `noise` is not used.
        """
        done = kitchen_native.step(self, state, actions)
        return self.plain_step(state, actions) if done is None else done

    def plain_step(
        self, state: State, actions: Int[Tensor, "env agent"]
    ) -> tuple[State, Float[Tensor, "env agent"], Bool[Tensor, " env"]]:
        """`step` by torch."""
        envs, cooks = state.cell.shape
        expect_shape("actions", actions, "env agent", env=envs, agent=cooks)
        board = self.board(state.cell.device)
        hands, things, soups = state.hands.clone(), state.things.clone(), state.soups
        front = board.ahead[state.cell, state.facing]
        paid = torch.zeros_like(soups)
        rows = torch.arange(envs, device=front.device)
        for cook in range(cooks):  # in turn: what one takes, the next does not find
            faced = front[:, cook]
            hand, thing, served, worth = self._interact(
                hands[:, cook], things[rows, faced], board.tile[faced], actions[:, cook] == INTERACT
            )
            hands[:, cook] = hand
            things[rows, faced] = thing
            soups = soups + served
            paid = paid + worth
        ticks = things[:, board.pots, 2]
        limit = LONGEST if self.rules == "2019" else self.cook_time  # in 2019 a soup cooked on, without burning
        things[:, board.pots, 2] = torch.where(ticks == LIT, 1, torch.where(ticks > 0, ticks + 1, 0)).clamp(max=limit)

        moves = actions < STAY
        facing = torch.where(moves, actions, state.facing)
        ahead = board.ahead[state.cell, facing]
        wanted = torch.where(moves & (board.tile[ahead] == FLOOR), ahead, state.cell)
        cell = torch.where(_collide(state.cell, wanted)[:, None], state.cell, wanted)

        rewards = (paid * self.points).unsqueeze(-1).expand(envs, cooks)
        last_actions = torch.cat([actions.unsqueeze(-1), state.last_actions[..., :-1]], dim=-1)
        state = State(cell, facing, hands, things, last_actions, soups, state.age + 1)
        return state, rewards, torch.zeros_like(paid, dtype=torch.bool)

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        """What each cook perceives, in [-1, 1]; `feature_names` says which number is what."""
        obs = kitchen_native.observe(self, state)
        return self.plain_observe(state) if obs is None else obs

    def plain_observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        """`observe` by torch."""
        board, effects = self.board(state.cell.device), self.would(state)
        return kitchen_features.observe(board, state, effects, self.cook_time, can_light=self.rules == "current")

    def would(self, state: State) -> Bool[Tensor, "env agent 8"]:
        """What an interact of each cook would do now: `effects` of its hand and of the tile that it faces."""
        board = self.board(state.cell.device)
        rows = torch.arange(len(state.cell), device=board.tile.device)[:, None]
        front = board.ahead[state.cell, state.facing]
        return self.effects(state.hands, state.things[rows, front], board.tile[front])

    @property
    def feature_names(self) -> tuple[str, ...]:
        """A name for each number of an observation, such as `I holds dish` or `pot 1 ready`."""
        return kitchen_features.feature_names(len(self.board().start))

    def symmetries(self) -> Groups:
        """Mirrors: cooks in a mirrored kitchen see and do the same things mirrored. Its full state is another one."""
        return tuple((kitchen_features.mirror(self.spec.agents, axis),) for axis in ("x", "y"))

    def whole(self, state: State) -> Float[Tensor, "env feature"]:
        """The full state as one flat vector, mostly zeros and ones, from which `unpack` makes it again exactly."""
        flat = kitchen_native.whole(self, state)
        return self.plain_whole(state) if flat is None else flat

    def plain_whole(self, state: State) -> Float[Tensor, "env feature"]:
        """`whole` by torch."""
        board = self.board(state.cell.device)
        parts = [
            one_hot(board.place[state.cell], len(board.places)),
            one_hot(state.facing, 4),
            one_hot(state.last_actions, 7),
            self._flatten_things(state.hands),
            self._flatten_things(state.things[:, board.bench]),
        ]
        count = torch.stack([state.soups / 20, state.age / 400], dim=-1)
        return torch.cat([*(part.flatten(1) for part in parts), count], dim=-1)

    def unpack(self, whole: Float[Tensor, "env feature"]) -> State:
        """The state that `whole` describes."""
        board = self.board(whole.device)
        envs, cooks, bench = len(whole), len(board.start), len(board.bench)
        expect_shape("whole", whole, "env feature", env=envs, feature=sum(self._whole_sizes()))
        place, facing, last_actions, hands, benches, count = whole.split(self._whole_sizes(), dim=-1)
        things = torch.zeros(envs, len(board.tile), 3, dtype=torch.int16, device=whole.device)
        things[:, board.bench] = self._unflatten_things(benches.unflatten(-1, (bench, -1)))
        return State(
            cell=board.places[place.unflatten(-1, (cooks, -1)).argmax(dim=-1)],
            facing=facing.unflatten(-1, (cooks, -1)).argmax(dim=-1),
            hands=self._unflatten_things(hands.unflatten(-1, (cooks, -1))),
            things=things,
            last_actions=last_actions.unflatten(-1, (cooks, self.past, -1)).argmax(dim=-1),
            soups=(count[:, 0] * 20).round().long(),
            age=(count[:, 1] * 400).round().long(),
        )

    def draw(self, whole: Float[Tensor, " feature"]) -> Scene:
        """One moment, seen from above."""
        state = self.unpack(whole.unsqueeze(0).cpu())
        return kitchen_picture.picture(self.board(), state, self.cook_time, self.spec.title)

    def _whole_sizes(self) -> list[int]:
        """Widths of the parts of `whole`: places, facings, last actions, hands, benches, counts."""
        board = self.board()
        cooks = len(board.start)
        return [cooks * len(board.places), cooks * 4, cooks * 7 * self.past, cooks * 6, len(board.bench) * 6, 2]

    def _flatten_things(self, things: Int[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 6"]:
        """Three flags for the kind, onions / 3, cooking as a part of `cook_time`, and what it cooked beyond that."""
        kind, onions, ticks = things.unbind(dim=-1)
        cooked = ticks.clamp(max=self.cook_time)
        scaled = torch.stack([onions / 3, cooked / self.cook_time, (ticks - cooked) / 400], dim=-1)
        return torch.cat([one_hot(kind.long(), 4)[..., 1:], scaled], dim=-1)

    def _unflatten_things(self, flat: Float[Tensor, "*batch 6"]) -> Int[Tensor, "*batch 3"]:
        kind = ONION * flat[..., 0] + DISH * flat[..., 1] + SOUP * flat[..., 2]
        ticks = flat[..., 4] * self.cook_time + flat[..., 5] * 400
        return torch.stack([kind, flat[..., 3] * 3, ticks], dim=-1).round().to(torch.int16)

    def _interact(
        self,
        hand: Int[Tensor, "env 3"],
        thing: Int[Tensor, "env 3"],
        tile: Int[Tensor, " env"],
        acts: Bool[Tensor, " env"],
    ) -> tuple[Int[Tensor, "env 3"], Int[Tensor, "env 3"], Bool[Tensor, " env"], Bool[Tensor, " env"]]:
        """Hand and thing after one cook's interact, whether a soup was served, and whether it is paid."""
        does = self.effects(hand, thing, tile) & acts[:, None]
        take_onion, take_dish, put, pick, fill, light, ladle, serve = does.unsqueeze(-1).unbind(1)
        new_hand = torch.where(pick | ladle, thing, hand).masked_fill(put | fill | serve, NOTHING)
        new_hand[:, :1] += take_onion * ONION + take_dish * DISH
        new_thing = torch.where(put, hand, thing.masked_fill(pick | ladle, NOTHING))
        kind, onions, ticks = new_thing.unsqueeze(1).unbind(-1)
        onions = onions + fill
        if self.rules == "2019":
            light = fill & (onions == 3)  # by itself
        new_thing = torch.cat([kind.masked_fill(fill, SOUP), onions, ticks.masked_fill(light, LIT)], dim=-1)
        return new_hand, new_thing, serve.squeeze(-1), (serve & (hand[:, 1:2] == 3)).squeeze(-1)

    def effects(
        self, hand: Int[Tensor, "*batch 3"], thing: Int[Tensor, "*batch 3"], tile: Int[Tensor, "*batch"]
    ) -> Bool[Tensor, "*batch 8"]:
        """What an interact would do, at most one of: take an onion, take a dish, put down, pick up, fill the pot,
        light it, ladle the soup, serve it. All false where it would do nothing.
        """
        holds = hand[..., 0]
        kind, onions, ticks = thing.unbind(-1)
        empty, pot, counter = holds == NOTHING, tile == POT, tile == COUNTER
        waits = pot & (ticks == 0)
        light = waits & empty & (onions > 0) if self.rules == "current" else torch.zeros_like(pot)
        return torch.stack(
            [
                (tile == ONIONS) & empty,
                (tile == DISHES) & empty,
                counter & ~empty & (kind == NOTHING),
                counter & empty & (kind != NOTHING),
                waits & (holds == ONION) & (onions < 3),
                light,
                pot & (holds == DISH) & (ticks >= self.cook_time),
                (tile == SERVING) & (holds == SOUP),
            ],
            dim=-1,
        )


def cook(env: Kitchen, view: View, noise: Float[Tensor, "env agent noise"]) -> Int[Tensor, "env agent"]:
    """The scripted expert: actions of all cooks, planned on the full state `view.whole`.

    Two of these serve more soups than two people do, in every layout. They see each other's hands and share the work
    by distance: see `kitchen_expert`. `noise` needs two numbers for each cook, which break ties and blockades.

    Raises:
        EnvError: the view has no `whole`.
    """
    if view.whole is None:
        raise EnvError("cook: it plans on the full state, but view.whole is None. Pass whole=env.whole(state).")
    state = env.unpack(view.whole)
    useful = env.would(state).any(dim=-1)
    return kitchen_expert.plan(env.rows, env.board(noise.device), state, useful, env.cook_time, noise)


def _collide(old: Int[Tensor, "env agent"], new: Int[Tensor, "env agent"]) -> Bool[Tensor, " env"]:
    """Whether any two cooks would end on one cell or change places."""
    others = ~torch.eye(old.shape[1], dtype=torch.bool, device=old.device)
    to_other = new.unsqueeze(2) == old.unsqueeze(1)  # [env, i, j]: i goes where j was
    meet = new.unsqueeze(2) == new.unsqueeze(1)
    return ((meet | (to_other & to_other.transpose(1, 2))) & others).flatten(1).any(dim=-1)


def state_from_arrays(
    env: Kitchen,
    pos: Int[Tensor, "time agent 2"],
    ori: Int[Tensor, "time agent"],
    held: Int[Tensor, "time agent"],
    obj: Int[Tensor, "time object 5"],
    act: Int[Tensor, "time agent"] | None = None,
) -> State:
    """The states of one recorded episode, its moments as the env axis.

    A recording does not say what a soup in a hand is made of: it is traced back to the pot or counter it was taken
    from, in the same episode; a soup held from the first moment on is taken for three onions cooked just long enough.

    Args:
        pos: x and y of each cook, from the top left.
        ori: facings, 0 north, 1 south, 2 east, 3 west.
        held: 0 nothing, 1 onion, 2 dish, 3 soup.
        obj: rows of x, y, kind, onions, steps cooked; kind is below 0 in rows that only pad.
        act: each moment's actions, which become the next one's `last_actions`; None: NONE_YET throughout.

    Raises:
        EnvError: a cook stands on no floor, a thing lies on floor, or an object is none of this kitchen's.
    """
    board = env.board(pos.device)
    times = torch.arange(len(pos), device=pos.device)
    pos, obj = pos.long(), obj.long()
    cell = _cells(board, pos)
    if not (board.tile[cell] == FLOOR).all():
        raise EnvError(f"pos: a cook stands where kitchen:{env.layout} has no floor. Is it another layout's recording?")
    real = obj[..., 2] > NOTHING
    spot = _cells(board, obj[..., :2]).masked_fill(~real, 0)
    if (real & ((board.tile[spot] == FLOOR) | (obj[..., 2] > SOUP))).any() or (held > SOUP).any():
        raise EnvError(f"obj, held: a thing lies on kitchen:{env.layout}'s floor, or is no onion, dish or soup.")
    things = torch.zeros(len(pos), len(board.tile) + 1, 3, dtype=torch.int16, device=pos.device)
    spot = spot.masked_fill(~real, len(board.tile))  # padding goes to a cell of its own, which is cut off
    things[times[:, None], spot] = obj[..., 2:].to(torch.int16)
    things = things[:, :-1]

    facing, held = ori.long(), held.long()
    soup = held == SOUP
    taken = soup.clone()
    taken[1:] &= ~soup[:-1]  # at this moment the soup is new in the hand
    since = torch.where(taken, times[:, None], 0).cummax(dim=0).values
    front = board.ahead[cell, facing]
    before = (since - 1).clamp(min=0)  # when it was still ahead of the cook
    source = things[before, front.gather(0, before)]
    known = soup & (source[..., 0] == SOUP)
    plain = things.new_tensor([[NOTHING, 0, 0], [ONION, 0, 0], [DISH, 0, 0], [SOUP, 3, env.cook_time]])
    hands = torch.where(known[..., None], source, plain[held])

    last_actions = cell.new_full((*cell.shape, env.past), NONE_YET)
    if act is not None:
        for ago in range(1, min(env.past, len(act)) + 1):
            last_actions[ago:, :, ago - 1] = act[: len(act) - ago].long()
    soups = torch.zeros_like(times)
    soups[1:] = (soup[:-1] & ~soup[1:] & (board.tile[front[:-1]] == SERVING)).sum(dim=-1).cumsum(0)
    return State(cell, facing, hands, things, last_actions, soups, age=times)


def _cells(board: Board, xy: Int[Tensor, "*batch 2"]) -> Int[Tensor, "*batch"]:
    """Cell numbers of x, y; what lies outside of the grid is put in its corner, which is never floor."""
    x, y = xy.unbind(-1)
    inside = (x >= 0) & (x < board.width) & (y >= 0) & (y < board.height)
    return torch.where(inside, y * board.width + x, 0)
