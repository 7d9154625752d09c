"""The arrows of docs/architecture.md: who may import whom. Reads the sources, imports nothing."""

import ast
from pathlib import Path

import pytest

import understudy

ROOT = Path(understudy.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
LIBRARY = {"core", "maths", "envs", "demos", "nets", "rollout", "algorithms", "evaluation", "runs"}
BENCHES = {
    "bench_boids",
    "bench_cook_scenes",
    "bench_cooks",
    "bench_crowds",
    "bench_imitation",
    "bench_methods",
    "bench_regret",
    "bench_scenes",
    "bench_sensitivity",
}
ROOMS = {  # room -> rooms it may import, besides itself
    "core": set(),
    "maths": {"core"},
    "envs": {"core", "maths"},
    "demos": {"core", "maths"},
    "nets": {"core", "maths"},
    "rollout": {"core", "maths", "envs", "demos", "nets"},
    "algorithms": {"core", "maths", "demos", "nets", "rollout"},
    "evaluation": {"core", "maths", "demos", "nets", "rollout"},
    "runs": {"core", "demos"},
    "recordings": {"core", "envs", "demos"},
    "trust": {"core", "demos", "rollout", "algorithms", "evaluation"},
    "cooking": (LIBRARY - {"runs"}) | {"recordings"},
    "compiled": {"core", "rollout"},
    "api": LIBRARY | {"compiled"},
    "scenes": {"core", "maths", "demos", "nets", "algorithms", "evaluation", "runs"},
    "comparing": {"core", "maths", "demos", "nets", "rollout", "evaluation", "runs", "api"},
    "seeds": {"core", "maths", "demos", "nets", "evaluation", "runs", "api"},
    "quickstart": {"core", "envs", "demos", "evaluation", "rollout", "recordings", "cooking", "api"},
    "bench": LIBRARY | {"recordings", "cooking", "api", *BENCHES},
    "bench_boids": (LIBRARY - {"rollout"}) | {"recordings", "scenes"},
    "bench_cook_scenes": {"core", "maths", "envs", "algorithms", "evaluation", "runs", "recordings", "cooking", "api"},
    "bench_cooks": LIBRARY | {"recordings", "cooking", "api"},
    "bench_imitation": {"core", "maths", "nets", "rollout", "evaluation", "runs", "api"},
    "bench_methods": {"core", "maths", "envs", "evaluation", "api", "comparing"},
    "bench_crowds": {"core", "maths", "demos", "nets", "algorithms", "evaluation", "runs", "scenes"},
    "bench_scenes": {"core", "maths", "demos", "nets", "algorithms", "evaluation", "runs", "scenes"},
    "bench_regret": {"core", "maths", "evaluation", "runs", "api"},
    "bench_sensitivity": {"core", "maths", "evaluation", "rollout", "runs", "api"},
    "cli": (LIBRARY - {"algorithms"})
    | {"recordings", "api", "bench", "comparing", "quickstart", "seeds", "trust", "cli_scene", "cli_words"},
    "cli_scene": {"core", "demos", "algorithms", "evaluation", "runs", "scenes", "cli_words"},
    "cli_words": {"core"},
    "__main__": {"cli"},
    "__init__": (LIBRARY - {"maths"}) | {"recordings", "api", "comparing", "seeds"},
}
SHARED = {"ppo", "bc", "adversary", "matching", "scene"}  # algorithms that others learn by, begin from and share
ALWAYS = {"torch", "jaxtyping"}  # all that core and maths may import from outside
REQUIRED = ALWAYS | {"numpy", "pyarrow", "safetensors", "tyro", "rich", "gymnasium", "pettingzoo"}
OPTIONAL_AT_TOP = ("envs/adapters/", "demos/formats/", "evaluation/plots.py", "evaluation/video.py", "studio/")
STANDARD = __import__("sys").stdlib_module_names


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, *, top_only: bool = False) -> list[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else ast.walk(tree)
    found: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    here = room(path)
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "understudy" and rest:
            assert rest[0] == here or rest[0] in ROOMS[here] or rest[0] == "__version__", f"{here} imports {name}"
            if here == "algorithms" and rest[0] == "algorithms" and len(rest) > 1:
                assert rest[1] in SHARED | {path.stem}, f"{path.name} imports the algorithm {rest[1]}"
        elif top != "understudy" and here in ("core", "maths"):
            assert top in ALWAYS or top in STANDARD, f"{here} imports {top}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_optional_packages_are_imported_where_they_are_used(path):
    if str(path.relative_to(ROOT)).startswith(OPTIONAL_AT_TOP):
        return
    for name in imports(path, top_only=True):
        top = name.split(".")[0]
        assert top in REQUIRED or top in STANDARD or top == "understudy", f"{path.name} imports {name} at its top"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_source_can_run_code_from_a_file_or_draw_from_a_global_state(path):
    forbidden = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "jsonpickle", "shelve"}
    assert not forbidden & {name.split(".")[0] for name in imports(path)}
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {"eval", "exec", "torch.load", "torch.manual_seed", "torch.seed", "np.random.seed"}, called
        for keyword in node.keywords:
            allows = keyword.arg == "allow_pickle" and getattr(keyword.value, "value", True) is not False
            assert not allows, f"{called} with allow_pickle"
