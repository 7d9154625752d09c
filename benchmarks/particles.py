"""Tables of docs/envs/particles.md.

PYTHONPATH=src python benchmarks/particles.py returns    # of scripted experts and of random play, with standard errors
PYTHONPATH=src python benchmarks/particles.py sides      # of predator and prey, scripted or random on either side
PYTHONPATH=src python benchmarks/particles.py speed      # env-steps a second of processor time, on one thread
"""

import sys
from time import process_time

import torch

from understudy.core.random import generator, uniform
from understudy.core.types import View
from understudy.envs import particles
from understudy.envs.particles import PredatorPrey, Spread, Tag, expert

EPISODES = 2000


def random_actions(env, envs, source):
    sizes = torch.tensor(env.spec.action_sizes)
    if env.continuous:
        return uniform((envs, len(sizes), int(sizes.max())), source)
    return (uniform((envs, len(sizes)), source) * sizes).long()


def returns(env, scripted, episodes=EPISODES):
    """[episode, agent] of whole episodes; `scripted`: Bool[agent], the rest plays at random."""
    source, state = generator(0, "actions"), env.reset(uniform((episodes, env.spec.reset_noise), generator(0, "reset")))
    total, alive = torch.zeros(episodes, env.spec.agents), torch.ones(episodes, 1, dtype=torch.bool)
    for _ in range(env.horizon):
        theirs = random_actions(env, episodes, source)
        ours = expert(env, View(obs=env.observe(state), whole=env.whole(state)))
        actions = torch.where(scripted.reshape(-1, *[1] * (ours.dim() - 2)), ours, theirs)
        state, rewards, terminated = env.step(state, actions, uniform((episodes, 0), source))
        total += rewards * alive
        alive &= ~terminated.unsqueeze(1)
    return total


def show(total, agents):
    mean, error = total.mean(0), total.std(0) / len(total) ** 0.5
    return " / ".join(f"{mean[a]:.2f} ± {error[a]:.2f}" for a in agents)


def table_of_returns():
    print("| env | returns of | random | expert | expert, continuous |\n|---|---|---|---|---|")
    for name in particles.__all__:
        make = getattr(particles, name)
        if not hasattr(make, "title"):
            continue
        env, smooth = make(), make(continuous=True)
        agents = [env.spec.roles.index(role) for role in dict.fromkeys(env.spec.roles)]
        agents = agents[:1] if len(set(env.spec.teams)) == 1 else agents
        nobody, everybody = torch.zeros(env.spec.agents).bool(), torch.ones(env.spec.agents).bool()
        names = " / ".join(env.spec.names[a] for a in agents)
        found = [show(returns(*pair), agents) for pair in ((env, nobody), (env, everybody), (smooth, everybody))]
        print(f"| `{name}` | {names} | {' | '.join(found)} |", flush=True)


def table_of_sides():
    print("| env | adversaries, prey | each adversary | the prey |\n|---|---|---|---|")
    for env in (Tag(), PredatorPrey()):
        for hunt in (False, True):
            for flee in (False, True):
                total = returns(env, torch.tensor([hunt] * 3 + [flee]))
                who = ", ".join("expert" if side else "random" for side in (hunt, flee))
                print(f"| `{type(env).__name__}` | {who} | {show(total, [0])} | {show(total, [3])} |", flush=True)


def table_of_speed():
    print("| env | envs | its own functions | torch alone |\n|---|---|---|---|")
    for env in (Spread(), Tag()):
        for envs in (512, 4096, 16384):
            source = generator(0)
            start = env.reset(uniform((envs, env.spec.reset_noise), source))
            actions, noise = random_actions(env, envs, source), uniform((envs, 0), source)

            def play(state, env=env, actions=actions, noise=noise):
                state, rewards, terminated = env.step(state, actions, noise)
                return state, rewards, terminated, env.observe(state)

            def plain(state, env=env, actions=actions):
                state, rewards = env.plain_step(state, actions)
                return state, rewards, env.over(state), env.plain_observe(state)

            found = []
            for f in (play, plain):
                state, best, steps = start, 0.0, max(5, 30_000 // envs)
                for _ in range(5):
                    state, *_ = f(state)
                for _ in range(8):
                    begin = process_time()
                    for _ in range(steps):
                        state, *_ = f(state)
                    best = max(best, envs * steps / (process_time() - begin))
                found.append(f"{best / 1e6:.1f} million")
            print(f"| `{type(env).__name__}` | {envs:,} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.inference_mode():
        {"returns": table_of_returns, "sides": table_of_sides, "speed": table_of_speed}[sys.argv[1]]()
