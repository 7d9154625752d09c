"""The nine particle scenarios of mpe2 1.1.1, equal to it step by step: what is seen, paid and played, and when it ends.

Each is a frozen dataclass whose defaults are mpe2's. Not here: mpe2's own curricula and its option to see the nearest
neighbours alone.

Source: mpe2 1.1.1, the files `simple*/simple*.py`; Mordatch and Abbeel 2018, arXiv:1703.04908; Lowe et al. 2017,
arXiv:1706.02275.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.envs.particles_native import CATCH, COVER, Paid
from understudy.envs.particles_physics import State, World, constant, distance, distances
from understudy.envs.particles_scenario import (
    Parts,
    Scenario,
    but_own,
    lay,
    offsets,
    parts,
    pick,
    sight,
    tinted,
)
from understudy.envs.particles_sight import Eyes, Seen

BLUE, RED, GREEN, GREY, DARK = "#4c72d9", "#d9534f", "#4fa860", "#a9adb5", "#5b6270"
TRIO = (RED, GREEN, BLUE)  # landmarks that are told apart by colour


@dataclass(frozen=True)
class Simple(Scenario):
    """One agent walks to the landmark: r = -distance^2. Sees its velocity and the offset to the landmark."""

    continuous: bool = False
    horizon: int | None = 25

    title: ClassVar[str] = "simple"

    def make_world(self) -> World:
        return World(
            names=("agent_0",), sees=(4,), radius=(0.05, 0.05), colour=(DARK, RED), reach=(1.0, 1.0), push=(5.0,)
        )

    def seen(self, eyes: Eyes) -> list[Seen]:
        return eyes.velocity + eyes.landmarks

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        s = parts(state)
        return -(s.agents - s.landmarks).square().sum(1)


@dataclass(frozen=True)
class Spread(Scenario):
    """Agents cover the landmarks and keep out of each other's way.

    r_i = (1 - local_ratio) * -sum_landmarks min_agents distance + local_ratio * -(how many others i overlaps).
    Each sees its velocity and position, offsets to landmarks and to the others, and two zeros (a message nobody
    sends) for each other agent.
    """

    agents: int = 3
    landmarks: int | None = None  # as many as agents where None
    local_ratio: float = 0.5  # weight of the agent's own collisions, the rest is the shared distance
    terminate_on_success: bool = False  # over when every landmark has an agent within 0.1
    continuous: bool = False
    horizon: int | None = 25

    title: ClassVar[str] = "spread"

    def __post_init__(self) -> None:
        self.require(agents=1)
        if self.landmarks is not None:
            self.require(landmarks=1)
        if not 0 <= self.local_ratio <= 1:
            raise ConfigError(f"local_ratio: got {self.local_ratio}, but it is a proportion, from 0 to 1.")

    def make_world(self) -> World:
        n, m = self.agents, self.agents if self.landmarks is None else self.landmarks
        return World(
            names=tuple(f"agent_{i}" for i in range(n)),
            sees=(4 + 2 * m + 4 * (n - 1),) * n,
            radius=(0.15,) * n + (0.05,) * m,
            colour=(BLUE,) * n + (DARK,) * m,
            reach=(1.0,) * (n + m),
            push=(5.0,) * n,
            solid=n,
        )

    def seen(self, eyes: Eyes) -> list[Seen]:
        return eyes.velocity + eyes.place + eyes.landmarks + eyes.others + eyes.silence

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        s = parts(state)
        shared = -distances(s.landmarks, s.agents).amin(1).sum(0)
        overlaps = (distances(s.agents, s.agents) < 2 * self.world.radius[0]).sum(1) - 1  # less the agent itself
        return (1 - self.local_ratio) * shared - self.local_ratio * overlaps

    def paid(self) -> Paid:
        return Paid(COVER, 2 * self.world.radius[0], together=1 - self.local_ratio, alone=self.local_ratio)

    def over(self, state: State) -> Bool[Tensor, "env"]:
        if not self.terminate_on_success:
            return Scenario.over(self, state)
        s = parts(state)
        return (distances(s.landmarks, s.agents).amin(1) < 0.1).all(0)


@dataclass(frozen=True)
class Adversary(Scenario):
    """Agents know which landmark is the goal, the adversary does not: they cover all of them to deceive it.

    r_adversary = -its distance to the goal; r_agent = that distance less the nearest agent's. Each sees the offsets
    to landmarks and others, the agents that to the goal first.
    """

    agents: int = 2  # besides the one adversary; as many landmarks
    continuous: bool = False
    horizon: int | None = 25

    title: ClassVar[str] = "adversary"

    def __post_init__(self) -> None:
        self.require(agents=1)

    def make_world(self) -> World:
        n = self.agents
        return World(
            names=("adversary_0", *(f"agent_{i}" for i in range(n))),
            roles=("adversary",) + ("agent",) * n,
            teams=("adversary",) + ("agent",) * n,
            sees=(4 * n,) + (4 * n + 2,) * n,
            radius=(0.15,) * (n + 1) + (0.08,) * n,
            colour=(RED,) + (BLUE,) * n + (DARK,) * n,
            reach=(1.0,) * (2 * n + 1),
            push=(5.0,) * (n + 1),
            goals=(n,),
        )

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        s = parts(state)
        seen = sight(s)
        to_goal = pick(s.landmarks, s.goal[0]) - s.agents[1:]
        return lay(seen[:1], torch.cat([to_goal, seen[1:]], dim=1))

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        s = parts(state)
        away = distance(s.agents, pick(s.landmarks, s.goal[0]))
        return torch.cat([-away[:1], (away[:1] - away[1:].amin(0)).expand(self.agents, -1)])


@dataclass(frozen=True)
class Crypto(Scenario):
    """Alice tells Bob one of two goals so that Eve, who hears every word, cannot tell it; the two share a key.

    r_eve = -|said by Eve - goal|^2; r_alice = r_bob = -|said by Bob - goal|^2 - r_eve, with the goal a one-hot
    vector of four; who says nothing (zeros, possible only with continuous actions) is neither paid nor fined. Nobody
    moves. Eve sees Alice's message, Bob the key and the message, Alice the goal and the key.
    """

    continuous: bool = False
    horizon: int | None = 25

    title: ClassVar[str] = "crypto"

    def make_world(self) -> World:
        return World(
            names=("eve_0", "bob_0", "alice_0"),
            roles=("eve", "bob", "alice"),
            teams=("adversary", "agent", "agent"),
            sees=(4, 8, 8),
            radius=(0.05,) * 5,
            colour=(RED, BLUE, GREEN, DARK, GREY),
            reach=(1.0,) * 5,
            push=(0.0,) * 3,
            words=4,
            speaks=(True,) * 3,
            goals=(2, 2),  # the goal, the key
        )

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        s = parts(state)
        goal, key = (tinted(which, 4, 0.0, 1.0, s.message) for which in s.goal)
        heard = s.message[2]
        sees = heard, torch.cat([key, heard]), torch.cat([goal, key])  # Eve, Bob, Alice
        return lay(*(x.unsqueeze(0) for x in sees))

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        s = parts(state)
        said = s.message[:2]  # by Eve and Bob
        miss = (said - tinted(s.goal[0], 4, 0.0, 1.0, said)).square().sum(1) * (said != 0).any(1)
        return torch.stack([-miss[0], miss[0] - miss[1], miss[0] - miss[1]])


@dataclass(frozen=True)
class Push(Scenario):
    """The agent goes to a goal that it alone knows; the adversary keeps it away.

    r_agent = -its distance to the goal; r_adversary = that distance less its own distance to the goal. The adversary
    sees its velocity and the offsets to both landmarks and to the agent; the agent sees its velocity, the offset to
    the goal, its own colour (which tells the goal), the landmarks' offsets and colours, and the offset to the other.
    """

    continuous: bool = False
    horizon: int | None = 25

    title: ClassVar[str] = "push"

    def make_world(self) -> World:
        return World(
            names=("adversary_0", "agent_0"),
            roles=("adversary", "agent"),
            teams=("adversary", "agent"),
            sees=(8, 19),
            radius=(0.05,) * 4,
            colour=(RED, DARK, GREEN, BLUE),
            reach=(1.0,) * 4,
            push=(5.0,) * 2,
            solid=2,
            goals=(2,),
        )

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        s = parts(state)
        seen = sight(s)
        return lay(torch.cat([s.velocity[:1], seen[:1]], dim=1), push_sight(s, seen))

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        return push_rewards(parts(state))


def push_sight(s: Parts, seen: Float[Tensor, "agent 6 env"]) -> Float[Tensor, "1 19 env"]:
    """What the agent of `Push` sees: the colours are (0.1, 0.9, 0.1) and (0.1, 0.1, 0.9), its own 0.25 or 0.75."""
    count = s.agents.shape[-1]
    own = tinted(s.goal[0] + 1, 3, 0.25, 0.5, s.agents)
    colours = constant((0.1, 0.9, 0.1, 0.1, 0.1, 0.9), s.agents.dtype, s.agents.device)[:, None].expand(-1, count)
    to_goal = pick(s.landmarks, s.goal[0]) - s.agents[1]
    return torch.cat([s.velocity[1], to_goal, own, seen[1, :4], colours, seen[1, 4:]]).unsqueeze(0)


def push_rewards(s: Parts) -> Float[Tensor, "2 env"]:
    """The adversary's and the agent's, of `Push`."""
    away = distance(s.agents, pick(s.landmarks, s.goal[0]))
    return torch.stack([away[1] - away[0], -away[1]])


@dataclass(frozen=True)
class Reference(Scenario):
    """Each of two agents knows by colour to which landmark the OTHER should go, and can only say so.

    Local reward of i: -distance of the other to the landmark that i knows. r_i = local_ratio * local_i +
    (1 - local_ratio) * mean of both. Each sees its velocity, offsets to the three landmarks, the colour it knows and
    the other's last message. A discrete action is `move + 5 * word`, of 5 moves and 10 words.
    """

    local_ratio: float = 0.5
    continuous: bool = False
    horizon: int | None = 25

    title: ClassVar[str] = "reference"

    def __post_init__(self) -> None:
        if not 0 <= self.local_ratio <= 1:
            raise ConfigError(f"local_ratio: got {self.local_ratio}, but it is a proportion, from 0 to 1.")

    def make_world(self) -> World:
        return World(
            names=("agent_0", "agent_1"),
            sees=(21, 21),
            radius=(0.05,) * 5,
            colour=("#8a63d2", "#e8a93a", *TRIO),  # each as the ring around the landmark that it should go to
            reach=(1.0,) * 5,
            push=(5.0,) * 2,
            words=10,
            speaks=(True, True),
            goals=(3, 3),  # to which landmark agent 1, and agent 0, should go: what agent 0, and agent 1, knows
        )

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        s = parts(state)
        known = torch.stack([tinted(which, 3, 0.25, 0.5, s.agents) for which in s.goal])
        return lay(torch.cat([s.velocity, offsets(s.agents, s.landmarks), known, s.message.flip(0)], dim=1))

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        s = parts(state)
        targets = torch.stack([pick(s.landmarks, which) for which in s.goal])
        local = -distance(s.agents.flip(0), targets)
        return self.local_ratio * local + (1 - self.local_ratio) * local.mean(0)


@dataclass(frozen=True)
class SpeakerListener(Scenario):
    """The speaker sees the colour of the goal and says one of three words; the listener walks.

    Both are paid -(distance of the listener to the goal)^2. The listener sees its velocity, the offsets to the three
    landmarks and the speaker's last message. The speaker stands still and has three choices, the listener five.
    """

    continuous: bool = False
    horizon: int | None = 25

    title: ClassVar[str] = "speaker_listener"

    def make_world(self) -> World:
        return listening_world()

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        return listening_sight(state)

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        return -distance_to_hear(parts(state)).square().expand(2, -1)


def listening_world(paper: bool = False) -> World:
    """A speaker, a listener and three landmarks."""
    return World(
        names=("speaker_0", "listener_0"),
        roles=("speaker", "listener"),
        sees=(3, 11),
        radius=(0.075,) * 2 + (0.04,) * 3,
        colour=(GREY, DARK, *TRIO),
        reach=(1.0,) * 5,
        push=(0.0, 5.0),
        words=3,
        speaks=(True, False),
        goals=(3,),
        paper=paper,
    )


def listening_sight(state: State) -> Float[Tensor, "env 2 obs"]:
    """What the speaker sees, (0.65, 0.15, 0.15) for the first landmark and so on, and what the listener does."""
    s = parts(state)
    colour = tinted(s.goal[0], 3, 0.15, 0.5, s.agents).unsqueeze(0)
    return lay(colour, torch.cat([s.velocity[1:], offsets(s.agents[1:], s.landmarks), s.message[:1]], dim=1))


def distance_to_hear(s: Parts) -> Float[Tensor, "env"]:
    """From the listener to the landmark that the speaker knows."""
    return distance(s.agents[1], pick(s.landmarks, s.goal[0]))


@dataclass(frozen=True)
class Tag(Scenario):
    """Slow adversaries catch fast prey among solid obstacles.

    In every step each touching pair of adversary and prey pays +10 to EVERY adversary and -10 to that prey; the prey
    also pays for being outside, `fence` along each axis. Each sees its velocity and position, the offsets to obstacles
    and others, and the velocities of the (other) prey.
    """

    prey: int = 1
    adversaries: int = 3
    obstacles: int = 2
    terminate_on_success: bool = False  # over when every prey is touched at once
    continuous: bool = False
    horizon: int | None = 25

    title: ClassVar[str] = "tag"

    def __post_init__(self) -> None:
        self.require(prey=1, adversaries=1, obstacles=0)

    def make_world(self) -> World:
        return chasing_world(self.adversaries, self.prey, self.obstacles)

    def seen(self, eyes: Eyes) -> list[Seen]:
        return chasing_sight(eyes, self.adversaries)

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        return chasing_rewards(parts(state), self.adversaries)

    def paid(self) -> Paid:
        return Paid(CATCH, HUNTER + PREY, hunters=self.adversaries)

    def over(self, state: State) -> Bool[Tensor, "env"]:
        if not self.terminate_on_success:
            return Scenario.over(self, state)
        return touches(parts(state), self.adversaries, HUNTER + PREY).any(0).all(0)


HUNTER, PREY, FOREST = 0.075, 0.05, 0.3  # radii in tag, and of the forests in world_comm


def chasing_world(adversaries: int, prey: int, obstacles: int, paper: bool = False) -> World:
    """Adversaries, prey and obstacles."""
    count = adversaries + prey
    common = 4 + 2 * obstacles + 2 * (count - 1)
    return World(
        names=(*(f"adversary_{i}" for i in range(adversaries)), *(f"agent_{i}" for i in range(prey))),
        roles=("adversary",) * adversaries + ("agent",) * prey,
        teams=("adversary",) * adversaries + ("agent",) * prey,
        sees=(common + 2 * prey,) * adversaries + (common + 2 * (prey - 1),) * prey,
        radius=(HUNTER,) * adversaries + (PREY,) * prey + (0.2,) * obstacles,
        colour=(RED,) * adversaries + (GREEN,) * prey + (DARK,) * obstacles,
        reach=(1.0,) * count + (0.9,) * obstacles,
        push=(3.0,) * adversaries + (4.0,) * prey,
        top_speed=(1.0,) * adversaries + (1.3,) * prey,
        solid=count + obstacles,
        paper=paper,
    )


def chasing_sight(eyes: Eyes, adversaries: int) -> list[Seen]:
    """What adversaries and prey of `Tag` see."""
    prey = range(adversaries, eyes.world.agents)
    return eyes.velocity + eyes.place + eyes.landmarks + eyes.others + eyes.velocities(prey)


def touches(s: Parts, adversaries: int, reach: float) -> Bool[Tensor, "adversary prey env"]:
    """Which adversary overlaps which prey, when their radii sum to `reach`."""
    return distances(s.agents[:adversaries], s.agents[adversaries:]) < reach


def chasing_rewards(s: Parts, adversaries: int) -> Float[Tensor, "agent env"]:
    """Of `Tag`."""
    touching = touches(s, adversaries, HUNTER + PREY)
    caught = (10.0 * touching.sum((0, 1))).to(s.agents.dtype).expand(adversaries, -1)
    return torch.cat([caught, -10.0 * touching.sum(0) - fence(s.agents[adversaries:])])


def fence(position: Float[Tensor, "some 2 env"]) -> Float[Tensor, "some env"]:
    """What it costs to be near or beyond the border at |x| = 1, summed over both axes: nothing up to 0.9, then
    10 (|x| - 0.9) up to 1, then exp(2 |x| - 2), at most 10."""
    x = position.abs()
    outside = (2 * x - 2).exp().clamp(max=10)
    return torch.where(x < 1, (10 * (x - 0.9)).clamp(min=0), outside).sum(1)


@dataclass(frozen=True)
class WorldComm(Scenario):
    """Tag with food for the prey, forests that hide who is inside, and a lead adversary who sees all and speaks.

    In every step each touching pair of adversary and prey pays +5 to every adversary and -5 to that prey; an adversary
    also pays 0.1 * distance to the nearest prey; a prey gets 2 for each food it touches and pays twice the `fence` and
    0.05 * distance to the nearest food. The lead's discrete action is `move + 5 * word`, of 5 moves and 4 words.

    Each sees its velocity and position, the offsets to obstacles, food and forests, to the others and the velocities
    of the (other) prey; which forests it stands in (1 or -1); adversaries also hear the lead's last message. Others
    show as zeros unless both stand in one forest or both in none; the lead sees them always.
    """

    prey: int = 2
    adversaries: int = 4
    obstacles: int = 1
    food: int = 2
    forests: int = 2
    continuous: bool = False
    horizon: int | None = 25

    title: ClassVar[str] = "world_comm"

    def __post_init__(self) -> None:
        self.require(prey=1, adversaries=1, obstacles=0, food=1, forests=0)

    def make_world(self) -> World:
        hunters, prey, count = self.adversaries, self.prey, self.adversaries + self.prey
        landmarks = self.obstacles + self.food + self.forests
        common = 4 + 2 * landmarks + 2 * (count - 1) + self.forests
        return World(
            names=(
                "leadadversary_0",
                *(f"adversary_{i}" for i in range(hunters - 1)),
                *(f"agent_{i}" for i in range(prey)),
            ),
            roles=("leader",) + ("adversary",) * (hunters - 1) + ("agent",) * prey,
            teams=("adversary",) * hunters + ("agent",) * prey,
            sees=(common + 2 * prey + 4,) * hunters + (common + 2 * (prey - 1),) * prey,
            radius=(0.075,) * hunters
            + (0.045,) * prey
            + (0.2,) * self.obstacles
            + (0.03,) * self.food
            + (FOREST,) * self.forests,
            colour=("#9c2f2c",)
            + (RED,) * (hunters - 1)
            + (GREEN,) * prey
            + (DARK,) * self.obstacles
            + (BLUE,) * self.food
            + ("#b5dfb0",) * self.forests,
            reach=(1.0,) * count + (0.9,) * landmarks,
            push=(3.0,) * hunters + (4.0,) * prey,
            top_speed=(1.0,) * hunters + (1.3,) * prey,
            solid=count + self.obstacles,
            words=4,
            speaks=(True,) + (False,) * (count - 1),
        )

    def observe(self, state: State) -> Float[Tensor, "env agent obs"]:
        s, hunters = parts(state), self.adversaries
        visible, inside = self.visibility(s)
        seen = (s.agents - s.agents.unsqueeze(1)) * visible.unsqueeze(2)  # [me, other, 2, env]
        moving = s.velocity[hunters:] * visible[:, hunters:].unsqueeze(2)
        common = torch.cat([s.velocity, s.agents, offsets(s.agents, s.landmarks), but_own(seen).flatten(1, 2)], dim=1)
        forest = torch.where(inside, 1.0, -1.0).to(common.dtype)
        heard = s.message[:1].expand(hunters, -1, -1)
        return lay(
            torch.cat([common[:hunters], moving[:hunters].flatten(1, 2), forest[:hunters], heard], dim=1),
            torch.cat([common[hunters:], forest[hunters:], but_own(moving[hunters:]).flatten(1, 2)], dim=1),
        )

    def visibility(self, s: Parts) -> tuple[Bool[Tensor, "agent agent env"], Bool[Tensor, "agent forest env"]]:
        """Whom each agent sees, and which forests it stands in."""
        count, start = len(s.agents), self.obstacles + self.food
        radius = constant(self.world.radius[:count], s.agents.dtype, s.agents.device)[:, None, None]
        inside = distances(s.agents, s.landmarks[start:]) < radius + FOREST
        together = (inside.unsqueeze(1) & inside.unsqueeze(0)).any(2)
        outside = ~inside.any(1)
        lead = torch.arange(count, device=inside.device)[:, None, None] == 0
        return together | (outside.unsqueeze(1) & outside.unsqueeze(0)) | lead, inside

    def rewards(self, state: State) -> Float[Tensor, "agent env"]:
        s, hunters, radius = parts(state), self.adversaries, self.world.radius
        prey, size, bite = s.agents[hunters:], radius[hunters], radius[self.world.solid]  # the first food's
        touching = touches(s, hunters, radius[0] + size)
        caught = 5.0 * touching.sum((0, 1)) - 0.1 * distances(s.agents[:hunters], prey).amin(1)
        to_food = distances(prey, s.landmarks[self.obstacles : self.obstacles + self.food])
        fed = 2.0 * (to_food < size + bite).sum(1) - 0.05 * to_food.amin(1)
        return torch.cat([caught, fed - 5.0 * touching.sum(0) - 2 * fence(prey)])
