"""Maximum causal entropy inverse reinforcement learning: rewards under which what was demonstrated is softly best.

Demonstrators are taken to be soft (`maths.soft`): a move is likelier the more it is worth to who makes it, and
`concept` says what each agent takes the others to do. The rewards climb the likelihood of the recorded moves,

    maximise over r   mean over steps of  sum_i log pi_i(a_i | s; r)   -   penalty / 2 * |weights|^2

For one agent and linear rewards r = weights . features this is the dual of "as much causal entropy as demonstrated
feature counts allow": its gradient is their feature counts less those of the soft play that sets out where they did.

Exact, for tabular games whose rules (not rewards) are known. Rewards are never identified altogether: `explain` tells
what the recordings leave open.

Source: Ziebart, Bagnell & Dey 2010, "Modeling interaction via the principle of maximum causal entropy"; for several
agents see `maths.soft`. Where we part from them: the likelihood of what was recorded, whole or cut off, rather than
discounted counts from the start; L-BFGS in place of gradient ascent. It begins at rewards of zero and moves in
directions that the recordings speak of alone, so what they leave open stays at zero.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from understudy.core.config import at_least_one, not_negative, share
from understudy.core.errors import ConfigError, DemosError
from understudy.demos.demos import Demos
from understudy.demos.tables import count_table
from understudy.maths import games, soft
from understudy.maths.games import Game
from understudy.maths.soft import Concept, Soft
from understudy.nets import AgentMLP, AgentPolicy
from understudy.nets.tables import own_moves, policy_of, write_table


@dataclass(frozen=True)
class Config:
    concept: Concept = (
        "independent"  # what each agent takes the others to do: as they did, or soft alike (`maths.soft`)
    )
    features: Literal["state", "own", "joint"] = (
        "joint"  # what rewards hang on: state alone, own move, everybody's move
    )
    reward: Literal["linear", "network"] = "linear"  # a weight for each feature, or a network of them
    timed: bool = False  # agents know how many steps are left; the policy handed over is their mean over time
    discount: float = 0.95  # weight of the next step's reward in the demonstrators' eyes
    temperature: float = 1.0  # reward per nat: the unit in which rewards come out
    penalty: float = 1e-4  # what rewards cost: keeps them finite where a move was never made
    steps: int = 10  # of L-BFGS in one update
    limit: int = 100  # updates at most
    tolerance: float = 1e-7  # it has finished where no entry of the gradient is larger
    hidden: int = 32  # width of a network's two hidden layers

    def __post_init__(self) -> None:
        share(self, "discount")
        if self.discount == 1 and not self.timed:
            raise ConfigError("discount: 1 has no end unless agents know how many steps are left: use timed=True.")
        not_negative(self, "temperature", "penalty", "tolerance")
        if not self.temperature > 0:
            raise ConfigError(f"temperature: got {self.temperature}, but it must be above 0.")
        at_least_one(self, "steps", "limit", "hidden")


class Rewards(nn.Module):
    """Rewards of a game as weights (zero at first) of its features or as a network of them, in float64.

    Features are a state; a state and the agent's own move; or a state and everybody's moves: to a linear reward each is
    one, to a network they are one-hot numbers side by side.
    """

    columns: Int[Tensor, "agent joint"]
    moves: Tensor

    def __init__(self, config: Config, game: Game, generator: torch.Generator):
        super().__init__()
        self.linear, self.states = config.reward == "linear", game.states
        columns = torch.stack([columns_of(config, game, agent) for agent in range(game.agents)])
        self.register_buffer("columns", columns, persistent=False)
        if self.linear:
            sizes = game.agents, game.states, int(columns.max()) + 1
            self.weights = nn.Parameter(torch.zeros(sizes, dtype=torch.float64))
            return
        made = F.one_hot(game.moves, max(game.choices)).double()  # [joint, agent, choice]
        mine, everybody = made, made.flatten(1).unsqueeze(1).expand(-1, game.agents, -1)
        moves = {"state": made[..., :0], "own": mine, "joint": everybody}[config.features]
        self.register_buffer("moves", moves.contiguous(), persistent=False)
        width = game.states + moves.shape[-1]
        self.net = AgentMLP(width, 1, tuple(range(game.agents)), generator, config.hidden, gain=0.01).double()

    def forward(self) -> Float[Tensor, "agent state joint"]:
        """The table."""
        if self.linear:
            return self.weights.gather(-1, self.columns.unsqueeze(1).expand(-1, self.states, -1))
        joints, agents = self.moves.shape[:2]
        states = torch.eye(self.states, dtype=torch.float64)[:, None, None].expand(-1, joints, agents, -1)
        features = torch.cat([states, self.moves.expand(self.states, -1, -1, -1)], dim=-1)
        return self.net(features).squeeze(-1).permute(2, 0, 1)

    def size(self) -> Float[Tensor, ""]:
        """Sum of the squares that `penalty` is on: weights, or the entries of a network's table."""
        return self.weights.square().sum() if self.linear else self().square().mean()


