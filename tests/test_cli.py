import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from understudy import api, cli
from understudy.core import config as settings
from understudy.core.errors import ConfigError, DemosError, RunError
from understudy.demos.demos import Demos
from understudy.nets import fused
from understudy.runs.log import read_lines

QUICK = ["--held-out", 0, "--run.threads", 1]


@pytest.fixture(autouse=True)
def one_thread():
    """These sums are too small to be shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(capsys):
    """Run a command here; its exit code and what it printed."""

    def command(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:  # tyro's --help and its refusals
            code = stop.code
        said = capsys.readouterr()
        return code, said.out + said.err

    return command


@pytest.fixture
def recorded(tmp_path, run):
    assert run("record", "navigation", tmp_path / "demos", "--episodes", 8, "--rule", "agents=2")[0] == 0
    return tmp_path / "demos"


def shell(*words, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "understudy", *map(str, words)],
        env={**os.environ, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip


def test_help_names_every_command_and_loads_nothing_heavy():
    code = (
        "import sys; from understudy.cli import main; main(['-h']); print({'torch', 'tyro', 'rich'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "src"}, capture_output=True, text=True
    )
    *told, loaded = done.stdout.splitlines()
    assert loaded == "set()"
    assert {line.split()[0] for line in told if line.startswith("  ")} == set(cli.COMMANDS)


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_explains_itself(run, command):
    code, said = run(command, "--help")
    assert code == 0 and f"understudy {command}" in said


@pytest.mark.parametrize("algorithm", sorted(api.ALGORITHMS))
def test_every_setting_of_an_algorithm_is_a_flag_with_its_default(run, algorithm):
    code, said = run("train", algorithm, "--help")
    config = settings.to_dict(api.make_config(api.algorithm_named(algorithm)))
    assert code == 0 and said.startswith(f"usage: understudy train {algorithm}")
    for name, value in config.items():
        inner = [f"{name}.{key}" for key in value] if isinstance(value, dict) else [name]
        assert all(f"--{flag.replace('_', '-')}" in said for flag in inner), name
        assert isinstance(value, dict | list) or str(value).lower() in said.lower(), f"the default of {name}"
    assert "--run.save-seconds FLOAT" in said


def test_a_recording_is_made_shown_checked_and_converted(run, recorded, tmp_path):
    assert len(Demos.load(recorded)) == 8 and Demos.load(recorded).spec.agents == 2
    code, said = run("demos", "show", recorded)
    assert code == 0 and "navigation: 8 episodes" in said
    assert run("demos", "check", recorded) == (code, said), "sound"
    assert run("demos", "convert", recorded, tmp_path / "copy.npz") == (0, f"{tmp_path / 'copy.npz'}: 8 episodes\n")
    shard = next(path for path in recorded.iterdir() if path.suffix == ".arrow")
    shard.write_bytes(shard.read_bytes()[:-9])
    code, said = run("demos", "check", recorded)
    assert code == 1 and shard.name in said


def test_what_is_sound_is_saved_into_a_new_folder(run, recorded, tmp_path):
    shard = recorded / "shard-00000000.arrow"
    text = bytearray(shard.read_bytes())
    text[text.find(Demos.load(recorded)[3].obs.numpy().tobytes())] ^= 1
    shard.write_bytes(text)
    code, said = run("demos", "check", recorded, "--fix", tmp_path / "sound")
    assert code == 0 and "left behind: episode 3" in said and said.endswith("7 of 8 episodes were saved\n")
    assert run("demos", "check", tmp_path / "sound")[0] == 0
    code, said = run("demos", "check", recorded, "--fix", tmp_path / "sound")
    assert code == 2 and "a set of 7 episodes is here. Choose another folder" in said


def test_training_learns_resumes_and_leaves_a_policy(run, recorded, tmp_path):
    words = ["train", "bc", tmp_path / "run", "--demos", recorded, "--net.hidden", 8, "--run.log-every", 1, *QUICK]
    code, said = run(*words, "--updates", 2)
    assert code == 0 and f"{tmp_path / 'run'}: 2 updates, stopped by updates" in said
    assert run(*words, "--updates", 3, "--resume")[0] == 0
    assert [row["update"] for row in read_lines(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3]
    assert api.load_policy(tmp_path / "run").config.hidden == 8
    code, said = run(*words, "--updates", 3, "--rate", 0.5)
    assert code == 2 and "config.rate: 0.001 before, 0.5 now" in said


def test_several_seeds_are_runs_side_by_side_with_means_over_them(run, recorded, tmp_path):
    words = ["train", "bc", tmp_path / "many", "--demos", recorded, "--net.hidden", 8, "--updates", 2]
    code, said = run(*words, "--workers", 2)
    assert code == 2 and "workers: they are for several --seeds" in said
    code, said = run(*words, "--seeds", 2, "--resume")
    assert code == 2 and "no run is here to go on with" in said
    code, said = run(*words, "--seed", 3, "--seeds", 2, "--workers", 1)
    assert code == 0 and "seed-3: 2 updates, stopped by updates" in said and "\nloss " in said and " ± " in said
    assert (
        run("evaluate", tmp_path / "many" / "seed-4", "--env", "navigation", "--rule", "agents=2", "--episodes", 4)[0]
        == 0
    )
    assert run(*words, "--seed", 3, "--seeds", 2, "--workers", 1, "--resume")[0] == 0


def test_the_policy_of_a_run_is_asked_where_its_folder_is_named(run, recorded, tmp_path):
    words = ["--demos", recorded, "--updates", 1, "--run.threads", 1]
    assert run("train", "bc", tmp_path / "asked", *words, "--net.hidden", 8)[0] == 0
    words += ["--env", "navigation", "--rule", "agents=2", "--envs", 2, "--steps", 1, "--clone.limit", 2]
    code, said = run("train", "dagger", tmp_path / "run", *words, "--expert", tmp_path / "asked")
    assert code == 0 and "1 updates" in said
    known = json.loads((tmp_path / "run" / "run.json").read_text())
    assert known["env"]["expert"].startswith("policy ") and known["about"]["fused"] == fused.status()
    code, said = run("train", "dagger", tmp_path / "run", *words, "--resume")
    assert code == 2 and "env.expert" in said, "the env's own expert is somebody else"
    code, said = run("train", "bc", tmp_path / "other", *words[:4], "--expert", tmp_path / "asked")
    assert code == 2 and "bc asks nobody" in said


def test_flags_overrule_the_file_and_the_file_overrules_defaults(run, recorded, tmp_path):
    (tmp_path / "bc.toml").write_text("rate = 0.5\nsteps = 3\n[net]\nhidden = 16\n")
    words = ["--demos", recorded, "--updates", 1, "--config", tmp_path / "bc.toml", "--steps", 2, *QUICK]
    assert run("train", "bc", tmp_path / "run", *words)[0] == 0
    config = api.settings.read(tmp_path / "run" / "run.json")["config"]
    assert (config["rate"], config["steps"], config["net"]["hidden"]) == (0.5, 2, 16)
    assert config["net"]["activation"] == "relu", "bc's own default, though the file names a part of the net"
    (tmp_path / "bc.toml").write_text("raet = 0.5\n")
    code, said = run("train", "bc", tmp_path / "run2", *words)
    assert code == 2 and "unknown setting `raet` for bc in" in said and "Did you mean `rate`?" in said


def test_people_are_learned_from_by_naming_their_kitchen(run, tmp_path):
    where = ["--env", "kitchen:cramped_room", "--demos"]
    words = ["--updates", 1, "--steps", 1, "--net.hidden", 8, *QUICK]
    assert run("train", "bc", tmp_path / "run", *where, "people:test", *words)[0] == 0
    assert api.env_of(tmp_path / "run").spec.title == "kitchen:cramped_room"
    code, said = run("train", "bc", tmp_path / "run", *where, "people:train", *words)
    assert code == 2 and "demos: '" in said, "other recordings, another run"
    code, said = run("train", "bc", tmp_path / "other", "--demos", "people")
    assert code == 2 and "people were recorded in kitchens" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recrod"], "ConfigError: unknown command `recrod`. Did you mean `record`?"),
        (["record", "naviation", "x"], "EnvError: unknown env 'naviation'. Did you mean `navigation`?"),
        (["record", "navigation", "x", "--rule", "agent=2"], "unknown setting `agent` for navigation. Did you mean"),
        (
            ["record", "navigation", "x", "--rule", "agents=two"],
            "agents of navigation: expected a whole number, got 'two'",
        ),
        (["record", "navigation", "x", "--rule", "agents"], "rule: got 'agents', but a rule is written name=value."),
        (["watch", "spread", "--speed", "0"], "ConfigError: speed: got 0.0"),
        (["record", "navigation", "x", "--episodes", "0"], "ConfigError: episodes=0"),
        (["train", "bc", "x", "--rate", "-1"], "rate: got -1.0, but it must be a finite number"),
        (["train", "ppo", "x", "--rate", "nan"], "rate: got nan, but it must be a finite number"),
        (["train", "ppo", "x", "--max-grad-norm", "0"], "max_grad_norm: got 0.0, but it must be above 0"),
        (["train", "bcc", "x"], "unknown algorithm 'bcc'. Did you mean `bc`?"),
        (["train", "bc", "x", "--updates", "1"], "DemosError: bc learns from demonstrations alone"),
        (
            ["train", "bc", "x", "--net.hiden", "1"],
            "Unrecognized options: --net.hiden, 1. Did you mean `--net.hidden`?",
        ),
        (["train", "bc", "x", "--rate", "fast"], "train bc: Error parsing --rate: could not convert string to float"),
        (["train", "bc", "x", "--config"], "--config: say which file, after it."),
        (["train", "bc", "x", "--config", "--seed", "1"], "--config: say which file, after it."),
        (["train", "bc", "x", "--seeds", "0"], "seeds: got 0, but it is how many runs there are to be: 1 or more."),
        (["train", "blades", "x"], "blades asks an expert in an env, and there is none: give it one."),
        (["train", "bc", "x", "--resume"], "RunError: x: no run is here to go on with. Leave --resume out"),
        (["train", "bc", "x", "--rule", "agents=2"], "give --env too"),
        (["train", "bc", "x", "--minutes", "nan"], "a budget is a number from 0 on"),
        (["train"], "train: say first by which algorithm (bc"),
        (["train", "--seed", "1"], "train: say first by which algorithm (bc"),
        (["record", "kitchen", "x", "--rule", "delivery=nan"], "delivery of kitchen: got nan, and a finite number"),
        (["record", "kitchen", "x", "--rule", "grid=abc"], "expected a list (each a text) or none, got 'abc'"),
        (["record", "spread", "/dev/null/x"], "A part of this path is a file"),
        (["evaluate"], "evaluate: Missing from understudy evaluate: FOLDER"),
        (["evaluate", "runs/none"], "RunError: runs/none: no run is here. Train one, or look for a slip"),
        (["demos", "convert", "x"], "ConfigError: demos convert: say where to write, after x."),
        (["demos", "show", "x", "y"], "ConfigError: demos show: it writes nothing, so what is y for?"),
        (
            ["demos", "shwo", "x"],
            "invalid choice 'shwo' for argument 'do'. Expected one of ('show', 'check', 'unlike', 'convert').",
        ),
        (["demos", "show", "x", "--fix", "y"], "fix: it goes with `demos check`, not with `demos show`."),
        (["demos", "check", __file__], "is a file. `understudy demos convert"),
    ],
)
def test_what_is_refused_is_said_in_one_line_without_a_traceback(run, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, said = run(*words)
    assert code == 2 and message in said and "Traceback" not in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_recording_that_has_no_place_is_refused_before_anybody_plays(run, recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(api, "record", lambda *_: pytest.fail("they played"))
    code, said = run("record", "navigation", recorded)
    assert code == 2 and "demos are here, and they are kept" in said
    (tmp_path / "file").touch()
    code, said = run("record", "navigation", tmp_path / "file")
    assert code == 2 and "a file is here, and demos are kept in a folder" in said


def test_what_the_system_refuses_is_said_without_a_traceback(run, recorded, tmp_path):
    (tmp_path / "file").touch()
    code, said = run("train", "bc", tmp_path / "file", "--demos", recorded, "--updates", 1, *QUICK)
    assert code == 2 and f"{tmp_path / 'file'}: a run cannot be kept here" in said and "Traceback" not in said


def test_debug_shows_where_an_error_came_from(tmp_path):
    with pytest.raises(RunError):
        cli.main(["record", "navigation", str(tmp_path / "d"), "--policy", str(tmp_path), "--debug"])
    with pytest.raises(ConfigError):
        cli.main(["--debug", "recrod"])


def test_ctrl_c_saves_says_so_and_the_same_command_goes_on(run, recorded, tmp_path):
    folder = tmp_path / "run"
    words = ["train", "bc", folder, "--demos", recorded, "--steps", 1, "--run.log-every", 1, *QUICK]
    process = shell(*words)
    while len(read_lines(folder / "metrics.jsonl")) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same call goes on from there" in said and "Traceback" not in said
    assert api.load_policy(folder).spec.agents == 2, "what was learned so far can be played with"
    saved = max(int(path.stem) for path in (folder / "checkpoints").glob("*.json"))
    assert run(*words, "--updates", saved + 1)[0] == 0
    assert read_lines(folder / "metrics.jsonl")[-1]["update"] == saved + 1


def test_a_reader_who_has_enough_sees_no_traceback():
    process = shell("envs")
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert "Traceback" not in process.stderr.read()


@pytest.fixture
def trained(run, recorded, tmp_path):
    for seed in (1, 2):
        words = ["--demos", recorded, "--updates", 2, "--net.hidden", 8, "--seed", seed, *QUICK]
        assert run("train", "bc", tmp_path / f"run{seed}", *words)[0] == 0
    return tmp_path / "run1", tmp_path / "run2"


def test_runs_are_measured_and_compared_in_the_env_that_is_named(run, recorded, trained, tmp_path):
    where = ["--env", "navigation", "--rule", "agents=2", "--episodes", 20]
    code, one = run("evaluate", trained[0], "--demos", recorded, *where)
    assert code == 0 and "normalised return/team" in one and "likelihood" in one
    page = (trained[0] / "evaluation.html").read_text()
    assert f"open {trained[0] / 'evaluation.html'}" in one
    assert "learnt from" in one and "learnt from" in page, "its own recordings flatter it"
    assert all(word in page for word in ("likeness", "side by side", "understudy evaluate", "likelihood"))
    code, both = run("compare", *trained, "--demos", recorded, *where, "--report", tmp_path / "page.html")
    assert code == 0 and f"open {tmp_path / 'page.html'}" in both and "run1, run2" in both, "two seeds, one mean"
    rows = [line.split("  ")[0] for line in one.splitlines() if line.startswith(("return", "likelihood", "accuracy"))]
    for name in rows:
        line, alone = (next(x for x in said.splitlines() if x.startswith(name)) for said in (both, one))
        value = alone.removeprefix(name).split("  ")[1].strip() or alone.removeprefix(name).strip().split("  ")[0]
        assert line.removeprefix(name).strip().startswith(value), "the same figures as alone, then the other's"
    code, said = run("compare")
    assert code == 2 and "Traceback" not in said
    code, said = run("compare", trained[0], recorded, *where)
    assert code == 2 and "holds no policy" in said
    code, said = run("evaluate", trained[0])
    assert code == 2 and "'navigation' had other rules" in said
    code, said = run("evaluate", trained[0], "--rule", "agents=2")
    assert code == 2 and "give --env too" in said


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"version": 1}', '{"env": {"spec": {"title": 5}, "rules": {}}}', '{"env": 3}', '{"a": 1, "a": 2}'],
)
def test_a_run_json_that_was_changed_is_refused_in_one_line(run, trained, text):
    (trained[0] / "run.json").write_text(text)
    for words in (
        ["evaluate", trained[0], "--env", "navigation", "--rule", "agents=2", "--episodes", 3],
        ["watch", trained[0]],
    ):
        code, said = run(*words)
        assert (code == 2 and "run.json" in said) or "had other rules" in said
        assert "Traceback" not in said and len(said.splitlines()) == 1


def test_settings_that_belong_to_no_method_are_refused_with_what_is_meant(run, tmp_path):
    (tmp_path / "flat.toml").write_text("limit = 3")
    code, said = run("compare", "bc", "--env", "spread", "--config", tmp_path / "flat.toml", "--folder", tmp_path / "x")
    assert code == 2 and "`limit` is 3, but each method has a table of settings there, such as [bc]." in said


def test_what_was_learnt_to_be_paid_for_is_kept_with_the_run_and_painted(run, recorded, trained, tmp_path):
    where = ["--env", "navigation", "--rule", "agents=2"]
    small = ["--learner.envs", 4, "--learner.segment", 4, "--judge-steps", 1, "--start", "fresh", "--run.threads", 1]
    for name in ("maairl", "magail"):
        words = ["train", name, tmp_path / name, "--demos", recorded, *where, "--updates", 1, *small]
        assert run(*words)[0] == 0
        assert api.load_reward(tmp_path / name).spec.agents == 2
        picture = tmp_path / f"{name}.png"
        code, said = run("watch", tmp_path / name, *where, "--reward", "agent_1", "--save", picture)
        assert code == 0 and picture.read_bytes().startswith(b"\x89PNG"), said
    for player, name, wrong in (
        (trained[0], "agent_1", "holds no reward"),
        (tmp_path / "maairl", "agent_7", "Did you mean `agent_"),
        ("navigation", "agent_1", "'navigation' is an env"),
    ):
        code, said = run("watch", player, *where, "--reward", name)
        assert code == 2 and wrong in said, said
    with pytest.raises(DemosError, match="the reward of navigation does not fit navigation: agents is 2"):
        api.scenes(
            api.expert_of(api.make_env("navigation")),
            api.make_env("navigation"),
            0,
            api.load_reward(tmp_path / "magail"),
        )


def test_an_episode_is_watched_in_the_terminal_and_filmed(run, trained, tmp_path):
    where = ["--env", "navigation", "--rule", "agents=2"]
    code, said = run("watch", trained[0], *where, "--speed", 1000)
    assert code == 0 and len(said.splitlines()) > 5
    code, said = run("watch", "navigation", "--save", tmp_path / "play.gif")
    assert code == 0 and (tmp_path / "play.gif").read_bytes().startswith(b"GIF89a")
    code, said = run("watch", "rock_paper_scissors")
    assert code == 2 and "has no pictures" in said
