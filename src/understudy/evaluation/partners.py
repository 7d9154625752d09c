"""How a policy does among others: in the seats of experts (ad-hoc teamwork), and with learners of other seeds.

A team that only ever played with itself may have agreed on what no stranger understands; its return alone does not
tell. Sources: Stone et al. 2010 (ad-hoc teamwork); Hu et al. 2020, arXiv:2003.02979 (cross-play).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.core.random import generator
from understudy.core.types import Env, Policy
from understudy.evaluation.metrics import returns
from understudy.rollout import Team, play


def seated(
    env: Env, policies: Sequence[Policy], seats: tuple[int, ...], episodes: int, seed: int
) -> Float[Tensor, "episode agent"]:
    """Returns of each agent where agent i is played by `policies[seats[i]]`.

    Whatever is seated where, the same seed begins the same episodes, so that differences are not of the starts.
    """
    return returns(play(env, Team(policies, seats), episodes, generator(seed, "seated")))


def ad_hoc(env: Env, learner: Policy, expert: Policy, episodes: int, seed: int) -> list[Float[Tensor, "episode agent"]]:
    """Returns with 0, 1, ... all seats taken by the learner and the others by the expert.

    For each number of learners every agent is among them equally often: the seats go round, `episodes` each time.
    """
    agents, found = env.spec.agents, []
    for learners in range(agents + 1):
        rounds = 1 if learners in (0, agents) else agents
        each = []
        for first in range(rounds):
            learnt = {(first + i) % agents for i in range(learners)}
            seats = tuple(int(i in learnt) for i in range(agents))
            each.append(seated(env, (expert, learner), seats, episodes, seed + first))
        found.append(torch.cat(each))
    return found


def cross_play(env: Env, teams: Sequence[Policy], episodes: int, seed: int) -> Float[Tensor, "guest host agent"]:
    """Mean return of each agent where one seat of team `host` is taken by the same agent of team `guest`.

    Every seat is taken in turn. On the diagonal each team plays with itself; what lies beside it is what its agreements
    are worth to strangers.
    """
    if len(teams) < 2:
        raise ConfigError("teams: cross-play needs two teams or more, such as runs of several seeds.")
    agents = env.spec.agents
    found = torch.zeros(len(teams), len(teams), agents, dtype=torch.float64)
    for host in range(len(teams)):
        for guest in range(len(teams)):
            chairs = range(1 if guest == host else agents)
            for chair in chairs:
                seats = tuple(guest if i == chair else host for i in range(agents))
                found[guest, host] += seated(env, teams, seats, episodes, seed + chair).double().mean(0) / len(chairs)
    return found
