"""Tracks: what a set keeps, how it is cut, and what it refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DemosError, ShapeError
from understudy.core.random import generator
from understudy.demos.tracks import Clips, Omission, Tracks, TrackSet, TrackSpec

SPEC = TrackSpec(agents=3, dt=0.4, names=("a", "b", "c"))


def recording(number: int, frames: int, agents: int = 3) -> Tracks:
    """values[t, agent] = (1000 number + t, agent); an agent is there from frame 2 * agent on."""
    t = torch.arange(frames).unsqueeze(-1).expand(-1, agents)
    values = torch.stack([1000 * number + t, torch.arange(agents).expand_as(t)], dim=-1).float()
    labels = {"when": t.float(), "who": torch.arange(agents).expand_as(t).clone(), "team": torch.arange(frames)}
    return Tracks(values, t >= 2 * torch.arange(agents), labels, f"r{number}", {"number": number})


def tracks(*lengths: int) -> TrackSet:
    return TrackSet.of(SPEC, [recording(k, frames) for k, frames in enumerate(lengths)])


def test_a_set_gives_back_its_recordings_with_zeros_where_nobody_was():
    made = tracks(7, 1, 12)
    assert (len(made), made.frames, made.names) == (3, 20, ("r0", "r1", "r2"))
    for k, frames in enumerate((7, 1, 12)):
        meant = recording(k, frames)
        torch.testing.assert_close(made[k].values, meant.values * meant.present.unsqueeze(-1))
        assert torch.equal(made[k].present, meant.present)
        assert torch.equal(made[k].labels["who"], meant.labels["who"])


def test_fillers_do_not_change_a_fingerprint_and_all_else_does():
    one = recording(0, 9)
    filled = Tracks(
        torch.where(one.present.unsqueeze(-1), one.values, torch.nan), one.present, one.labels, "r0", one.info
    )
    prints = [TrackSet.of(SPEC, [each]).fingerprint() for each in (one, filled)]
    assert prints[0] == prints[1]
    moved = Tracks(one.values + 1e-3, one.present, one.labels, "r0", one.info)
    renamed = Tracks(one.values, one.present, one.labels, "r1", one.info)
    slower = TrackSpec(agents=3, dt=0.5, names=("a", "b", "c"))
    others = [TrackSet.of(SPEC, [moved]), TrackSet.of(SPEC, [renamed]), TrackSet.of(slower, [one]), tracks(9, 9)]
    assert len({prints[0], *(other.fingerprint() for other in others)}) == 5


def test_clips_are_the_pieces_that_slicing_gives():
    made = tracks(7, 3, 12)
    clips = made.clips(4, stride=3)
    expected = [(k, start) for k, frames in enumerate((7, 3, 12)) for start in range(0, frames - 3, 3)]
    assert list(zip(clips.recording.tolist(), clips.start.tolist(), strict=True)) == expected
    for row, (k, start) in enumerate(expected):
        assert torch.equal(clips.values[row], made[k].values[start : start + 4])
        assert torch.equal(clips.labels["team"][row], made[k].labels["team"][start : start + 4])


def test_complete_clips_hold_only_those_who_stay():
    clips = tracks(8).clips(4, stride=1, complete=True, least_present=2)
    assert clips.start.tolist() == [2, 3, 4]  # agent b comes at frame 2, c at 4
    assert clips.present.all(1).tolist() == [[True, True, False], [True, True, False], [True, True, True]]
    assert (clips.values[:2, :, 2] == 0).all()


def test_packing_moves_those_who_appear_to_the_front_and_says_who_they_are():
    values = torch.arange(4.0).reshape(1, 4, 1).expand(2, 4, 2)
    present = torch.tensor([[False, True, False, True], [False, True, True, True]])
    made = TrackSet.of(TrackSpec(agents=4), [Tracks(values, present, {"who": torch.arange(4).expand(2, 4).clone()})])
    clips = made.clips(1, agents=0)
    assert clips.slots.tolist() == [[1, 3, -1], [1, 2, 3]]
    assert clips.values[:, 0, :, 0].tolist() == [[1.0, 3.0, 0.0], [1.0, 2.0, 3.0]]
    assert clips.labels["who"][1, 0].tolist() == [1, 2, 3]
    with pytest.raises(DemosError, match="in recording 0 from frame 1 on there are 3 agents"):
        made.clips(1, agents=2)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    rows=st.integers(1, 9),
    length=st.integers(1, 12),
    epoch=st.integers(0, 3),
)
def test_a_stream_of_batches_is_whole_windows_of_every_recording(lengths, rows, length, epoch):
    made = tracks(*lengths)
    each = made.batches_per_epoch(rows, length)
    batches = [made.batch(epoch * each + k, rows, 7, length) for k in range(each)]
    assert all(0 < len(batch) <= rows for batch in batches)
    seen = sorted((int(k), int(s)) for batch in batches for k, s in zip(batch.recording, batch.start, strict=True))
    assert [k for k, _ in seen] == [k for k, frames in enumerate(lengths) for _ in range(-(-frames // length))]
    for batch in batches:
        for row, (k, start) in enumerate(zip(batch.recording.tolist(), batch.start.tolist(), strict=True)):
            assert 0 <= start <= max(0, lengths[k] - length)
            there = made[k].values[start : start + length]
            assert torch.equal(batch.values[row, : len(there)], there)
            assert not batch.present[row, len(there) :].any()
            assert (batch.labels["when"][row, len(there) :].isnan()).all()
            assert (batch.labels["team"][row, len(there) :] == -1).all()


def test_a_batch_is_a_function_of_seed_and_position():
    made = tracks(30, 20)
    one, again, other = (made.batch(5, 4, seed, 6) for seed in (3, 3, 4))
    assert torch.equal(one.values, again.values)
    assert not torch.equal(one.start, other.start)


def test_every_place_of_a_long_recording_is_drawn_equally_often():
    made = tracks(25)
    starts = torch.cat([made.batch(k, 100, 0, 10).start for k in range(2000)])  # 3 clips each: 16 places
    share = torch.bincount(starts, minlength=16) / len(starts)
    assert (share - 1 / 16).abs().max() < 5 * (1 / 16 / len(starts)) ** 0.5  # five standard errors, and stratified


def test_selecting_and_splitting_keep_recordings_whole():
    made = tracks(4, 6, 5, 9)
    picked = made.select([2, -1, 0])
    assert picked.names == ("r2", "r3", "r0")
    assert torch.equal(picked[1].values, made[3].values)
    rest, held = made.split(0.25, seed=1)
    assert sorted(rest.names + held.names) == ["r0", "r1", "r2", "r3"]
    assert made.where(lambda info: info["number"] > 1).names == ("r2", "r3")
    with pytest.raises(DemosError, match="both parts need one"):
        tracks(50).split(0.2, seed=0)


def test_stacked_scenes_are_a_set_of_recordings():
    values = torch.rand(5, 4, 3, 2, generator=generator(0))
    made = TrackSet.stacked(SPEC, values, labels={"style": torch.arange(5).unsqueeze(-1).expand(5, 4)})
    assert (len(made), made.frames) == (5, 20)
    torch.testing.assert_close(made.clips(4).values, values)
    assert made[3].labels["style"].tolist() == [3] * 4


def test_symbols_are_tracks_too():
    spec = TrackSpec(agents=2, dims=0, symbols=5, clock="beat")
    made = TrackSet.of(
        spec, [Tracks(torch.tensor([[1, 4], [0, 3], [2, 9]]), torch.tensor([[1, 1], [1, 1], [1, 0]]).bool())]
    )
    assert made.batch(0, 3, 0, 3).values.tolist() == [[[1, 4], [0, 3], [2, 0]]]
    with pytest.raises(DemosError, match=r"recording 0, agent agent_1, frame 0: 7 is no symbol from 0 to 4"):
        TrackSet.of(spec, [Tracks(torch.tensor([[1, 7]]), torch.ones(1, 2).bool())])


def test_labels_may_be_functions_of_a_recording():
    made = tracks(6, 4).labelled(first=lambda each, spec: each.values[..., 0] * spec.dt)
    torch.testing.assert_close(made[1].labels["first"], made[1].values[..., 0] * 0.4)
    with pytest.raises(DemosError, match="label `short`"):
        made.labelled(short=lambda each, spec: each.values[1:, 0, 0])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"agents": 0}, "agents: got 0"),
        ({"agents": 2, "dims": 4}, "dims, symbols"),
        ({"agents": 2, "symbols": 4}, "dims, symbols"),
        ({"agents": 2, "dt": 0.0}, "dt: got 0.0"),
        ({"agents": 2, "low": (0.0,), "high": (1.0,)}, "low, high"),
        ({"agents": 2, "low": (0.0, 3.0), "high": (1.0, 3.0)}, "each low must be below"),
        ({"agents": 2, "names": ("x", "x")}, "a name of its own"),
        ({"agents": 2, "teams": ("x",)}, "teams: got 1 of them for 2 agents"),
        ({"agents": 1, "dims": 0, "symbols": 3, "alphabet": ("a", "b")}, "alphabet: got 2 names"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        TrackSpec(**settings)


def test_a_spec_is_plain_data_and_back():
    spec = TrackSpec(agents=2, dims=3, dt=1 / 29.97, low=(0.0, 0.0, 0.0), high=(105.0, 68.0, 10.0), title="pitch")
    assert TrackSpec.from_json(spec.to_json()) == spec
    assert str(TrackSpec(agents=1, dt=1, low=(0, 0), high=(2, 2))) == str(
        TrackSpec(agents=1, low=(0.0, 0.0), high=(2.0, 2.0))
    )
    with pytest.raises(DemosError, match="agnets"):
        TrackSpec.from_json({"agnets": 2})


def test_what_does_not_fit_is_refused_by_recording_agent_and_frame():
    good = recording(0, 5)
    broken = good.values.clone()
    broken[3, 1, 0] = torch.inf
    with pytest.raises(DemosError, match=r"recording 1 \(r0\), agent b, frame 3: .* is not finite"):
        TrackSet.of(SPEC, [good, Tracks(broken, good.present, good.labels, "r0")])
    with pytest.raises(ShapeError, match=r"\['time', 3, 2\]"):
        TrackSet.of(SPEC, [recording(0, 5, agents=2)])
    with pytest.raises(DemosError, match="recording 1: its labels are none"):
        TrackSet.of(SPEC, [good, Tracks(good.values, good.present)])
    with pytest.raises(DemosError, match="it has no frame"):
        TrackSet.of(SPEC, [Tracks(torch.zeros(0, 3, 2), torch.zeros(0, 3, dtype=torch.bool))])
    with pytest.raises(DemosError, match=r"info\['who'\]"):
        TrackSet.of(SPEC, [Tracks(good.values, good.present, info={"who": torch.nan})])


def test_what_was_left_out_is_told_in_one_line():
    assert (
        str(Omission(5, 200, "rows", "no agent in the cell")) == "5 of 200 rows (2.5%) left out: no agent in the cell"
    )
    noted = tracks(4).noted(Omission(0, 9, "rows", "nothing"), Omission(1, 9, "frames", "gaps"))
    assert [each.what for each in noted.omissions] == ["frames"]


def test_clips_move_to_a_device_with_all_they_hold():
    moved = tracks(5).clips(2).to("cpu")
    assert isinstance(moved, Clips)
    assert moved.slots is None
