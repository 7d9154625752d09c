"""BenchMARL's IPPO on VMAS's spread, its loop as it comes. A round is one iteration.

The loop cannot be left and entered again, so it runs in a thread that waits between two rounds.
"""

from threading import Semaphore, Thread

from serving import serve

FOR_EVER = 100_000
GO, OVER = Semaphore(0), Semaphore(0)


def prepare(envs, segment, threads=1):
    import tempfile

    import torch
    from benchmarl.algorithms import IppoConfig
    from benchmarl.environments import VmasTask
    from benchmarl.experiment import Experiment, ExperimentConfig
    from benchmarl.experiment.callback import Callback
    from benchmarl.models.mlp import MlpConfig

    torch.set_num_threads(threads)
    config = ExperimentConfig.get_from_yaml()
    config.sampling_device = config.train_device = config.buffer_device = "cpu"
    config.share_policy_params, config.prefer_continuous_actions = True, False
    config.on_policy_collected_frames_per_batch, config.on_policy_n_envs_per_worker = envs * segment, envs
    config.on_policy_n_minibatch_iters, config.on_policy_minibatch_size = 4, envs * segment // 4
    config.max_n_frames, config.max_n_iters = None, FOR_EVER
    config.evaluation, config.render, config.loggers, config.create_json = False, False, [], False
    config.lr, config.gamma = 1e-3, 0.99
    config.checkpoint_interval, config.checkpoint_at_end = 0, False
    config.save_folder = tempfile.mkdtemp()
    task = VmasTask.SIMPLE_SPREAD.get_from_yaml()
    task.config.update({"max_steps": 25, "n_agents": 3})
    shape = MlpConfig(num_cells=[64, 64], activation_class=torch.nn.Tanh, layer_class=torch.nn.Linear)

    class Rounds(Callback):
        def on_batch_collected(self, batch):
            OVER.release()
            GO.acquire()

    Rounds.__qualname__ = "Rounds"  # the experiment pickles its settings: this can be found again by name
    globals()["Rounds"] = Rounds
    learner = Experiment(
        task, IppoConfig.get_from_yaml(), shape, seed=0, critic_model_config=shape, config=config, callbacks=[Rounds()]
    )
    Thread(target=learner.run, daemon=True).start()
    OVER.acquire()  # the first batch is played, and not learnt from yet

    def work():
        GO.release()
        OVER.acquire()
        return envs * segment, float(learner.mean_return)

    return work


if __name__ == "__main__":
    serve(prepare)
