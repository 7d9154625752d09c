"""Pictures of one moment of a particle scenario."""

from math import cos, hypot, pi, sin

from jaxtyping import Float
from torch import Tensor

from understudy.core.scene import Scene, Shape
from understudy.envs.particles_physics import World

EDGE = 1.45  # half the side of what is shown; bodies start within 1
PAPER, FLOOR, LINE, INK = "#eef0f4", "#ffffff", "#d5d9e0", "#2f3540"
RINGS = ("#e8a93a", "#8a63d2", "#3aa6a0")  # around the first, second, third goal
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def draw(
    world: World,
    position: Float[Tensor, "agent 2"],
    velocity: Float[Tensor, "agent 2"],
    landmark: Float[Tensor, "landmark 2"],
    message: Float[Tensor, "agent word"],
    goal: list[int],
) -> Scene:
    """Bodies, the smaller over the larger, rings around goals, strokes where agents are heading, words above them.

    The square is where bodies start, [-1, 1]^2. In a terminal agents show as their number, landmarks as `o`.
    """
    at, heading, places = position.tolist(), velocity.tolist(), landmark.tolist()
    shapes = [
        Shape("rect", ((-EDGE, -EDGE), (EDGE, EDGE)), colour=PAPER),
        Shape("rect", ((-1.0, -1.0), (1.0, 1.0)), colour=FLOOR),
        Shape("line", ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0)), 0.008, LINE),
    ]
    bodies = [*range(world.agents, world.bodies), *range(world.agents)]  # of equal ones the agent is on top
    for k in sorted(bodies, key=lambda k: -world.radius[k]):
        x, y = (at + places)[k]
        letter, inside = "o", world.radius[k]
        if k < world.agents:
            letter, inside = str(k % 10), world.radius[k] - 0.012
            shapes.append(Shape("circle", ((x, y),), world.radius[k], INK, letter))
        shapes.append(Shape("circle", ((x, y),), inside, world.colour[k], letter))
    for (x, y), (u, v) in zip(at, heading, strict=True):
        if hypot(u, v) > 0.05:
            shapes.append(Shape("line", ((x, y), (x + 0.25 * u, y + 0.25 * v)), 0.014, INK))
    for k, which in enumerate(goal):
        radius = world.radius[world.agents + which] + 0.03 + 0.025 * k
        shapes.append(_ring(places[which], radius, RINGS[k % len(RINGS)]))
    said = []
    for i, speaks in enumerate(world.speaks):
        if speaks:
            loud = message[i].max().item()
            word = ALPHABET[int(message[i].argmax())] if loud > 0 else "_"
            shapes.append(Shape("text", ((at[i][0], at[i][1] + world.radius[i] + 0.09),), 0.11, INK, word))
            said.append(f"{world.names[i]} says {word}")
    return Scene(-EDGE, -EDGE, EDGE, EDGE, tuple(shapes), ", ".join(said))


def _ring(centre: list[float], radius: float, colour: str) -> Shape:
    turns = [2 * pi * k / 36 for k in range(37)]
    return Shape(
        "line", tuple((centre[0] + radius * cos(a), centre[1] + radius * sin(a)) for a in turns), 0.016, colour
    )
