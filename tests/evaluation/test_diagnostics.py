"""A run in order is not spoken of; each way to go wrong has a sentence of its own that names a setting."""

import pytest

from understudy.evaluation.diagnostics import diagnose


def run_in_order(count=50):
    """Rows as a good run writes them."""
    return [
        {
            "update": i + 1,
            "return": -130 + 85 * min(1, i / 30) + (i % 3),
            "entropy": 1.0 - 0.4 * i / count,
            "kl": 0.012,
            "alignment": 0.02 * (-1) ** i,
            "discriminator/loss": 0.64,
            "discriminator/expert": 0.65,
            "discriminator/learner": 0.72,
            "discriminator/calibration": 0.1,
            "discriminator/saturated": 0.0,
            "reward/mean": -0.3 + 0.05 * (-1) ** i,
            "reward/std": 1.0,
            "gone/expert": 0.8,
            "gone/learner": 0.2 + 0.5 * i / count,
        }
        for i in range(count)
    ]


def changed(**columns):
    """The same with some numbers others, given as functions of the row's number from 0 to 1."""
    rows = run_in_order()
    for i, row in enumerate(rows):
        for name, number in columns.items():
            row[name.replace("__", "/")] = number(i / (len(rows) - 1))
    return rows


def test_a_run_in_order_and_a_run_that_tells_nothing_are_not_spoken_of():
    assert diagnose(run_in_order()) == []
    assert diagnose([]) == []
    assert diagnose([{"update": 1, "loss": 3.0}]) == []
    assert diagnose([{"update": 1, "return": None}, {"update": 2, "return": float("nan")}]) == []


@pytest.mark.parametrize(
    ("columns", "words", "setting"),
    [
        ({"discriminator__expert": lambda t: 0.99, "discriminator__learner": lambda t: 0.97}, "so sure", "penalty"),
        (
            {"discriminator__loss": lambda t: 0.6931, "discriminator__expert": lambda t: 0.3},
            "right about 51% of the steps", "judge_steps",
        ),
        ({"discriminator__loss": lambda t: 1.3}, "worse than guessing", "judge_rate"),
        ({"discriminator__calibration": lambda t: 0.4}, "0.40 apart", "target_kl"),
        ({"discriminator__saturated": lambda t: 0.6}, "60% of its judgements", "logit"),
        ({"reward__mean": lambda t: 9 * t}, "mean reward moved", "replay"),
        ({"kl": lambda t: 0.5}, "0.50 nats", "target_kl"),
        ({"entropy": lambda t: 1.0 if t < 0.5 else 0.001}, "nothing is tried", "bonus"),
        ({"alignment": lambda t: -1.2}, "1.20 nats less likely", "mistake in the code"),
        ({"gone__learner": lambda t: 0.0}, "the learners' never end", "start"),
        ({"gone__expert": lambda t: 0.0}, "counts against the learners", "terminated"),
        ({"return": lambda t: -130 + 170 * t if t < 0.5 else -45 - 80 * (t - 0.5) * 2}, "fell back", "replay"),
    ],
)  # fmt: skip
def test_each_way_to_go_wrong_has_one_sentence_and_names_what_to_change(columns, words, setting):
    said = diagnose(changed(**columns))
    assert len(said) == 1, said
    assert words in said[0]
    assert setting in said[0]


@pytest.mark.parametrize(
    ("writes", "named", "not_there"),
    [
        (("discriminator", "reward", "kl", "entropy"), {"`learner.target_kl`", "`learner.bonus`", "`replay`"}, set()),
        (("reward", "kl", "entropy"), {"`learner.target_kl`", "`learner.bonus`"}, {"`replay`", "`judge_rate`"}),  # pwil
        (("kl", "entropy"), {"`target_kl`", "`bonus`", "`envs`"}, {"`replay`", "`learner."}),  # ppo
        ((), set(), {"`"}),  # bc, dagger
    ],
)
def test_only_settings_that_the_run_has_are_named(writes, named, not_there):
    wrong = changed(
        **{"return": lambda t: -130 + 170 * t if t < 0.5 else -45 - 80 * (t - 0.5) * 2},
        entropy=lambda t: 1.0 if t < 0.5 else 0.001, kl=lambda t: 0.5, reward__mean=lambda t: 9 * t,
    )  # fmt: skip
    rows = [{k: v for k, v in row.items() if k == "return" or k.split("/")[0] in writes} for row in wrong]
    said = " ".join(diagnose(rows))
    assert "fell back" in said
    assert all(name in said for name in named), said
    assert not any(name in said for name in not_there), said


def test_actions_likelier_than_drawn_ones_are_no_sign_of_a_mix_up():
    assert diagnose(changed(alignment=lambda t: 1.2)) == []


def test_the_entropy_of_real_numbers_has_no_least_value():
    assert diagnose(changed(entropy=lambda t: 2.84 - 2.86 * t)) == []


def test_what_went_wrong_only_at_first_is_forgiven():
    early = changed(discriminator__expert=lambda t: 1.0 if t < 0.3 else 0.7, kl=lambda t: 0.4 if t < 0.1 else 0.01)
    assert diagnose(early) == []
