"""What goes wrong in adversarial training, in plain words, from the lines that a run writes."""

from collections.abc import Mapping, Sequence

Row = Mapping[str, float | int | None]


def diagnose(rows: Sequence[Row]) -> list[str]:
    """Sentences about what looks wrong in the rows of a run's metrics.jsonl, and which setting to change.

    Rows of any algorithm are read; what they do not tell is not judged, and a run in order gives no sentence. "Lately"
    is the last fifth of the rows. It looks at numbers alone: each sentence is a suspicion, not a verdict. Which
    settings a run has is seen from what it writes: a discriminator's figures, a reward's, a step's KL.
    """
    return [sentence for check in _CHECKS if (sentence := check(rows))]


def _series(rows: Sequence[Row], name: str) -> list[float]:
    """What the rows tell of `name`, in order, without what they do not know (NaN is written as null)."""
    values = (row.get(name) for row in rows)
    return [float(v) for v in values if v is not None and v == v]


def _lately(values: Sequence[float]) -> float:
    last = values[-max(1, len(values) // 5) :]
    return sum(last) / len(last)


def _at_first(values: Sequence[float]) -> float:
    first = values[: max(1, len(values) // 5)]
    return sum(first) / len(first)


def _judged(rows: Sequence[Row]) -> bool:
    """There is a discriminator: `judge_rate`, `replay` and what else is its own can be set."""
    return bool(_series(rows, "discriminator/loss"))


def _learner(rows: Sequence[Row], name: str) -> str:
    """The setting `name` of ppo, as ppo itself has it or a method that pays it a reward."""
    return f"`learner.{name}`" if _series(rows, "reward/mean") else f"`{name}`"


def _discriminator_too_strong(rows: Sequence[Row]) -> str | None:
    expert, learner = _series(rows, "discriminator/expert"), _series(rows, "discriminator/learner")
    if not expert or not learner or min(_lately(expert), _lately(learner)) < 0.95:
        return None
    return (
        f"The discriminator knows {_lately(expert):.0%} of the demonstrators' steps and {_lately(learner):.0%} of the "
        "learners': it is so sure that its reward says little about what would be better. Raise `penalty`, lower "
        "`judge_rate` or `judge_steps`, or let it see less (`judge.sees`)."
    )


def _discriminator_blind(rows: Sequence[Row]) -> str | None:
    loss = _series(rows, "discriminator/loss")
    expert, learner = _series(rows, "discriminator/expert"), _series(rows, "discriminator/learner")
    if len(loss) < 5 or not expert or not learner:
        return None
    if _lately(loss) > 0.9:
        return (
            f"The discriminator's loss is {_lately(loss):.2f}, and guessing has 0.69: it does worse than guessing. "
            "Lower `penalty`, raise `slope` (of maairl) or `judge_rate`, or warm up for longer (`warmup`)."
        )
    right = (_lately(expert) + _lately(learner)) / 2
    if right > 0.51 or _lately(loss) < 0.68:
        return None
    return (
        f"The discriminator is right about {right:.0%} of the steps: it sees no difference. If the play is not yet "
        "good, lower `penalty`, raise `judge_steps`, or let it see more (`judge.sees`)."
    )


def _miscalibrated(rows: Sequence[Row]) -> str | None:
    error = _series(rows, "discriminator/calibration")
    if len(error) < 5 or _lately(error) < 0.25:
        return None
    return (
        f"What the discriminator says and what is true lie {_lately(error):.2f} apart: it lags behind the learners. "
        "Raise `judge_steps` or `judge_rate`, or lower `learner.target_kl`."
    )


def _saturated(rows: Sequence[Row]) -> str | None:
    share = _series(rows, "discriminator/saturated")
    if not share or _lately(share) < 0.2:
        return None
    return (
        f"{_lately(share):.0%} of its judgements are surer than 99 %: there softplus, logD and tanh pay all alike. "
        "Raise `penalty`, or, where there is a choice of `reward` (magail), use reward='logit'."
    )


def _reward_drifts(rows: Sequence[Row]) -> str | None:
    mean, spread = _series(rows, "reward/mean"), _series(rows, "reward/std")
    if not _judged(rows) or len(mean) < 10 or not spread or _lately(spread) <= 0:
        return None
    half = len(mean) // 2
    moved = abs(_lately(mean) - _at_first(mean[half:])) / _lately(spread)
    if moved < 1:
        return None
    return (
        f"The mean reward moved by {moved:.1f} of its deviations in the second half of the run: the values chase it. "
        "Lower `judge_rate`, or raise `replay`."
    )


def _steps_too_long(rows: Sequence[Row]) -> str | None:
    kl = _series(rows, "kl")
    if not kl or _lately(kl) < 0.1:
        return None
    return (
        f"An update changes the policies by {_lately(kl):.2f} nats: more than what was played can tell. Lower "
        f"{_learner(rows, 'target_kl')} or the lower end of {_learner(rows, 'rate_range')}, or play more "
        f"({_learner(rows, 'envs')})."
    )


def _entropy_collapsed(rows: Sequence[Row]) -> str | None:
    entropy = _series(rows, "entropy")
    if len(entropy) < 5 or min(entropy) < 0:  # of a density, which has no least value
        return None
    if _lately(entropy) > 0.02 * entropy[0]:
        return None
    return (
        f"The policies' entropy fell from {entropy[0]:.2f} to {_lately(entropy):.3f} nats: nothing is tried any more. "
        f"Raise {_learner(rows, 'bonus')}."
    )


def _misaligned(rows: Sequence[Row]) -> str | None:
    gap = _series(rows, "alignment")
    if not gap or _lately(gap) > -0.3:
        return None
    return (
        f"The actions that the discriminator is shown are {-_lately(gap):.2f} nats less likely under the policy than "
        "those that it draws: observations and actions of different steps are mixed up. That is a mistake in the code."
    )


def _ends_differ(rows: Sequence[Row]) -> str | None:
    expert, learner = _series(rows, "gone/expert"), _series(rows, "gone/learner")
    if len(expert) < 5 or len(learner) < 5:
        return None
    if _lately(expert) > 0.05 and max(learner) == 0:
        return (
            f"The demonstrators' games were over for {_lately(expert):.0%} of the time, the learners' never end: the "
            "env may play on where theirs ended. Record under the env's own rule, or begin from a clone (`start`)."
        )
    if max(expert) == 0 and _lately(learner) > 0.05:
        return (
            f"The learners' games are over for {_lately(learner):.0%} of the time, the demonstrators' never: it counts "
            "against the learners. If the recordings merely lack their ends (`terminated`), add them."
        )
    return None


def _got_worse(rows: Sequence[Row]) -> str | None:
    returns = _series(rows, "return")
    if len(returns) < 10:
        return None
    fifth = max(1, len(returns) // 5)
    parts = [sum(returns[i : i + fifth]) / fifth for i in range(0, len(returns) - fifth + 1, fifth)]
    best, first, last = max(parts), parts[0], parts[-1]
    if best - last < 0.5 * (best - min(parts)) or best <= first or best == min(parts):
        return None
    advice = ["train for less long"]
    advice += [f"lower {_learner(rows, 'target_kl')}"] * bool(_series(rows, "kl")) + ["raise `replay`"] * _judged(rows)
    return f"The env's own return reached {best:.4g} and fell back to {last:.4g}: {', or '.join(advice)}."


_CHECKS = (
    _discriminator_too_strong, _discriminator_blind, _miscalibrated, _saturated, _reward_drifts, _steps_too_long,
    _entropy_collapsed, _misaligned, _ends_differ, _got_worse,
)  # fmt: skip
