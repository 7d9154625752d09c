"""mpe2: one env in one process, as it comes; how many envs are asked for makes no difference."""

from serving import serve

STEPS = 200


def prepare(game, envs, threads=1):
    import numpy as np
    from mpe2 import simple_spread_v3, simple_tag_v3

    env = {"spread": simple_spread_v3, "tag": simple_tag_v3}[game].parallel_env()
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 5, (STEPS, len(env.possible_agents))).tolist()

    def work():
        for chosen in actions:
            if not env.agents:
                env.reset()
            env.step(dict(zip(env.agents, chosen, strict=True)))
        return STEPS, None

    return work


if __name__ == "__main__":
    serve(prepare)
