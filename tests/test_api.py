import dataclasses

import pytest
import torch

import understudy
from understudy import api
from understudy.algorithms import bc, ppo
from understudy.core.errors import ConfigError, DemosError, EnvError, RunError
from understudy.core.random import generator
from understudy.demos import Demos
from understudy.envs.rewarded import Rewarded
from understudy.evaluation import metrics
from understudy.nets import NetConfig
from understudy.nets.discriminators import Judge, JudgeConfig
from understudy.nets.rewards import LearnedReward
from understudy.rollout import Uniform, begin, collect
from understudy.runs.loop import describe


@pytest.fixture(autouse=True)
def one_thread():
    """These sums are too small to be shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def demos():
    return api.record(api.make_env("navigation", agents=2), episodes=8, seed=1)


@pytest.mark.parametrize("name", sorted(api.ENVS))
def test_every_env_is_made_by_its_name_and_played_by_its_expert(name):
    env = api.make_env(name)
    assert env.spec.title.partition(":")[0] == name
    played, _ = collect(env, *_begun(env, api.expert_of(env)), 3, generator(0))
    assert played.rewards.isfinite().all()


def _begun(env, policy):
    return policy, begin(env, policy, 4, generator(0))


def test_rules_are_settings_and_a_variant_follows_the_name():
    assert api.make_env("kitchen:forced_coordination", horizon=9).spec.title == "kitchen:forced_coordination"
    assert api.make_env("spread", agents=5).spec.agents == 5
    assert "horizon" in api.rules_of("kitchen:cramped_room")


@pytest.mark.parametrize(
    ("name", "rules", "error", "message"),
    [
        ("sprad", {}, EnvError, "unknown env 'sprad'. Did you mean `spread`"),
        ("kitchen:cramped", {}, EnvError, "Did you mean `cramped_room`"),
        ("spread:big", {}, EnvError, "`spread` has no variants"),
        ("spread", {"agent": 3}, ConfigError, "unknown setting `agent` for spread. Did you mean `agents`"),
        ("spread", {"agents": "3"}, ConfigError, "agents of spread: expected a whole number, got '3'"),
        ("os:system", {}, EnvError, "unknown env 'os:system'"),
        ("../kitchen", {}, EnvError, "unknown env"),
    ],
)
def test_an_env_that_is_not_in_the_table_is_refused(name, rules, error, message):
    with pytest.raises(error, match=message):
        api.make_env(name, **rules)


def test_a_recording_repeats_with_its_seed(demos):
    env = api.make_env("navigation", agents=2)
    assert api.record(env, episodes=8, seed=1).fingerprint() == demos.fingerprint()
    assert api.record(env, episodes=8, seed=2).fingerprint() != demos.fingerprint()
    assert api.record(env, Uniform(env.spec), 8, seed=1).returns().mean() < demos.returns().mean()


def test_a_function_may_be_the_expert(demos):
    env = api.make_env("navigation", agents=2)
    still = api.record(env, lambda env, view, noise: torch.zeros(view.obs.shape[:2], dtype=torch.long), 3)
    assert (still[0].actions == 0).all()


def test_training_in_a_folder_is_training_in_memory_and_its_policy_is_read_back(demos, tmp_path):
    config = bc.Config(batch=64, steps=3, net=NetConfig(hidden=8), held_out=0.0)
    here = api.train(bc, demos, config=config, updates=4, seed=2)
    there = api.train("bc", demos, config=config, updates=4, seed=2, folder=tmp_path / "run")
    again = api.load_policy(tmp_path / "run")
    for policy in (there.policy, again):
        for (name, a), (_, b) in zip(here.policy.state_dict().items(), policy.state_dict().items(), strict=True):
            assert torch.equal(a, b), name
    assert again.spec == demos.spec and again.config == config.net
    assert (here.updates, here.stopped) == (4, "updates") and here.metrics == there.metrics


def test_settings_may_be_plain_data_and_a_part_keeps_its_owners_defaults(demos):
    run = api.train("bc", demos, config={"net": {"hidden": 8}, "steps": 1, "held_out": 0}, updates=1)
    assert run.config == bc.Config(net=dataclasses.replace(bc.Config().net, hidden=8), steps=1, held_out=0.0)
    with pytest.raises(ConfigError, match=r"unknown setting `stepz` for bc\. Did you mean `steps`"):
        api.train("bc", demos, config={"stepz": 1}, updates=1)
    with pytest.raises(ConfigError, match=r"bc takes a understudy.algorithms.bc.Config, got a .*ppo.Config"):
        api.train("bc", demos, config=ppo.Config(), updates=1)
    with pytest.raises(ConfigError, match=r"unknown algorithm 'ppp'\. Did you mean `ppo`"):
        api.train("ppp")


def test_a_damaged_policy_is_refused(demos, tmp_path):
    api.train("bc", demos, config={"net": {"hidden": 8}, "steps": 1, "held_out": 0}, updates=1, folder=tmp_path)
    (weights,), told = tmp_path.glob("policy-*.safetensors"), tmp_path / "policy.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"\1")
    with pytest.raises(RunError, match=rf"{weights.name} is damaged.*The command that trained"):
        api.load_policy(tmp_path)
    weights.write_bytes(whole)
    for old, new, message in [
        ('"hidden": 8', '"hidden": 9', "no policy can be made of it.*size mismatch"),
        ('"hidden": 8', '"hiden": 8', "Did you mean `hidden`"),
        ('"body": "mlp"', '"body": "os.system"', "got 'os.system'"),
        ('"version": 1', '"version": 2', "of format 2"),
        ('"weights": "', '"weights": "../', "is no sha256"),
        ('"agents": 2', '"agents": "2"', "expected a whole number, got '2'"),
    ]:
        sound = told.read_text()
        told.write_text(sound.replace(old, new))
        assert old in sound
        with pytest.raises(RunError, match=message):
            api.load_policy(tmp_path)
        told.write_text(sound)
    weights.rename(tmp_path / "policy.safetensors")
    assert api.load_policy(tmp_path).config.hidden == 8, "as earlier versions called it"
    with pytest.raises(RunError, match="holds no policy"):
        api.load_policy(tmp_path / "checkpoints")


def test_an_evaluation_knows_the_expert_from_chance(demos):
    env = api.make_env("navigation", agents=2)
    told = api.evaluate(api.expert_of(env), env, demos, episodes=40, most=200)
    assert told["normalised return/team"].low < 1 < told["normalised return/team"].high
    assert told["p/joint actions"].value > 0.05, "the demonstrators' own play cannot be told from theirs"
    assert str(told) == str(api.evaluate(api.expert_of(env), env, demos, episodes=40, most=200)), (
        "it repeats with its seed"
    )
    chance = api.evaluate(Uniform(env.spec), env, episodes=40, most=200)
    assert chance["normalised return/team"].low < 0 < chance["normalised return/team"].high
    assert chance["p/obs"].value < 0.05
    with pytest.raises(ConfigError, match=r"unknown figure 'lenght'\. Did you mean `length`"):
        told["lenght"]


def test_a_run_is_measured_with_its_curves_its_pictures_and_where_it_comes_from(demos, tmp_path):
    env, config = api.make_env("navigation", agents=2), {"net": {"hidden": 8}, "steps": 1}
    habits = api.Habits(log_every=1, show=False)
    run = api.train("bc", demos, config=config, updates=3, folder=tmp_path / "run", habits=habits, seed=7)
    others = api.record(env, episodes=5, seed=9)
    told = [api.evaluate(who, env, others, episodes=12, most=200) for who in (run, run.folder, run.policy)]
    assert str(told[0]) == str(told[1]) == str(told[2])
    assert [row["update"] for row in told[0].metrics] == [row["update"] for row in told[1].metrics] == [1, 2, 3]
    assert told[1].provenance["seed of the run"] == 7 and told[1].group and not told[1].notes and not told[2].metrics
    median = others.returns().sum(dim=1).sort().values[2]
    assert torch.isclose(metrics.returns(told[0].shown["demonstrators"]).sum(), median)
    assert 0 < told[0]["accuracy"].value < 1 and told[0]["random likelihood"].value == pytest.approx(
        -torch.tensor(5.0).log()
    )
    page = told[0].report().html()
    assert "side by side" in page and others.fingerprint() in page and "learning" in page
    assert "learnt from" in api.evaluate(run, env, demos, episodes=12, most=200).notes[0]


def test_what_looked_wrong_while_a_run_learnt_is_said_where_it_is_measured(demos):
    env = api.make_env("navigation", agents=2)
    run = api.train("bc", demos, env, config={"limit": 1}, updates=1, habits=api.Habits(show=False))
    jumping = dataclasses.replace(run, metrics=[{"update": k, "kl": 0.5} for k in range(10)])
    said = [api.evaluate(each, env, demos, episodes=4).notes for each in (run, jumping)]
    assert len(said[1]) == len(said[0]) + 1 and "target_kl" in said[1][0]


def test_where_chance_earns_as_much_as_the_demonstrators_there_is_no_normalised_return():
    env = api.make_env("slip_chain")
    told = api.evaluate(Uniform(env.spec), env, api.record(env, Uniform(env.spec), 5, seed=1), episodes=5, seed=1)
    assert "normalised return/team_0" in told.figures and "side by side" not in told.report().html(), "no pictures"
    chance = api.record(env, Uniform(env.spec), 5, seed=1).padded()
    found = metrics.compare(env.spec, chance, chance, generator(0), random=chance)
    assert "random return/team_0" in found and not any(name.startswith("normalised") for name in found)


def test_returns_of_longer_recordings_are_not_set_against_those_of_shorter_play(demos):
    short = api.make_env("navigation", agents=2, horizon=5)
    told = api.evaluate(Uniform(short.spec), short, demos, episodes=6, most=100)
    assert "horizon=" in told.notes[0] and told.notes[0] in str(told) and told.notes[0] in told.report().html()
    assert not any(name.startswith("normalised") for name in told.figures)


def test_no_episode_to_measure_against_is_an_error_not_the_expert(demos):
    env = api.make_env("navigation", agents=2)
    with pytest.raises(DemosError, match="no episode"):
        api.evaluate(Uniform(env.spec), env, demos.select([]), episodes=4)
    with pytest.raises(ConfigError, match="episodes=0"):
        api.evaluate(Uniform(env.spec), env, demos, episodes=0)


def test_recordings_of_another_env_are_refused(demos):
    message = "demos of navigation do not fit navigation: agents is 2 there, 3 in the env"
    with pytest.raises(DemosError, match=message):
        api.train("bc", demos, api.make_env("navigation"), updates=1)
    with pytest.raises(DemosError, match="demos of navigation do not fit spread: agents is 2"):
        api.evaluate(Uniform(api.make_env("spread").spec), api.make_env("spread"), demos)


def test_recordings_of_which_nothing_counts_are_refused(demos):
    away = [
        dataclasses.replace(episode, present=torch.zeros(episode.obs.shape[:2], dtype=torch.bool)) for episode in demos
    ]
    with pytest.raises(DemosError, match="all episodes weigh 0"):
        api.train("bc", demos.reweighted([0.0] * len(demos)), updates=1)
    with pytest.raises(DemosError, match="nobody is ever there"):
        api.train("bc", Demos.from_episodes(demos.spec, away), updates=1)
    some = Demos.from_episodes(demos.spec, [*away[:-1], demos[7]]).reweighted([0.0] * 7 + [1.0])
    api.train("bc", some, config={"net": {"hidden": 4}, "steps": 1}, updates=1)


def test_a_policy_of_another_env_is_refused(demos):
    run = api.train("bc", demos, config={"net": {"hidden": 4}, "steps": 1}, updates=1)
    for call in (api.evaluate, api.scenes):
        with pytest.raises(DemosError, match="the policy of navigation does not fit navigation: agents is 2 there"):
            call(run.policy, api.make_env("navigation"))


def test_a_run_knows_its_env(demos, tmp_path):
    config = {"envs": 2, "segment": 4, "minibatches": 1, "net": {"hidden": 4}, "value_hidden": 4}
    for name, env in {
        "rules": api.make_env("navigation", agents=2, horizon=7),
        "variant": api.make_env("kitchen:forced_coordination", horizon=5),
        "tables": api.make_env("coordination"),
    }.items():
        api.train("ppo", None, env, config=config, updates=1, folder=tmp_path / name)
        assert describe(api.env_of(tmp_path / name)) == describe(env)
    api.train("ppo", None, api.make_env("stag_hunt", hare=2.0), config=config, updates=1, folder=tmp_path / "other")
    with pytest.raises(EnvError, match="'stag_hunt' had other rules than are known of it"):
        api.env_of(tmp_path / "other")


def test_an_episode_is_drawn_from_its_start_to_its_end(tmp_path):
    env = api.make_env("navigation", horizon=6, fixed_horizon=True)
    assert len(api.scenes(api.expert_of(env), env)) == 7
    assert api.video(api.expert_of(env), env, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(EnvError, match="chicken has no pictures"):
        api.scenes(Uniform(api.make_env("chicken").spec), api.make_env("chicken"))


def test_the_package_offers_its_calls_and_nothing_else():
    assert understudy.train is api.train and understudy.make_env is api.make_env
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = understudy.trian


def test_an_env_that_pays_another_learned_reward_is_another_env():
    env, made = api.make_env("navigation", agents=2), []
    for seed in (0, 0, 1):
        judge = Judge(JudgeConfig(hidden=4), env.spec, generator(seed, "judge"))
        made.append(describe(Rewarded(env, LearnedReward(judge))))
    assert made[0] == made[1] != made[2]
