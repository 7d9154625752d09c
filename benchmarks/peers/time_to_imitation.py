"""imitation's BC on the steps in a file; what it tells are the weights and biases of its policy."""

from serving import serve


def prepare(steps, seed, threads=1):
    import gymnasium
    import numpy as np
    import torch
    from imitation.algorithms.bc import BC
    from imitation.data.types import Transitions
    from stable_baselines3.common.policies import ActorCriticPolicy

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    with np.load(steps) as told:
        seen, done = told["seen"], told["done"]
    count, wide = seen.shape
    demos = Transitions(seen, done, np.array([{}] * count), seen, np.zeros(count, bool))
    spaces = gymnasium.spaces.Box(-np.inf, np.inf, (wide,), np.float32), gymnasium.spaces.Discrete(5)
    policy = ActorCriticPolicy(*spaces, lambda _: 1e-3, net_arch=[128, 128])
    learner = BC(
        observation_space=spaces[0], action_space=spaces[1], demonstrations=demos,
        rng=np.random.default_rng(seed), policy=policy, batch_size=512, device="cpu",
    )  # fmt: skip

    def work():
        learner.train(n_batches=20, log_interval=10**9, progress_bar=False)
        layers = [policy.mlp_extractor.policy_net[0], policy.mlp_extractor.policy_net[2], policy.action_net]
        return 20, [[layer.weight.tolist(), layer.bias.tolist()] for layer in layers]

    return work


if __name__ == "__main__":
    serve(prepare)
