"""Copies of a simulator, in this process or spread over worker processes, behind one set of arrays.

What goes in (seeds, actions, what to do) and comes out (observations, rewards, ...) lies in arrays that all processes
share; a pipe to each worker carries no more than "go on" and "done". Which copy lives in which process makes no
difference to what it does.
"""

import contextlib
import multiprocessing
import signal
import traceback
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import CloudpickleWrapper

from understudy.core.errors import EnvError
from understudy.core.types import Continuous, action_shape, legal_size
from understudy.envs.adapters.layout import Layout

SKIP, RESET, STEP = 0, 1, 2  # what `todo` asks of a copy
Arrays = dict[str, np.ndarray]


class Game:
    """Copy i: a simulator with PettingZoo's parallel interface, read and written through its row of the arrays."""

    def __init__(self, env: Any, layout: Layout, arrays: Arrays, i: int) -> None:
        self.env, self.layout = env, layout
        self.row = {name: array[i, ...] for name, array in arrays.items()}  # views: what is written shows in the arrays

    def serve(self) -> None:
        """Do what `row["todo"]` asks and leave the outcome in the row."""
        if self.row["todo"] == RESET:
            obs, infos = self.env.reset(seed=int(self.row["seed"]))
            self._write(obs, infos, list(self.env.agents), {}, terminated=False, truncated=False)
        elif self.row["todo"] == STEP:
            self._step()

    def _step(self) -> None:
        played, index, moves = list(self.env.agents), self.layout.index, self.row["actions"]
        actions = {agent: self.layout.act(index[agent], moves[index[agent]]) for agent in played}
        obs, rewards, terminations, truncations, infos = self.env.step(actions)
        present = [a for a in self.env.agents if not (terminations.get(a) or truncations.get(a))]
        cut = [a for a in played if truncations.get(a) and not terminations.get(a)]
        ended = not present
        if ended:  # who played to the end is still counted: the step's outcome is theirs
            present = cut or played
        self._write(obs, infos, present, rewards, terminated=ended and not cut, truncated=ended and bool(cut))

    def _write(
        self, obs: dict, infos: dict, present: list, rewards: dict, *, terminated: bool, truncated: bool
    ) -> None:
        row = self.row
        for name in ("obs", "present", "rewards"):
            row[name][...] = 0
        if "legal" in row:
            row["legal"][...] = self.layout.open
        for agent in present:
            i = self.layout.index[agent]
            row["present"][i] = True
            if agent not in obs:  # some simulators show nothing more to who leaves
                continue
            flat, legal = self.layout.read(i, obs[agent], infos.get(agent))
            row["obs"][i, : len(flat)] = flat
            if legal is not None:
                row["legal"][i] = legal
        for agent, reward in rewards.items():
            row["rewards"][self.layout.index[agent]] = reward
        row["terminated"][...], row["truncated"][...] = terminated, truncated
        if "whole" in row:
            row["whole"][...] = flat_state(self.env)


def flat_state(env: Any) -> np.ndarray:
    """The simulator's `state()` as a row of float32, empty where it has none."""
    try:
        state = env.state()
    except (NotImplementedError, AttributeError, TypeError):  # or an attribute of that name, for something else
        return np.zeros(0, dtype=np.float32)
    space = getattr(env, "state_space", None)
    if isinstance(space, spaces.Dict | spaces.Tuple):
        state = spaces.flatten(space, state)
    return np.asarray(state, dtype=np.float32).ravel()