def columns_of(config: Config, game: Game, agent: int) -> Int[Tensor, "joint"]:
    """Which of a state's features each joint action has."""
    joints = torch.arange(len(game.moves))
    return {"state": torch.zeros_like(joints), "own": game.moves[:, agent], "joint": joints}[config.features]


@dataclass
class State:
    """All that changes in training."""

    policy: AgentPolicy
    rewards: Rewards
    optimizer: torch.optim.Optimizer
    updates: int = 0
    gradient: float = float("inf")  # largest entry


def init(config: Config, demos: Demos | None, env: Any, generator: torch.Generator) -> State:
    """Rewards of nothing, and even play."""
    if demos is None or env is None:
        raise DemosError(
            "maxent explains recordings by rewards in a game whose rules are known: give it demos and env."
        )
    game = _game(config, env)
    count_table(demos, game)  # refuses recordings of another game
    rewards = Rewards(config, game, generator)
    even = own_moves(game.choices).double()
    even = (even / even.sum(-1, keepdim=True)).unsqueeze(1).expand(-1, game.states, -1)
    policy = policy_of(even, env.spec)
    return State(policy, rewards, make_optimizer(config, rewards))


def make_optimizer(config: Config, rewards: Rewards) -> torch.optim.Optimizer:
    """L-BFGS with a line search, whose every call is up to `steps` steps."""
    return torch.optim.LBFGS(
        rewards.parameters(), max_iter=config.steps, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )


def update(
    config: Config, state: State, demos: Demos, env: Any, generator: torch.Generator
) -> dict[str, Float[Tensor, ""]]:
    """Up to `steps` steps of L-BFGS; the policy is then the soft play of the rewards."""
    game, counts = _game(config, env), _counts(config, demos, env)
    loss, state.gradient = improve(config, state.rewards, state.optimizer, game, counts)
    state.updates += 1
    with torch.no_grad():
        found = solve(config, game, state.rewards(), counts)
        write_table(state.policy, games.marginals_of(lasting(game, found.play), game.choices))
    return {"loss": loss, "gradient": torch.tensor(state.gradient)}


def improve(
    config: Config,
    rewards: Rewards,
    optimizer: torch.optim.Optimizer,
    game: Game,
    counts: Float[Tensor, "*time state joint"],
) -> tuple[Float[Tensor, ""], float]:
    """Make what was counted likelier. Returns what is left to pay, and the largest entry of its gradient."""

    def objective() -> Float[Tensor, ""]:
        optimizer.zero_grad()
        loss = minus_likelihood(solve(config, game, rewards(), counts), counts)
        loss = loss + config.penalty / 2 * rewards.size()
        loss.backward()
        return loss

    optimizer.step(objective)  # type: ignore[arg-type]
    loss = objective().detach()
    gradients = [p.grad.abs().max() for p in rewards.parameters() if p.grad is not None]
    return loss, float(torch.stack(gradients).max())


def finished(config: Config, state: State) -> bool:
    """The gradient is nothing any more, or the limit is reached."""
    return state.gradient <= config.tolerance or state.updates >= config.limit


