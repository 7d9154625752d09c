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
    """Landmarks, the widest lowest, rings around goals, agents with a stroke where they are heading, words above them.

    The square is where bodies start, [-1, 1]^2. Letters in a terminal: an agent's number, `o` for landmarks.
    """
    at, heading, places = position.tolist(), velocity.tolist(), landmark.tolist()
    shapes = [
        Shape("rect", ((-EDGE, -EDGE), (EDGE, EDGE)), colour=PAPER),
        Shape("rect", ((-1.0, -1.0), (1.0, 1.0)), colour=FLOOR),
        Shape("line", ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0)), 0.008, LINE),
    ]
    radius, colour = world.radius[world.agents :], world.colour[world.agents :]
    for k in sorted(range(len(places)), key=lambda k: -radius[k]):
        shapes.append(Shape("circle", (_point(places[k]),), radius[k], colour[k], "o"))
    for k, which in enumerate(goal):
        shapes.append(_ring(places[which], radius[which] + 0.03 + 0.025 * k, RINGS[k % len(RINGS)]))
    for i, (x, y) in enumerate(at):
        r, (u, v) = world.radius[i], heading[i]
        shapes.append(Shape("circle", ((x, y),), r, INK, str(i % 10)))
        shapes.append(Shape("circle", ((x, y),), r - 0.012, world.colour[i], str(i % 10)))
        if hypot(u, v) > 0.05:
            tip = (x + 0.25 * u, y + 0.25 * v)
            shapes.append(Shape("line", ((x, y), tip), 0.014, INK))
    said = []
    for i, speaks in enumerate(world.speaks):
        if speaks:
            loud = message[i].max().item()
            word = ALPHABET[int(message[i].argmax())] if loud > 0 else "_"
            shapes.append(Shape("text", ((at[i][0], at[i][1] + world.radius[i] + 0.09),), 0.11, INK, word))
            said.append(f"{world.names[i]} says {word}")
    return Scene(-EDGE, -EDGE, EDGE, EDGE, tuple(shapes), ", ".join(said))


def _point(xy: list[float]) -> tuple[float, float]:
    return xy[0], xy[1]


def _ring(centre: list[float], radius: float, colour: str) -> Shape:
    turns = [2 * pi * k / 36 for k in range(37)]
    return Shape(
        "line", tuple((centre[0] + radius * cos(a), centre[1] + radius * sin(a)) for a in turns), 0.016, colour
    )
