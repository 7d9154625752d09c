"""What play in a tabular Markov game is worth, and what an agent could gain by leaving it: all of it exact.

Play is a table of probabilities of *joint* actions, `[state, joint]` for stationary play or `[time, state, joint]`, so
that correlated play is a table like any other (`product_of` makes one of each agent's own). A joint action is one
number: the agents' moves read as digits, the last agent's the lowest. With a horizon H the sums run over its H steps;
without one they never end, and a discount below 1 is needed.

An agent who deviates follows phi(state, told) -> done: it hears the move that the play has drawn for it and makes
another. Two classes of deviations are known here, and both contain obeying:

    "swap"      any phi: what correlated equilibria forbid a gain by
    "external"  phi that does not listen: what coarse correlated equilibria forbid a gain by

    gain_i = max over phi of V_i(phi o play) - V_i(play),   regret = max_i gain_i,   exploitability = sum_i gain_i

(the regret of Tang et al. 2024, arXiv:2406.04219). Where agents choose independently, both classes gain alike, the
exploitability is NashConv and the regret the Nash gap. Everything is float64.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError, EnvError, expect_shape
from understudy.maths.divergence import entropy

Deviations = Literal["swap", "external"]
TINY = 1e-300  # what a total is at least where it divides


@dataclass(frozen=True, eq=False)
class Game:
    """The tables of a Markov game in float64."""

    transition: Float[Tensor, "state joint next"]  # probability of the next state
    reward: Float[Tensor, "agent state joint"]
    start: Float[Tensor, "state"]  # probability of the first state
    choices: tuple[int, ...]  # moves of each agent
    horizon: int | None
    over: Bool[Tensor, "state"]  # the game has ended: such states lead to themselves and pay nothing

    @property
    def states(self) -> int:
        return len(self.start)

    @property
    def agents(self) -> int:
        return len(self.choices)

    @cached_property
    def moves(self) -> Int[Tensor, "joint agent"]:
        """Each agent's move in every joint action."""
        numbers = torch.arange(prod(self.choices), device=self.start.device)
        return torch.stack(torch.unravel_index(numbers, self.choices), dim=-1)

    def timed(self, play: Float[Tensor, "*time state joint"]) -> Float[Tensor, "time state joint"]:
        """Play with an axis of time, `horizon` long."""
        assert self.horizon is not None
        sizes = {"state": self.states, "joint": prod(self.choices)}
        if play.dim() == 2:
            expect_shape("play", play, "state joint", **sizes)
            return play.expand(self.horizon, -1, -1)
        expect_shape("play", play, "time state joint", time=self.horizon, **sizes)
        return play


def game_of(env: Any) -> Game:
    """The tables of `env` (`envs.tabular`). Raises EnvError where it has none."""
    names = ("transition", "reward", "start", "choices")
    if not all(hasattr(env, name) for name in names):
        title = getattr(getattr(env, "spec", None), "title", "") or type(env).__name__
        raise EnvError(f"{title} has no tables ({', '.join(names)}): this is exact for tabular games alone.")
    over = getattr(env, "over", None)
    start = env.start.double()
    over = torch.zeros_like(start, dtype=torch.bool) if over is None else over
    return Game(env.transition.double(), env.reward.double(), start, tuple(env.choices), env.spec.horizon, over)


def joint_number(actions: Int[Tensor, "*batch agent"], choices: tuple[int, ...]) -> Int[Tensor, "*batch"]:
    """The number of each joint action: moves read as digits, the last agent's the lowest."""
    number = torch.zeros_like(actions[..., 0])
    for agent, count in enumerate(choices):
        number = number * count + actions[..., agent]
    return number


# --- forms of play ---------------------------------------------------------------------------------------------------


def product_of(each: Float[Tensor, "agent *batch choice"], choices: tuple[int, ...]) -> Float[Tensor, "*batch joint"]:
    """Joint play of agents who choose independently. Agents with fewer moves than others have the first ones."""
    joint = each[0, ..., : choices[0]]
    for play, count in zip(each[1:], choices[1:], strict=True):
        joint = (joint.unsqueeze(-1) * play[..., :count].unsqueeze(-2)).flatten(-2)
    return joint


def marginals_of(play: Float[Tensor, "*batch joint"], choices: tuple[int, ...]) -> Float[Tensor, "agent *batch choice"]:
    """How each agent plays by itself; 0 for moves beyond its own."""
    each = play.new_zeros(len(choices), *play.shape[:-1], max(choices))
    for agent, count in enumerate(choices):
        each[agent, ..., :count] = facing(play, agent, choices).sum(-2)
    return each


def facing(
    table: Float[Tensor, "*batch joint"], agent: int, choices: tuple[int, ...]
) -> Float[Tensor, "*batch others choice"]:
    """A table over joint actions as one over what the others do and what `agent` does."""
    lead = table.dim() - 1
    return table.unflatten(-1, choices).movedim(lead + agent, -1).reshape(*table.shape[:-1], -1, choices[agent])


