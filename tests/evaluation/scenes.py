"""Scenes drawn by hand, for tests of the renderers."""

from understudy.core.scene import Scene, Shape

HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>&\u2028\x1b[31m"


def rect(left: float, bottom: float, right: float, top: float, colour: str = "#444444", letter: str = "") -> Shape:
    return Shape("rect", ((float(left), float(bottom)), (float(right), float(top))), 0.0, colour, letter)


def room(step: int = 0, caption: str = "") -> Scene:
    """A 6 x 4 room with walls marked X, an agent that walks right, a thin pole and a name."""
    walls = [rect(x, 0, x + 1, 1, "#805030", "X") for x in range(6)]
    agent = Shape("circle", ((1.5 + 0.5 * step, 2.5),), 0.4, "#2060e0", "1")
    pole = Shape("line", ((0.5, 1.5), (0.5, 3.5)), 0.02, "#000000")
    name = Shape("text", ((4.5, 3.5),), 0.3, "#111111", "ann")
    return Scene(0.0, 0.0, 6.0, 4.0, (*walls, pole, agent, name), caption)
