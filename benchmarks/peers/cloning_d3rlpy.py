"""d3rlpy's discrete BC on drawn numbers."""

from serving import serve


def prepare(batch, width, samples, threads=1):
    import d3rlpy
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    source = np.random.default_rng(0)
    ends = (np.arange(samples) % 25 == 24).astype(np.float32)
    seen, done = source.normal(size=(samples, 18)).astype(np.float32), source.integers(0, 5, samples)
    demos = d3rlpy.dataset.MDPDataset(seen, done, source.normal(size=samples).astype(np.float32), ends)
    shape = d3rlpy.models.VectorEncoderFactory(hidden_units=[width, width], activation="tanh")
    learner = d3rlpy.algos.DiscreteBCConfig(batch_size=batch, encoder_factory=shape).create(device="cpu:0")
    learner.build_with_dataset(demos)
    steps = max(2, 20_000 // batch)
    silent = d3rlpy.logging.NoopAdapterFactory()

    def work():
        learner.fit(demos, n_steps=steps, n_steps_per_epoch=steps, show_progress=False, logger_adapter=silent)
        return steps * batch, None

    return work


if __name__ == "__main__":
    serve(prepare)