def shapes(layout: Layout, copies: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and kind of each shared array."""
    spec = layout.spec
    agents, continuous = (copies, spec.agents), isinstance(spec.action, Continuous)
    optional: dict[str, tuple[tuple[int, ...], type]] = {}
    if spec.whole:
        optional["whole"] = (copies, spec.whole), np.float32
    if not continuous:
        optional["legal"] = (*agents, legal_size(spec.action)), np.bool_
    return {
        **optional,
        "todo": ((copies,), np.int64),
        "seed": ((copies,), np.int64),
        "ticket": ((copies,), np.int64),
        "actions": (agents + action_shape(spec.action), np.float32 if continuous else np.int64),
        "obs": ((*agents, spec.obs), np.float32),
        "rewards": (agents, np.float32),
        "present": (agents, np.bool_),
        "terminated": ((copies,), np.bool_),
        "truncated": ((copies,), np.bool_),
    }


def carve(layout: Layout, copies: int, memory: Any) -> Arrays:
    """The arrays that lie end to end in `memory`, each from a multiple of 64 bytes."""
    arrays: Arrays = {}
    offset = 0
    for name, (shape, kind) in shapes(layout, copies).items():
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(memory, dtype=kind, count=count, offset=offset).reshape(shape)
        offset += -(-count * np.dtype(kind).itemsize // 64) * 64
    return arrays


def room(layout: Layout, copies: int) -> int:
    """Bytes that `carve` needs."""
    sizes = (int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in shapes(layout, copies).values())
    return sum(-(-size // 64) * 64 for size in sizes)


class Fleet:
    """`copies` simulators. Write `arrays["todo"]` (and seeds, actions), call `run`, read the arrays.

    Args:
        make: makes one simulator. With workers it is sent to other processes, which must be able to run it.
        adapt: gives what `make` made PettingZoo's parallel interface.
        first: a simulator that was made already, for the first copy; it is closed where the copies live elsewhere.
        workers: processes to spread the copies over; 0 keeps them in this one.

    Raises:
        EnvError: where a simulator raised (with the worker's own traceback) or a worker died. The fleet is then
            closed: its copies are no longer all at the same step.
    """

    divisible = True  # some copies can play while others rest

    def __init__(
        self,
        make: Callable[[], Any],
        adapt: Callable[[Any], Any],
        first: Any,
        layout: Layout,
        copies: int,
        workers: int,
    ) -> None:
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []
        self.games: list[Game] = []
        self.closed = False
        self.shares = [range(copies)]
        if workers == 0:
            self.arrays = carve(layout, copies, bytearray(room(layout, copies)))
            self.games = [Game(first, layout, self.arrays, 0)]
            self._shut = weakref.finalize(self, _shut, self.games, self.pipes, self.processes)
            self.games += [Game(adapt(make()), layout, self.arrays, i) for i in range(1, copies)]
            return
        first.close()
        context = clean_start()
        memory = context.RawArray("b", room(layout, copies))
        self.arrays = carve(layout, copies, memory)
        parts = np.array_split(np.arange(copies), min(workers, copies))
        self.shares = [range(int(share[0]), int(share[-1]) + 1) for share in parts]
        self._shut = weakref.finalize(self, _shut, self.games, self.pipes, self.processes)
        for share in self.shares:
            ours, theirs = context.Pipe()
            sent = (theirs, CloudpickleWrapper(make), adapt, layout, memory, copies, share)
            process = context.Process(target=work, args=sent, daemon=True)
            try:
                process.start()
            except Exception as error:
                self.close()
                raise EnvError(f"make: it cannot be sent to a worker process ({error}). Use workers=0.") from error
            theirs.close()  # so that the pipe ends when the worker does
            self.pipes.append(ours)
            self.processes.append(process)
        self._exchange(list(range(len(self.shares))))

    def run(self) -> None:
        """Have every copy do what `arrays["todo"]` asks of it."""
        if self.closed:
            raise EnvError("this door is closed; open another one.")
        if not self.pipes:
            self._serve_here()
            return
        busy = [k for k, share in enumerate(self.shares) if self.arrays["todo"][share].any()]
        self._exchange(busy, b"go")

    def _serve_here(self) -> None:
        for i, game in enumerate(self.games):
            try:
                game.serve()
            except Exception as error:
                self.close()
                raise EnvError(f"copy {i} raised:\n{traceback.format_exc()}") from error

    def _exchange(self, busy: list[int], message: bytes = b"") -> None:
        """Send the `busy` workers a message, if any, and wait until they are done. What goes wrong closes the fleet."""
        try:
            for k in busy if message else ():
                with contextlib.suppress(BrokenPipeError):  # `_receive` says how that worker died
                    self.pipes[k].send_bytes(message)
            for k in busy:
                self._receive(k)
        except BaseException:
            self.close()
            raise

    def _receive(self, k: int) -> None:
        share = self.shares[k]
        who = f"worker {k} (copies {share.start} to {share.stop - 1})"
        try:
            answer = self.pipes[k].recv_bytes().decode()
        except (EOFError, ConnectionError):
            self.processes[k].join(5)
            raise EnvError(
                f"{who} died with exit code {self.processes[k].exitcode}. A negative code is the signal that killed it "
                "(-9: often for want of memory). A script that opens a door with workers must do so under "
                '`if __name__ == "__main__":`.'
            ) from None
        if answer:
            raise EnvError(f"{who} raised:\n{answer}")

    def close(self) -> None:
        """Close the simulators and end the workers. May be called again."""
        self.closed = True
        self._shut()


def clean_start() -> Any:
    """How worker processes begin: never as a fork of this one, whose threads and locks would be copied as they stand.

    Where there is one (not on Windows) a server that has imported torch, and nothing but imported, is forked instead:
    workers start in a tenth of the time and share its memory.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "gymnasium", "pettingzoo", __name__])
    return context


def work(
    pipe: Connection,
    make: Callable[[], Any],
    adapt: Callable[[Any], Any],
    layout: Layout,
    memory: Any,
    copies: int,
    share: range,
) -> None:
    """A worker's life: serve the copies of `share` until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches all processes; the parent's way out is enough
    arrays = carve(layout, copies, memory)
    games: list[Game] = []
    try:
        games += [Game(adapt(make()), layout, arrays, i) for i in share]
        pipe.send_bytes(b"")
        while pipe.recv_bytes():
            for game in games:
                game.serve()
            pipe.send_bytes(b"")
    except (EOFError, ConnectionError):
        pass  # the parent is gone, or closed the door
    except Exception:
        pipe.send_bytes(traceback.format_exc().encode())
    finally:
        for game in games:
            game.env.close()


def _shut(games: list[Game], pipes: list[Connection], processes: list[Any]) -> None:
    for game in games:
        game.env.close()
    for pipe in pipes:
        pipe.close()  # a worker that finds its pipe ended closes its simulators and leaves
    for process in processes:
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()
