"""VMAS: steps of a batch, all begun anew after 25."""

from serving import serve

NAMES = {"spread": ("simple_spread", {"n_agents": 3}), "tag": ("simple_tag", {})}
STEPS = 25


def prepare(game, envs, threads=1):
    import torch
    import vmas

    torch.set_num_threads(threads)
    name, rules = NAMES[game]
    env = vmas.make_env(scenario=name, num_envs=envs, device="cpu", continuous_actions=False, seed=0, **rules)
    source = torch.Generator().manual_seed(0)
    actions = [[torch.randint(5, (envs, 1), generator=source) for _ in env.agents] for _ in range(STEPS)]
    env.reset()

    def work():
        with torch.no_grad():
            for each in actions:
                env.step(each)
            env.reset()
        return STEPS * envs, None

    return work


if __name__ == "__main__":
    serve(prepare)