def unfaced(
    table: Float[Tensor, "*batch others choice"], agent: int, choices: tuple[int, ...]
) -> Float[Tensor, "*batch joint"]:
    """The inverse of `facing`."""
    lead = table.dim() - 2
    apart = table.reshape(*table.shape[:-2], *choices[:agent], *choices[agent + 1 :], choices[agent])
    return apart.movedim(-1, lead + agent).flatten(lead)


def deviated(
    play: Float[Tensor, "*batch joint"],
    deviation: Float[Tensor, "*batch told done"],
    agent: int,
    choices: tuple[int, ...],
) -> Float[Tensor, "*batch joint"]:
    """phi o play: `agent` makes the move `done` where it was `told` another, with the probabilities of `deviation`."""
    count = choices[agent]
    return unfaced(facing(play, agent, choices) @ deviation[..., :count, :count], agent, choices)


# --- what play is worth ----------------------------------------------------------------------------------------------


def values(
    game: Game, play: Float[Tensor, "*time state joint"], discount: float = 1.0
) -> Float[Tensor, "*steps agent state"]:
    """Expected sum of each agent's rewards to come, discounted: `[time, agent, state]` with a horizon.

    Raises:
        ConfigError: without a horizon and a discount below 1 the sum has no end.
    """
    if game.horizon is None:
        _ends(game, discount)
        paid = torch.einsum("isj,sj->si", game.reward, play)
        moving = torch.einsum("sj,sjn->sn", play, game.transition)
        return torch.linalg.solve(torch.eye(game.states, dtype=paid.dtype) - discount * moving, paid).T
    later, found = torch.zeros_like(game.reward[..., 0]), []
    for now in game.timed(play).flip(0):
        later = (now * action_values(game, later, discount)).sum(-1)
        found.append(later)
    return torch.stack(found[::-1])


def action_values(
    game: Game, later: Float[Tensor, "agent state"], discount: float
) -> Float[Tensor, "agent state joint"]:
    """r_i(s, a) + discount * sum over s' of P(s' | s, a) V_i(s')."""
    return game.reward + discount * torch.einsum("sjn,in->isj", game.transition, later)


def value(game: Game, play: Float[Tensor, "*time state joint"], discount: float = 1.0) -> Float[Tensor, "agent"]:
    """Expected return of each agent."""
    return _from_start(game, values(game, play, discount))


def occupancy(
    game: Game, play: Float[Tensor, "*time state joint"], discount: float = 1.0
) -> Float[Tensor, "*steps state"]:
    """How often each state is where a step begins: discount**t P(s_t = s) for each t, or their sum without a horizon.

    An ended state keeps what came there; mask it by `game.over` to count what was played.
    """
    if game.horizon is None:
        _ends(game, discount)
        moving = torch.einsum("sj,sjn->sn", play, game.transition)
        return torch.linalg.solve(torch.eye(game.states, dtype=play.dtype) - discount * moving.T, game.start)
    chance, found = game.start, []
    for now in game.timed(play):
        found.append(chance)
        chance = discount * torch.einsum("s,sj,sjn->n", chance, now, game.transition)
    return torch.stack(found)


def value_gap(
    game: Game,
    expert: Float[Tensor, "*time state joint"],
    learner: Float[Tensor, "*times state joint"],
    discount: float = 1.0,
) -> Float[Tensor, ""]:
    """max_i V_i(expert) - V_i(learner): below 0 where every agent earns more than the expert's."""
    return (value(game, expert, discount) - value(game, learner, discount)).max()


# --- what could be gained --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """The best that one agent can do where the others play as told."""

    value: Float[Tensor, ""]  # its expected return
    deviation: Float[Tensor, "*time state told done"]  # 1 for the move that it makes


def best_reply(
    game: Game,
    play: Float[Tensor, "*time state joint"],
    agent: int,
    deviations: Deviations = "swap",
    discount: float = 1.0,
) -> Reply:
    """Exact: backward from the horizon, by policy iteration without one. The reply knows state and time.

    An "external" reply that does worse than obeying is given as it is; `gains` counts obeying in.
    """
    if game.horizon is None:
        return _lasting_reply(game, play, agent, deviations, discount)
    later, found = torch.zeros_like(game.reward[agent, :, 0]), []
    for now in game.timed(play).flip(0):
        later, deviation = _improved(game, now, later, agent, deviations, discount)
        found.append(deviation)
    return Reply(game.start @ later, torch.stack(found[::-1]))


def gains(
    game: Game, play: Float[Tensor, "*time state joint"], deviations: Deviations = "swap", discount: float = 1.0
) -> Float[Tensor, "agent"]:
    """What each agent gains by its best deviation, the others following the play; never below 0."""
    replies = [best_reply(game, play, agent, deviations, discount).value for agent in range(game.agents)]
    return (torch.stack(replies) - value(game, play, discount)).clamp(min=0)


