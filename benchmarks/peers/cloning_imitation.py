"""imitation's BC on drawn numbers."""

from serving import serve


def prepare(batch, width, samples, threads=1):
    import gymnasium
    import numpy as np
    import torch
    from imitation.algorithms.bc import BC
    from imitation.data.types import Transitions
    from stable_baselines3.common.policies import ActorCriticPolicy

    torch.set_num_threads(threads)
    source = np.random.default_rng(0)
    seen = source.normal(size=(samples, 18)).astype(np.float32)
    demos = Transitions(seen, source.integers(0, 5, samples), np.array([{}] * samples), seen, np.zeros(samples, bool))
    spaces = gymnasium.spaces.Box(-np.inf, np.inf, (18,), np.float32), gymnasium.spaces.Discrete(5)
    policy = ActorCriticPolicy(*spaces, lambda _: 1e-3, net_arch=[width, width])
    learner = BC(
        observation_space=spaces[0], action_space=spaces[1], demonstrations=demos, rng=source, policy=policy,
        batch_size=batch, device="cpu",
    )  # fmt: skip
    steps = max(1, samples // batch // 10)

    def work():
        learner.train(n_batches=steps, log_interval=10**9, progress_bar=False)
        return steps * batch, None

    return work


if __name__ == "__main__":
    serve(prepare)
