import pytest
import torch

from tests.demos.common import demos, episode


def test_every_step_comes_once_in_an_epoch_with_what_it_led_to():
    made = demos([7, 1, 12])
    batches = made.batches_per_epoch(6)
    for epoch in range(3):
        seen = []
        for k in range(batches):
            batch = made.batch(epoch * batches + k, 6, seed=4)
            assert len(batch.actions) <= 6
            torch.testing.assert_close(batch.next_view.obs[..., 1], batch.obs[..., 1] + 1)
            torch.testing.assert_close(batch.next_view.obs[..., 0], batch.obs[..., 0])
            torch.testing.assert_close(batch.rewards, batch.obs[..., 1] + 0.5)
            torch.testing.assert_close(batch.actions, (batch.obs.sum(-1) % 4).long())
            torch.testing.assert_close(batch.weight, 1 + batch.obs[:, 0, 0])
            seen += batch.obs[:, 0, :2].long().tolist()
        assert sorted(seen) == [[n, t] for n, steps in enumerate([7, 1, 12]) for t in range(steps)]


def test_an_episode_comes_back_as_it_went_in():
    made = demos([7, 1, 12])
    for n, steps in enumerate([7, 1, 12]):
        there, here = episode(n, steps), made[n]
        for name, value in vars(there).items():
            got = getattr(here, name)
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(got, value)
            elif name != "labels":
                assert got == value, name
        assert all(torch.equal(here.labels[k], v) for k, v in there.labels.items())


@pytest.mark.parametrize("window", [2, 3, 5, 12, 40])
def test_windows_cover_every_step_once_in_every_epoch(window):
    lengths = [7, 1, 12, 10, 25]
    made = demos(lengths)
    batches = made.batches_per_epoch(4, window)
    for epoch in range(5):
        seen = []
        for k in range(batches):
            batch = made.batch(epoch * batches + k, 4, seed=1, window=window)
            assert batch.obs.shape[1:] == (window, 2, 3)
            kept = batch.obs[:, :, 0, :2][batch.valid].long()
            seen += kept.tolist()
            assert (batch.starts == ((batch.obs[:, :, 0, 1] == 0) & batch.valid)).all()
        assert sorted(seen) == [[n, t] for n, steps in enumerate(lengths) for t in range(steps)]