def solve(
    config: Config, game: Game, rewards: Float[Tensor, "agent state joint"], counts: Float[Tensor, "*time state joint"]
) -> Soft:
    """The soft play of `rewards`; the others, where they are taken as they are, play as they were counted."""
    others = _shares(counts.reshape(-1, *counts.shape[-2:]).sum(0)) if config.concept == "independent" else None
    return soft.soft_play(replace(game, reward=rewards), config.concept, others, config.discount, config.temperature)


def minus_likelihood(found: Soft, counts: Float[Tensor, "*time state joint"]) -> Float[Tensor, ""]:
    """Mean over recorded steps of - sum_i log chance of agent i's move, in nats."""
    return -(counts * found.log_chance.sum(-3)).sum() / counts.sum()


def lasting(game: Game, play: Float[Tensor, "*time state joint"]) -> Float[Tensor, "state joint"]:
    """Play that does not look at the clock: the mean over time, steps weighing as often as the state is met in them."""
    if game.horizon is None:
        return play
    often = games.occupancy(game, play).unsqueeze(-1)
    met = often.sum(0)
    return torch.where(met > 0, (often * play).sum(0) / met.clamp(min=1e-300), play.mean(0))


# --- what was found, and what cannot be ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identified:
    """How many of an agent's numbers the recordings tell, and why they do not tell the others.

    features    weights of states where the game goes on
    known       changing them would change how likely a recorded step was
    others      only the mean over what the others did counts (arXiv:2411.15046): "independent" and "quantal"
    shaping     constants, and what one state gives and the next takes back (Ng et al. 1999): h(s) - discount E h(s').
                Of "logistic", also whatever hangs on the others' moves but not on one's own
    unvisited   features of moves in states where nobody was seen
    """

    features: int  # known + others + shaping + unvisited
    known: int
    others: int
    shaping: int
    unvisited: int
    weakest: float  # root mean square nats of a visited move per unit of the known direction that tells least
    never_made: int  # moves of visited states that were never made: of their rewards only an upper bound is known
    unknown: Float[Tensor, "feature direction"]  # orthonormal, unnoticed; features as in `Rewards.weights[agent]`


@dataclass(frozen=True)
class Explained:
    """What an inverse method has found: rewards, how well they explain the recordings, and what they leave open."""

    rewards: Float[Tensor, "agent state joint"]
    likelihood: float  # mean over steps of the sum of the agents' log-chances of what they did, nats
    mismatch: float  # largest difference between demonstrated and soft shares of a state's move of an agent
    identified: tuple[Identified, ...]  # of each agent
    concept: Concept

    def __str__(self) -> str:
        lines = [f"{self.concept}: {self.likelihood:.4f} nats a step; shares of moves are off by {self.mismatch:.1e}"]
        lines += [
            f"agent {i}: {it.known} of {it.features} numbers are known (the least sure of them moves a choice by "
            f"{it.weakest:.1e} nats a unit). Open: {it.others} as only means over the others count, {it.shaping} as "
            f"constants and shaping change no play, {it.unvisited} of states never visited. Of {it.never_made} moves "
            "that were never made, rewards are known from above alone."
            for i, it in enumerate(self.identified)
        ]
        return "\n".join(lines)


@torch.no_grad()
def explain(config: Config, state: State, demos: Demos, env: Any) -> Explained:
    """The rewards found, and a rank test of what the recordings say of them. Only of lasting play (`timed=False`).

    Raises:
        ConfigError: for timed play, whose rewards are told by every step anew.
    """
    if config.timed:
        raise ConfigError("timed: what can be known of rewards is told of play that does not look at the clock alone.")
    game, counts = _game(config, env), _counts(config, demos, env)
    rewards = state.rewards()
    found = solve(config, game, rewards, counts)
    visited = counts.sum(-1, keepdim=True)
    done = games.marginals_of(_shares(counts), game.choices)
    soft_ones = games.marginals_of(found.play, game.choices)
    apart = (soft_ones - done).abs() * (visited.squeeze(-1) > 0).unsqueeze(-1)
    each = tuple(identify(config, game, found, counts, agent) for agent in range(game.agents))
    likelihood = -float(minus_likelihood(found, counts))
    return Explained(rewards, likelihood, float(apart.max()), each, config.concept)


