"""imitation's GAIL on Gymnasium's CartPole, with the settings of its own tutorial for it. A round is one rollout."""

from serving import serve

ENVS, STEPS = 8, 256  # side by side, and in each before its PPO learns


def prepare(threads=1):
    import gymnasium
    import numpy as np
    import torch
    from imitation.algorithms.adversarial.gail import GAIL
    from imitation.data.types import Trajectory
    from imitation.rewards.reward_nets import BasicRewardNet
    from imitation.util.networks import RunningNorm
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    game, demos = gymnasium.make("CartPole-v1"), []
    for seed in range(10):
        seen, done, over = [game.reset(seed=seed)[0]], [], False
        while not over:
            done.append(int(seen[-1] @ np.array([0.5, 1.0, 2.0, 2.0]) > 0))
            obs, _, terminated, truncated, _ = game.step(done[-1])
            seen.append(obs)
            over = terminated or truncated
        demos.append(Trajectory(np.array(seen), np.array(done), None, terminal=True))
    envs = DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * ENVS)
    player = PPO(
        "MlpPolicy", envs, n_steps=STEPS, batch_size=64, ent_coef=0.0, learning_rate=4e-4, gamma=0.95, n_epochs=5,
        seed=0, device="cpu",
    )  # fmt: skip
    judge = BasicRewardNet(envs.observation_space, envs.action_space, normalize_input_layer=RunningNorm)
    learner = GAIL(
        demonstrations=demos, demo_batch_size=1024, gen_replay_buffer_capacity=512, n_disc_updates_per_round=8,
        venv=envs, gen_algo=player, reward_net=judge, allow_variable_horizon=True,
    )  # fmt: skip

    def work():
        learner.train(ENVS * STEPS)
        return ENVS * STEPS, None

    return work


if __name__ == "__main__":
    serve(prepare)
