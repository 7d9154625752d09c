"""Stable-Baselines3's PPO on mpe2's spread through SuperSuit: agents are envs of one policy. A round is one rollout.

It plays 16 envs side by side, where it is fastest, and as many steps in each as make the common batch.
"""

from serving import serve

ENVS = 16


def prepare(envs, segment, threads=1):
    import supersuit
    import torch
    from mpe2 import simple_spread_v3
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecMonitor

    torch.set_num_threads(threads)
    steps = envs * segment // ENVS
    one = supersuit.pettingzoo_env_to_vec_env_v1(simple_spread_v3.parallel_env())
    many = VecMonitor(supersuit.concat_vec_envs_v1(one, ENVS, num_cpus=0, base_class="stable_baselines3"))
    batch = envs * segment * 3 // 4
    torch.manual_seed(0)  # what SuperSuit makes cannot be seeded by SB3
    learner = PPO("MlpPolicy", many, n_steps=steps, batch_size=batch, n_epochs=4, learning_rate=1e-3, device="cpu")

    def work():
        learner.learn(steps * ENVS * 3, reset_num_timesteps=False)
        returns = [episode["r"] for episode in learner.ep_info_buffer]
        return steps * ENVS, float(sum(returns)) / len(returns)

    return work


if __name__ == "__main__":
    serve(prepare)
