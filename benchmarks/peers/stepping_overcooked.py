"""overcooked-ai: one kitchen in one process, seen through its lossless encoding, which is its cheapest."""

from serving import serve

STEPS = 200


def prepare(game, envs, threads=1):
    import numpy as np
    from overcooked_ai_py.mdp.actions import Action
    from overcooked_ai_py.mdp.overcooked_env import OvercookedEnv
    from overcooked_ai_py.mdp.overcooked_mdp import OvercookedGridworld

    env = OvercookedEnv.from_mdp(OvercookedGridworld.from_layout_name("cramped_room"), horizon=400, info_level=0)
    actions = np.random.default_rng(0).integers(0, 6, (STEPS, 2))
    moves = [tuple(Action.INDEX_TO_ACTION[a] for a in joint) for joint in actions]

    def work():
        for joint in moves:
            state, _, over, _ = env.step(joint)
            env.lossless_state_encoding_mdp(state)
            if over:
                env.reset()
        return STEPS, None

    return work


if __name__ == "__main__":
    serve(prepare)
