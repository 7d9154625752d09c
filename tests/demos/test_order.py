import pytest
import torch

from understudy.demos import order
from understudy.demos.order import Order, first_windows, window_counts, windows


@pytest.mark.parametrize(("items", "chunk"), [(1, 5), (10, 1), (640, 5), (641, 5), (644, 5), (1279, 5), (5000, 3)])
def test_an_epoch_is_a_permutation_cut_into_buffers(items, chunk):
    made = Order(items, chunk, seed=1, epoch=2)
    taken = []
    for number, (low, high) in enumerate(zip(made.bounds, made.bounds[1:], strict=False)):
        lying, turns = made.buffer(number)
        assert len(lying) == high - low <= chunk * order.CHUNKS
        assert lying.equal(lying.sort().values), "a disk is read forwards"
        taken += lying[turns].tolist()
    assert made.bounds[-1] == items and sorted(taken) == list(range(items))


def test_seeds_and_epochs_have_orders_of_their_own():
    orders = [Order(5000, 3, seed, epoch).buffer(0) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    assert len({tuple(lying[turns].tolist()) for lying, turns in orders}) == 3


def test_a_small_set_is_shuffled_evenly():
    """Every item is as likely at every place: 400 orders of 10, so 40 expected of each pair, within 5 deviations."""
    tally = torch.zeros(10, 10)
    for epoch in range(400):
        lying, turns = Order(10, 100, seed=0, epoch=epoch).buffer(0)
        tally[torch.arange(10), lying[turns]] += 1
    assert (tally - 40).abs().max() < 5 * (400 * 0.1 * 0.9) ** 0.5


@pytest.mark.parametrize("window", [1, 2, 3, 7, 8])
def test_windows_tile_every_episode_and_their_number_never_changes(window):
    lengths = torch.arange(1, 40)
    counts = window_counts(lengths, window)
    cuts = set()
    for epoch in range(60):
        firsts = first_windows(lengths, window, 3, epoch)
        cuts |= {(n, f) for n, f in zip(lengths.tolist(), firsts.tolist(), strict=True)}
        episode, start, length = windows(torch.arange(int(counts.sum())), counts, firsts, lengths, window)
        assert length.min() >= 1 and length.max() <= window
        covered = [
            (e, t)
            for e, s, n in zip(episode.tolist(), start.tolist(), length.tolist(), strict=True)
            for t in range(s, s + n)
        ]
        assert covered == [(e, t) for e, n in enumerate(lengths.tolist()) for t in range(n)]
    for steps in range(window + 1, 40):  # the cuts wander over half of the window or more
        assert len([1 for n, _ in cuts if n == steps]) >= window / 2
    for steps in range(1, window + 1):
        assert counts[steps - 1] == 1, "an episode that fits stays whole"
