"""Tabular games: matrix games and small Markov games, given by their tables.

What a method should find in them can be worked out on paper, or exactly from the same tables that are played:
`transition`, `reward` and `start` are dense tensors. A matrix game is a Markov game of one state.

A joint action is one number: the agents' moves read as digits, the last agent's the lowest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import exp, prod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import EnvError, expect_shape
from understudy.core.types import Discrete, EnvSpec, View
from understudy.maths.games import joint_number


@dataclass(frozen=True)
class State:
    index: Int[Tensor, "env"]


@dataclass(frozen=True, eq=False, repr=False)
class MarkovGame:
    """A game of finitely many states, seen in full by every agent as a one-hot vector.

    Tables on another device: `core.types.to_device(game, device)`. They are best kept in float64, for exact answers;
    what is played comes out in float32 all the same.

    Raises:
        EnvError: where the rows of a table are no probabilities, or an ended state leads or pays anywhere.
        ShapeError: where the tables do not fit one another.
    """

    transition: Float[Tensor, "state joint next"]  # probability of the next state
    reward: Float[Tensor, "agent state joint"]  # what each agent is paid for the joint action in the state
    start: Float[Tensor, "state"]  # probability of the first state
    choices: tuple[int, ...]  # moves of each agent
    horizon: int | None = None
    over: Bool[Tensor, "state"] | None = None  # the game ends where it is true; those states keep and pay nothing
    play: Float[Tensor, "state joint"] | None = None  # how the game's expert plays; None: every joint action alike
    title: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))
        sizes = {"state": len(self.start), "joint": prod(self.choices)}
        expect_shape("transition", self.transition, "state joint next", next=len(self.start), **sizes)
        expect_shape("reward", self.reward, "agent state joint", agent=len(self.choices), **sizes)
        tables = [("transition", self.transition), ("start", self.start)]
        if self.play is not None:
            expect_shape("play", self.play, "state joint", **sizes)
            tables.append(("play", self.play))
        for name, table in tables:
            total = table.sum(-1)
            if bool((table < 0).any()) or not torch.allclose(total, torch.ones_like(total)):
                raise EnvError(f"{name}: each row of probabilities must be 0 or more and sum to 1, got sums {total}.")
        if self.over is not None:
            expect_shape("over", self.over, "state", state=len(self.start))
            stays = self.transition.diagonal(dim1=0, dim2=2)[:, self.over] == 1  # [joint, ended state]
            if not bool(stays.all()) or bool((self.reward[:, self.over] != 0).any()):
                raise EnvError("over: a state where the game is over must lead to itself and pay nothing.")

    def __repr__(self) -> str:
        return f"MarkovGame({self.title!r}, states={len(self.start)}, choices={self.choices}, horizon={self.horizon})"

    @cached_property
    def spec(self) -> EnvSpec:
        """Agents that the reward table pays alike form a team. Each has a role of its own.

        For all see the same: agents who share their weights could do nothing but the same.
        """
        paid = [next(j for j, other in enumerate(self.reward) if torch.equal(other, mine)) for mine in self.reward]
        return EnvSpec(
            agents=len(self.choices),
            obs=len(self.start),
            action=Discrete(max(self.choices)),
            horizon=self.horizon,
            reset_noise=1,
            step_noise=1,
            roles=tuple(f"agent_{i}" for i in range(len(self.choices))),
            teams=tuple(f"team_{j}" for j in paid),
            action_sizes=self.choices,
            title=self.title,
        )

    @cached_property
    def moves(self) -> Int[Tensor, "joint agent"]:
        """Each agent's move in every joint action: the inverse of `joint`."""
        numbers = torch.arange(prod(self.choices), device=self.start.device)
        return torch.stack(torch.unravel_index(numbers, self.choices), dim=-1)

    @cached_property
    def _own(self) -> Bool[Tensor, "agent choice"]:
        choice = torch.arange(max(self.choices), device=self.start.device)
        return choice < torch.tensor(self.choices, device=self.start.device).unsqueeze(-1)

    def joint(self, actions: Int[Tensor, "*batch agent"]) -> Int[Tensor, "*batch"]:
        """The number of each joint action. A move beyond an agent's own is not looked for: `legal` masks it."""
        return joint_number(actions, self.choices)

    def reset(self, noise: Float[Tensor, "env noise"]) -> State:
        return State(draw(self.start.expand(len(noise), -1), noise[:, 0]))

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        seen = torch.nn.functional.one_hot(state.index, len(self.start)).to(torch.float32)
        return seen.unsqueeze(1).expand(-1, len(self.choices), -1)

    def legal(self, state: State) -> Bool[Tensor, "env agent choice"] | None:
        """An agent with fewer moves than another has the first ones. None: all have as many."""
        return None if len(set(self.choices)) == 1 else self._own.expand(len(state.index), -1, -1)

    def step(
        self, state: State, actions: Int[Tensor, "env agent"], noise: Float[Tensor, "env noise"]
    ) -> tuple[State, Float[Tensor, "env agent"], Bool[Tensor, "env"]]:
        expect_shape("actions", actions, "env agent", env=len(state.index), agent=len(self.choices))
        joint = self.joint(actions)
        rewards = self.reward[:, state.index, joint].T.to(torch.float32)
        index = draw(self.transition[state.index, joint], noise[:, 0])
        terminated = torch.zeros_like(index, dtype=torch.bool) if self.over is None else self.over[index]
        return State(index), rewards, terminated