def regret(
    game: Game, play: Float[Tensor, "*time state joint"], deviations: Deviations = "swap", discount: float = 1.0
) -> Float[Tensor, ""]:
    """The largest gain of any agent; 0 at a (coarse) correlated equilibrium. Of independent play: the Nash gap."""
    return gains(game, play, deviations, discount).max()


def exploitability(game: Game, play: Float[Tensor, "*time state joint"], discount: float = 1.0) -> Float[Tensor, ""]:
    """Sum of the gains of agents who do not listen; of independent play: NashConv."""
    return gains(game, play, "external", discount).sum()


def regret_gap(
    game: Game,
    expert: Float[Tensor, "*time state joint"],
    learner: Float[Tensor, "*times state joint"],
    deviations: Deviations = "swap",
    discount: float = 1.0,
) -> Float[Tensor, ""]:
    """regret(learner) - regret(expert). Source: arXiv:2406.04219."""
    return regret(game, learner, deviations, discount) - regret(game, expert, deviations, discount)


def _improved(
    game: Game, play: Tensor, later: Float[Tensor, "state"], agent: int, deviations: Deviations, discount: float
) -> tuple[Float[Tensor, "state"], Float[Tensor, "state told done"]]:
    """Value and deviation of the best step now, where `later` is what the next state is worth to the agent."""
    worth = game.reward[agent] + discount * (game.transition @ later)
    pays = facing(play, agent, game.choices).mT @ facing(worth, agent, game.choices)  # [state, told, done]
    if deviations == "external":
        best, done = pays.sum(-2).max(-1)
        done = done.unsqueeze(-1).expand(-1, pays.shape[-1])
    else:
        each, done = pays.max(-1)
        best = each.sum(-1)
    return best, torch.nn.functional.one_hot(done, pays.shape[-1]).to(pays.dtype)


def _lasting_reply(game: Game, play: Tensor, agent: int, deviations: Deviations, discount: float) -> Reply:
    alone = replace(game, reward=game.reward[agent : agent + 1])
    later, before = values(alone, play, discount)[0], None
    while True:
        _, deviation = _improved(game, play, later, agent, deviations, discount)
        after = values(alone, deviated(play, deviation, agent, game.choices), discount)[0]
        if before is not None and not bool((after > before + 1e-12 * (1 + before.abs())).any()):
            return Reply(game.start @ after, deviation)
        later = before = after


def _from_start(game: Game, found: Float[Tensor, "*steps agent state"]) -> Float[Tensor, "agent"]:
    return (found if game.horizon is None else found[0]) @ game.start


def _ends(game: Game, discount: float) -> None:
    if not 0 <= discount < 1:
        raise ConfigError(f"discount: got {discount}; a game without a horizon needs one from 0 to below 1.")


# --- imitation where deviations lead ---------------------------------------------------------------------------------


def worst_case(
    game: Game,
    play: Float[Tensor, "*time state joint"],
    loss: Float[Tensor, "state"],
    deviations: Deviations = "swap",
    discount: float = 1.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, "state"]]:
    """The largest expected sum of `loss` that a deviation of one agent can lead to, and the steps that it leads to.

    `loss` is paid for each step that begins in a state; nothing is paid where the game is over. The steps are expected
    numbers of them in each state, discounted; obeying is a deviation too.
    """
    lost = (loss * ~game.over).unsqueeze(-1).expand_as(game.reward[0])
    game = replace(game, reward=lost.expand_as(game.reward))
    tried = [play]
    for agent in range(game.agents):
        reply = best_reply(game, play, agent, deviations, discount)
        told = play if reply.deviation.dim() == 3 else game.timed(play)
        tried.append(deviated(told, reply.deviation, agent, game.choices))
    worth = torch.stack([value(game, one, discount)[0] for one in tried])
    often = occupancy(game, tried[int(worth.argmax())], discount) * ~game.over
    return worth.max(), often if game.horizon is None else often.sum(0)


def unlikeness(told: Float[Tensor, "state joint"], log_play: Float[Tensor, "state joint"]) -> Float[Tensor, "state"]:
    """KL(what an expert was counted to do || play) in nats, of each state; 0 where nothing was counted."""
    shares = told / told.sum(-1, keepdim=True).clamp(min=TINY)
    return (-(shares * log_play).sum(-1) - entropy(shares)).clamp(min=0)


def visited_loss(
    log_play: Float[Tensor, "state joint"], told: Float[Tensor, "state joint"], visits: Float[Tensor, "state"]
) -> Float[Tensor, ""]:
    """Mean of -log play of what an expert was counted to do, each state weighing as it is visited.

    Visits where nothing was counted do not count; 0 where there are no others. The mean of rho(s) * -log play(a|s)
    over what was counted, rho(s) = share of visits / share of counts, is the same.
    """
    weight = visits * (told.sum(-1) > 0)
    shares = told / told.sum(-1, keepdim=True).clamp(min=TINY)
    each = -(shares * log_play).sum(-1)
    return (weight * each).sum() / weight.sum().clamp(min=TINY)
