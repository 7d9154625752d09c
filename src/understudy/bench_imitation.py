"""The published tables of MA-GAIL and MA-AIRL, from the library's defaults: `understudy bench mairl-table`.

200 demonstrations of the scripted experts; both begin from one clone, made in symmetric worlds. Told are cooperative
returns over 100 episodes, keep-away against the expert, and how the learned rewards agree with the true ones. Sources:
Song et al. 2018, arXiv:1807.09936; Yu et al. 2019, arXiv:1907.13220, tables 1 to 4.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from understudy import api
from understudy.core.random import generator
from understudy.core.types import Env, Policy
from understudy.evaluation import metrics
from understudy.evaluation.report import Cell, Report, Table
from understudy.evaluation.rewards import Agreement, agreement
from understudy.maths.stats import over_seeds
from understudy.nets import NetConfig
from understudy.nets.rewards import save_reward
from understudy.rollout import Team, Uniform, play, to_demos
from understudy.runs.loop import QUIET
from understudy.runs.many import kept

METHODS = ("bc", "symmetric bc", "magail", "maairl")  # the third and fourth begin from the second, their default
PUBLISHED = ("navigation", "communication", "keep_away")
FIXED = ("navigation, always 50 steps", "communication, always 50 steps")  # reaching the goal ends nothing
UPDATES = {"navigation": 400, "communication": 400, "keep_away": 40}
DEMONSTRATIONS, EPISODES, ANCHORED = 200, 100, 2000  # ANCHORED: episodes of expert and random play
CORRELATIONS = ("pearson", "spearman", "pearson_to_go", "spearman_to_go")


def one_seed(seed: int, folder: Path, minutes: float | None, envs: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Every method in every env: {"env/method": figures}; what was found before in as many updates is read."""
    found = {}
    for name in envs:
        for method in METHODS:
            where = folder / name.replace(", ", "-").replace(" ", "-") / method / f"seed-{seed}" / "figures.json"
            updates = UPDATES[name.split(",")[0]]
            learn = partial(_learned, name=name, method=method, seed=seed, updates=updates, minutes=minutes)
            found[f"{name}/{method}"] = kept(where, [updates, minutes], learn)
    return found


def _learned(path: Path, *, name: str, method: str, seed: int, updates: int, minutes: float | None) -> dict[str, Any]:
    folder = path.parent
    env, module = _env(name), api.algorithm_named(method.split()[-1])
    demos, begins = api.record(env, episodes=DEMONSTRATIONS), folder.parents[1] / METHODS[1] / folder.name
    cloning = method in METHODS[:2]
    settings: Any = {"net": NetConfig(), "symmetric": method == METHODS[1]} if cloning else {"start": str(begins)}
    config, budget = (
        module.Config(**settings),
        (None, None) if cloning else (updates, minutes),
    )  # a clone ends by itself
    run = api.train(
        module, demos, env,
        config=config, updates=budget[0], minutes=budget[1], folder=folder, seed=seed, habits=QUIET,
    )  # fmt: skip
    figures: dict[str, Any] = {"updates": run.updates}
    for who, policy in {**_pairings(env, run.policy), **_anchors(env)}.items():  # all from the same starts
        played = metrics.returns(play(env, policy, EPISODES, generator(seed, "played")))
        figures[who] = played.mean(0).tolist()
    if hasattr(module, "learned_reward"):
        reward = module.learned_reward(run.config, run.state)
        save_reward(reward, folder)
        own = play(env, run.policy, EPISODES, generator(seed, "own"))
        figures["own play"] = _correlations(agreement(reward, own, generator(0)))
        figures["experts and random play"] = _correlations(agreement(reward, _mixed(env), generator(0)))
    return figures


def _env(name: str) -> Env:
    return api.make_env(name.split(",")[0], **({"fixed_horizon": True} if name in FIXED else {}))