def expert(game: MarkovGame, view: View, noise: Float[Tensor, "env agent noise"]) -> Int[Tensor, "env agent"]:
    """Moves by the table `game.play`: one draw for all agents, so that correlated play stays correlated.

    The first agent's first number decides; the others' are not used.
    """
    play = game.play
    if play is None:
        play = torch.full_like(game.reward[0], 1 / prod(game.choices))
    return game.moves[draw(play[view.obs[:, 0].argmax(-1)], noise[:, 0, 0])]


def draw(probability: Float[Tensor, "*batch outcome"], noise: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """The outcome in whose share of [0, 1) the noise falls. An outcome of probability 0 never comes."""
    above = probability.cumsum(-1)
    later = probability.flip(-1).cumsum(-1).flip(-1) - probability  # exactly 0 after the last outcome that can come,
    above = torch.where(later > 0, above, 2.0)  # where rounding must not let the noise pass
    return (noise.unsqueeze(-1) >= above).sum(-1)


def matrix_game(
    payoffs: Tensor | Sequence, repeats: int = 1, play: Tensor | Sequence | None = None, title: str = "matrix"
) -> MarkovGame:
    """A game in which all agents move at once, the same again `repeats` times.

    Args:
        payoffs: nested [agent][move of agent 0][move of agent 1]...: what each agent is paid.
        repeats: steps of an episode, the horizon.
        play: nested [move of agent 0][move of agent 1]...: the expert's probabilities. None: all alike.
        title: what the spec calls it.
    """
    table = torch.as_tensor(payoffs, dtype=torch.float64)
    if table.dim() != len(table) + 1:
        raise EnvError(
            f"payoffs: {len(table)} agents need axes [agent, {len(table)} x moves], got {list(table.shape)}."
        )
    joints = table[0].numel()
    return MarkovGame(
        transition=torch.ones(1, joints, 1, dtype=torch.float64),
        reward=table.reshape(len(table), 1, joints),
        start=torch.ones(1, dtype=torch.float64),
        choices=tuple(table.shape[1:]),
        horizon=repeats,
        play=None if play is None else torch.as_tensor(play, dtype=torch.float64).reshape(1, joints),
        title=title,
    )


def rock_paper_scissors(repeats: int = 1) -> MarkovGame:
    """1 to the winner, -1 to the loser. The expert plays all alike, the one equilibrium: each is paid 0."""
    wins = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    return matrix_game(torch.stack([wins, -wins]), repeats, title="rock_paper_scissors")


def matching_pennies(prize: float = 9.0, repeats: int = 1) -> MarkovGame:
    """The row player wants to match, and is paid `prize` for heads and 1 for tails; the other is paid 1 otherwise.

    The expert plays the one equilibrium: row even, column heads with 1 / (1 + prize), for row prize / (1 + prize)
    and column 1/2 a step. What row's prize changes is how *column* plays.

    Source: Goeree & Holt 2001, Ten little treasures of game theory.
    """
    heads = 1 / (1 + prize)
    return matrix_game(
        [[[prize, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]],
        repeats,
        play=[[heads / 2, (1 - heads) / 2]] * 2,
        title="matching_pennies",
    )


def chicken(repeats: int = 1) -> MarkovGame:
    """Move 0 dares, 1 yields: (0, 0) for two darers, (7, 2) for one, (6, 6) for none.

    The expert is a correlated equilibrium, each outcome but two darers with 1/3: 5 for each. Cloned one by one, the
    agents yield with 2/3 independently: 14/3 for each, and still nobody gains by deviating.

    Source: Aumann 1974, Subjectivity and correlation in randomized strategies.
    """
    row = torch.tensor([[0.0, 7.0], [2.0, 6.0]])
    third = 1 / 3
    return matrix_game(torch.stack([row, row.T]), repeats, play=[[0.0, third], [third, third]], title="chicken")


def stag_hunt(stag: float = 4.0, hare: float = 3.0, repeats: int = 1) -> MarkovGame:
    """Move 0 hunts the stag, worth `stag` to each but only to both; 1 takes a hare. The expert hunts the stag."""
    row = torch.tensor([[stag, 0.0], [hare, hare]])
    return matrix_game(torch.stack([row, row.T]), repeats, play=[[1.0, 0.0], [0.0, 0.0]], title="stag_hunt")


def coordination(conventions: int = 2, agents: int = 2, repeats: int = 1) -> MarkovGame:
    """1 for all where all move alike, else 0. The expert follows each convention with 1 / conventions.

    Agents cloned one by one from it agree only with conventions ** (1 - agents); the joint play carries
    (agents - 1) log conventions nats that the marginals do not.
    """
    agree = torch.zeros((conventions,) * agents, dtype=torch.float64)
    agree[(torch.arange(conventions),) * agents] = 1.0
    return matrix_game(torch.stack([agree] * agents), repeats, play=agree / conventions, title="coordination")


def on_off(horizon: int = 10, guarded: bool = False) -> MarkovGame:
    """Two chains: values that agree and a regret that is as large as it can be.

    From state 0 the first agent's move 0 leads to state 1 for good, move 1 to state 2 for good. Only in state 2 is
    anybody paid: the first agent, 1 for each move 1 of the second. The expert always moves 0, and nobody can gain. A
    learner who does the same in states 0 and 1, and moves 1 in state 2, cannot be told from it on the expert's path,
    yet the first agent could gain horizon - 1.

    Args:
        guarded: the moves of the second agent in state 2 change places: 0 is what pays there, and the expert moves 1.
            Who only does there what the expert does elsewhere has the whole regret.

    Source: in the spirit of the two-chain example of Tang et al. 2024, arXiv:2406.04219.
    """
    transition, reward, play = _empty(3, (2, 2))
    for joint, (first, second) in enumerate(product(range(2), repeat=2)):
        transition[0, joint, 1 + first] = 1
        transition[1, joint, 1] = transition[2, joint, 2] = 1
        reward[0, 2, joint] = 1 - second if guarded else second
    play[:2, 0] = play[2, int(guarded)] = 1
    return MarkovGame(transition, reward, torch.eye(3)[0].double(), (2, 2), horizon, play=play, title="on_off")


def thicket(
    path: int = 4, off: int = 12, agents: int = 2, moves: int = 3, horizon: int = 20, slip: float = 0.0, seed: int = 0
) -> MarkovGame:
    """A path through a thicket: in every state each agent has one right move, drawn by `seed`, and only it is safe.

    Where all move right on the path they go on along it, but chance leads off it with `slip`; where anybody errs they
    are off it for good, and wander about. Off it each agent is paid 1 a step in which another one errs. The expert
    moves right everywhere: nobody is paid and nobody gains by leaving. A learner who errs off the path with e is left
    for a gain of up to e for each of the horizon - 1 steps. `slip` is how well recordings cover what is off the path.
    """
    source = torch.Generator().manual_seed(seed)
    states, choices = path + off, (moves,) * agents
    transition, reward, play = _empty(states, choices)
    right = torch.randint(moves, (states, agents), generator=source)
    every = torch.tensor(list(product(range(moves), repeat=agents)))
    errs = every != right.unsqueeze(1)  # [state, joint, agent]
    wander = torch.rand(states, off, generator=source, dtype=torch.float64)
    wander = wander / wander.sum(-1, keepdim=True)
    along = torch.eye(path, dtype=torch.float64).roll(1, dims=1)
    transition[:, :, path:] = wander.unsqueeze(1)
    safe = ~errs[:path].any(-1)  # [path, joint]
    onward = torch.cat([(1 - slip) * along, slip * wander[:path]], dim=-1)
    transition[:path] = torch.where(safe.unsqueeze(-1), onward.unsqueeze(1), transition[:path])
    others = errs.sum(-1, keepdim=True) - errs.long()  # [state, joint, agent]: how many others err
    reward[:, path:] = (others[path:] > 0).permute(2, 0, 1).double()
    play[~errs.any(-1)] = 1
    start = torch.eye(states, dtype=torch.float64)[0]
    return MarkovGame(transition, reward, start, choices, horizon, play=play, title="thicket")


def slip_chain(agents: int = 1, horizon: int = 50) -> MarkovGame:
    """Two states, on the path (0) and off it (1): all agents' move 0 leads on, any other joint action off, for -1.

    The expert always moves 0. Who errs with e while on the path and returns with r while off it is paid, over H steps,

        -c (H - k (1 - k**H) / (1 - k)),    k = 1 - e - r,  c = e / (e + r),

    about -e H**2 / 2 for one who cannot return (r = 0), and -e H for one who errs alike everywhere (r = 1 - e).
    """
    transition, reward, play = _empty(2, (2,) * agents)
    transition[:, 1:, 1] = transition[:, 0, 0] = 1
    reward[:, :, 1:] = -1
    play[:, 0] = 1
    start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    return MarkovGame(transition, reward, start, (2,) * agents, horizon, play=play, title="slip_chain")


def two_rooms(agents: int = 1, prize: float = 1.0, discount: float = 0.9, horizon: int = 50) -> MarkovGame:
    """Each agent names its next room, 0 or 1, and is paid `prize` a step for being in room 1.

    The agents do not touch one another; a state's number has their rooms as its digits, the last agent's the lowest.
    The expert maximises return plus entropy (in nats, at `discount`): from either room it chooses room 1 with
    sigmoid(discount * prize), so that prize = logit / discount can be read off its play.
    """
    rooms = torch.tensor(list(product(range(2), repeat=agents)))  # of a state, and as well of a joint action
    transition, reward, play = _empty(2**agents, (2,) * agents)
    transition[:] = torch.eye(2**agents)
    reward[:] = prize * rooms.T.unsqueeze(-1)
    to_one = torch.tensor(1 / (1 + exp(-discount * prize)), dtype=torch.float64)
    play[:] = torch.where(rooms == 1, to_one, 1 - to_one).prod(-1)
    start = torch.full((2**agents,), 0.5**agents, dtype=torch.float64)
    return MarkovGame(transition, reward, start, (2,) * agents, horizon, play=play, title="two_rooms")


def crossing(side: int = 3, horizon: int = 50) -> MarkovGame:
    """Two agents on a square grid, from the lower corners to the upper corner opposite, whichever comes first.

    Moves: left, right, up, down; a wall stops. Who reaches its corner is paid 100, and the game is over. Two who make
    for the same cell, unless it is a corner that one of them seeks, stay where they are for -1 each; two who change
    places pass. A state's number is cell of the first * side**2 + cell of the second, a cell's is y * side + x.

    The expert is an equilibrium in which both arrive after 2 (side - 1) steps: the first walks right, then up, the
    second up, then left.

    Source: Hu & Wellman 2003, Nash Q-learning for general-sum stochastic games, Grid Game 1.
    """
    cells, goals = side * side, (side * side - 1, side * (side - 1))
    transition, reward, play = _empty(cells * cells, (4, 4))
    over = torch.zeros(cells * cells, dtype=torch.bool)
    for state, (first, second) in enumerate(product(range(cells), repeat=2)):
        over[state] = first == goals[0] or second == goals[1]
        right_or_up = 1 if first % side < side - 1 else 2
        up_or_left = 2 if second // side < side - 1 else 0
        play[state, 4 * right_or_up + up_or_left] = 1
        for joint, moves in enumerate(product(range(4), repeat=2)):
            to = tuple(_walk(cell, move, side) for cell, move in zip((first, second), moves, strict=True))
            clash = to[0] == to[1] and to[0] not in goals
            if over[state] or clash:
                to = (first, second)
            transition[state, joint, to[0] * cells + to[1]] = 1
            if not over[state]:
                reward[:, state, joint] = torch.tensor([100.0 * (to[i] == goals[i]) - clash for i in range(2)])
    start = torch.zeros(cells * cells, dtype=torch.float64)
    start[side - 1] = 1
    return MarkovGame(transition, reward, start, (4, 4), horizon, over, play, "crossing")


def _walk(cell: int, move: int, side: int) -> int:
    """The cell that a move (left, right, up, down) leads to; the same one against a wall."""
    x = cell % side + (-1, 1, 0, 0)[move]
    y = cell // side + (0, 0, 1, -1)[move]
    return y * side + x if 0 <= x < side and 0 <= y < side else cell


def _empty(states: int, choices: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Tables of zeros: transition, reward, play."""
    joints = prod(choices)
    shapes = (states, joints, states), (len(choices), states, joints), (states, joints)
    transition, reward, play = (torch.zeros(shape, dtype=torch.float64) for shape in shapes)
    return transition, reward, play