@torch.no_grad()
def identify(config: Config, game: Game, found: Soft, counts: Float[Tensor, "state joint"], agent: int) -> Identified:
    """What recordings say of one agent's linear rewards while the others play on as they do: ranks of derivatives.

    With dr the change of rewards, dQ = dr + discount E dV, dV = E dQ under the soft play, d log pi = (dQ - dV) / T.
    """
    choices, live = game.choices, ~game.over
    columns = columns_of(config, game, agent)
    pick = F.one_hot(columns, int(columns.max()) + 1).double()  # [joint, column]
    eye = torch.eye(game.states, dtype=torch.float64)
    features = torch.einsum("sz,jc->sjzc", eye, pick)[:, :, live].flatten(2)  # ended states pay nothing
    chance = games.facing(found.log_chance[agent].exp(), agent, choices)  # [state, others, own]
    play = _shares(counts) if config.concept == "independent" else found.play
    others = games.facing(play, agent, choices).sum(-1, keepdim=True)  # [state, others, 1]

    def faced(table: Float[Tensor, "state joint *entry"]) -> Tensor:
        """[state, others, own, entry]; one mean over the others where they are not replied to."""
        told = games.facing(table.movedim(1, -1), agent, choices).movedim(1, -1)
        return told if config.concept == "logistic" else (told * others.unsqueeze(-1)).sum(1, keepdim=True)

    direct, next_state = faced(features), faced(game.transition)  # [..., feature], [..., next]
    chance = chance[:, : direct.shape[1]].unsqueeze(-1)
    weight = others.unsqueeze(-1) if config.concept == "logistic" else torch.ones_like(chance[:, :, :1])
    moving = (weight * chance * next_state).sum((1, 2))
    paid = (weight * chance * direct).sum((1, 2))
    going_on = config.discount * moving * live.unsqueeze(-1)
    values = torch.linalg.solve(eye - going_on, paid * live.unsqueeze(-1))
    q = direct + config.discount * next_state @ values
    change = q - (chance * q).sum(2, keepdim=True)  # derivative of T log pi in the features
    seen = counts.sum(-1) > 0
    replied = games.facing(counts, agent, choices).sum(-1) > 0  # [state, others]: what the others did when it chose
    visible = change[replied if config.concept == "logistic" else seen.unsqueeze(-1)].flatten(0, 1)
    size, in_means = features.shape[-1], _rank(direct[live].flatten(0, 2))
    everywhere, known = _rank(change[live].flatten(0, 2)), _rank(visible)
    _, sharpness, directions = torch.linalg.svd(visible, full_matrices=True)
    of_live = live.repeat_interleave(pick.shape[1])
    unknown = torch.zeros(len(of_live), size - known, dtype=torch.float64)
    unknown[of_live] = directions[known:].T
    made = games.marginals_of(_shares(counts), choices)[agent][seen, : choices[agent]]
    return Identified(
        features=size,
        known=known,
        others=size - in_means,
        shaping=in_means - everywhere,
        unvisited=everywhere - known,
        weakest=float(sharpness[known - 1]) / config.temperature / len(visible) ** 0.5 if known else 0.0,
        never_made=int((made == 0).sum()),
        unknown=unknown,
    )


def _rank(matrix: Float[Tensor, "row column"]) -> int:
    return int(torch.linalg.matrix_rank(matrix, rtol=1e-9))


def _shares(counts: Float[Tensor, "state joint"]) -> Float[Tensor, "state joint"]:
    """How play was counted; even where it never was."""
    total = counts.sum(-1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp(min=1e-300), 1 / counts.shape[-1])


def _game(config: Config, env: Any) -> Game:
    """The tables, without a horizon where agents do not look at the clock."""
    game = games.game_of(env)
    if config.timed and game.horizon is None:
        raise ConfigError("timed: the game has no horizon, so nobody knows how many steps are left.")
    return game if config.timed else replace(game, horizon=None)


@lru_cache(maxsize=4)
def _counts(config: Config, demos: Demos, env: Any) -> Float[Tensor, "*time state joint"]:
    counts = count_table(demos, _game(config, env))
    return counts if config.timed else counts.sum(0)