def _pairings(env: Env, policy: Policy) -> dict[str, Policy]:
    if len(set(env.spec.teams)) == 1:
        return {"together": policy}
    pair = (policy, api.expert_of(env))
    return {"against expert": Team(pair, (1, 0)), "expert against": Team(pair, (0, 1)), "together": policy}


def _anchors(env: Env) -> dict[str, Policy]:
    return {"expert": api.expert_of(env), "random": Uniform(env.spec)}


def _mixed(env: Env) -> Any:
    """Episodes of the expert and of random play, as many of each."""
    both = [play(env, who, EPISODES, generator(0, "mixed")) for who in (api.expert_of(env), Uniform(env.spec))]
    sets = [to_demos(each, env.spec, api.record(env, episodes=1).about) for each in both]
    return type(sets[0]).from_episodes(env.spec, [episode for each in sets for episode in each]).padded()


def _correlations(agents: list[Agreement]) -> dict[str, list[float]]:
    return {name: [getattr(agent, name).value for agent in agents] for name in CORRELATIONS}


def tables(found: list[dict[str, dict[str, Any]]], envs: tuple[str, ...], command: str) -> Report:
    """Means over seeds, each with half of its 95 % interval."""
    returns: list[list[Cell]] = []
    against: list[list[Cell]] = []
    rewards: list[list[Cell]] = []
    for name in envs:
        env = _env(name)
        anchors = {
            who: metrics.returns(play(env, policy, ANCHORED, generator(0, "anchors"))).mean(0)
            for who, policy in _anchors(env).items()
        }
        cooperative = len(set(env.spec.teams)) == 1
        if cooperative:
            expert, random = float(anchors["expert"][0]), float(anchors["random"][0])
            returns += [[name, "scripted expert", expert, 1.0, ""], [name, "random play", random, 0.0, ""]]
        else:
            seeker = float(anchors["expert"][1])
            against.append([name, "scripted expert", seeker, seeker, ""])
        for method in METHODS:
            each = [seed[f"{name}/{method}"] for seed in found]
            updates = sum(one["updates"] for one in each) / len(each)
            if cooperative:
                got = [one["together"][0] for one in each]
                scaled = [_score(one) for one in each]
                returns.append([name, method, over_seeds(got), over_seeds(scaled), round(updates)])
            else:
                sides = [[one[who][1] for one in each] for who in ("against expert", "expert against")]
                against.append([name, method, *(over_seeds(side) for side in sides), round(updates)])
            for plays in ("own play", "experts and random play"):
                if plays in each[0]:
                    cells = [over_seeds([_mean(one[plays][kind]) for one in each]) for kind in CORRELATIONS]
                    rewards.append([name, method, plays, *cells])
    caption = (
        f"{DEMONSTRATIONS} demonstrations, the same for all {len(found)} seeds, {EPISODES} episodes for each: mean "
        "over seeds ± half of its 95 % interval. Normalised: 0 is random play, 1 the expert, each from the same "
        "starts as the learners."
    )
    kinds = ["Pearson", "Spearman", "Pearson to go", "Spearman to go"]
    versus = "Return of the seeker. A better seeker is higher on the left, a better adversary lower on the right."
    alike = "Correlation of learned and true rewards, mean of agents: of steps, and of returns-to-go (discount 0.99)."
    made = [
        Table(["env", "who", "return", "normalised", "updates"], returns, caption),
        Table(["env", "who", "seeker, against expert", "expert, against adversary", "updates"], against, versus),
        Table(["env", "who", "measured on", *kinds], rewards, alike),
    ]
    return Report(
        "Adversarial imitation on the published particle tasks",
        tables=[table for table in made if table.rows],
        provenance={"command": command, "torch": torch.__version__},
    )


def _score(one: dict[str, Any]) -> float:
    """0 is random play, 1 the expert, from the very starts that the learners played: chance in them is not in it."""
    ours, expert, random = (one[who][0] for who in ("together", "expert", "random"))
    return (ours - random) / (expert - random)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
