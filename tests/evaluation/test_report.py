"""The page stands alone, runs no script but its own, and shows what it was given."""

import base64
import hashlib
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from tests.evaluation.scenes import HOSTILE, room
from understudy.core.errors import ConfigError, RunError
from understudy.core.scene import Scene, Shape
from understudy.evaluation.plots import Curve
from understudy.evaluation.report import Animation, Curves, Intervals, Report, Section, Table, comparison, safe_json
from understudy.maths.stats import Estimate


class Page(HTMLParser):
    """Every element with its attributes, the text outside scripts and styles, and each script's content."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text, self.scripts, self.inside = "", [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "script":
            self.scripts.append((dict(attributes).get("type"), ""))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            kind, before = self.scripts[-1]
            self.scripts[-1] = (kind, before + data)
        elif self.inside != "style":
            self.text += data


def report(name: str = "ann") -> Report:
    scenes = [room(step, f"{name} {step}") for step in range(8)]
    named = Scene(0.0, 0.0, 6.0, 4.0, (Shape("text", ((1.0, 1.0),), 1.0, "#000000", name),), name)
    section = Section(
        title=name,
        text=f"{name}\n\nsecond",
        tables=[Table([name, "return"], [[name, Estimate(-39.2, -39.6, -38.8, 100)]], name)],
        curves=[Curves(name, [Curve(name, [0, 1], [1.0, 2.0])], name, name)],
        intervals=[Intervals(name, [(name, Estimate(1.0, 0.5, 1.5, 9))], name, (name, 1.0))],
        animations=[Animation(name, [(name, scenes), ("learned", [*scenes[:3], named])], dt=0.5)],
    )
    return Report(name, [section, Section("other")], name, [Table([name], [[name]])], {name: {"nested": name}})


def test_the_page_holds_what_it_was_given():
    page = Page(report().html())
    assert "-39.20 ± 0.40" in page.text and "second" in page.text and '{"nested": "ann"}' in page.text
    assert any(a.get("title") == "-39.20 [-39.60, -38.80], n = 100" for tag, a in page.elements if tag == "td")
    assert [tag for tag, _ in page.elements].count("canvas") == 2
    assert [a.get("id") for tag, a in page.elements if tag == "section"] == ["section-0", "section-1"]


def test_an_animation_s_data_gives_back_every_scene():
    kind, data = Page(report().html()).scripts[0]
    assert kind == "application/json"
    people, learned = json.loads(data)["players"]
    assert people["base"] == 7 and people["box"] == [0, 0, 6, 4]  # six walls and the pole stay, told once
    for step, frame in enumerate(people["frames"]):
        shapes = [people["shapes"][k] for k in [*range(people["base"]), *frame]]
        meant = [[s.kind, [list(p) for p in s.points], s.size, s.colour, s.text] for s in room(step).shapes]
        assert shapes == meant
    assert len(people["shapes"]) == 7 + 8 + 1 and len(learned["frames"]) == 4
    assert people["captions"][3] == "ann 3"


def test_no_name_becomes_markup_or_script():
    calm, hostile = Page(report().html()), Page(report(HOSTILE).html())
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in calm.elements]
    assert [sorted(a) for _, a in hostile.elements] == [sorted(a) for _, a in calm.elements]
    assert len(hostile.scripts) == 2 and hostile.scripts[1] == calm.scripts[1]
    learned = json.loads(hostile.scripts[0][1])["players"][1]
    assert learned["shapes"][-1][4] == HOSTILE  # all of it arrives, as data
    assert "alert('x')" in hostile.text


def test_json_cannot_leave_its_script_element():
    assert json.loads(safe_json({"</script>": "<!--&"})) == {"</script>": "<!--&"}
    assert not set(safe_json(["</script><!-- & \u2028"])) & set("<>&\u2028")


def test_the_policy_admits_the_page_s_own_script_alone_and_no_request():
    html = report().html()
    policy = next(a["content"] for tag, a in Page(html).elements if a.get("http-equiv") == "Content-Security-Policy")
    script = Page(html).scripts[-1][1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}';" in policy
    assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z]+\.", html)
    assert not any({"src", "href"} & set(attributes) for _, attributes in Page(html).elements)


def test_saving_replaces_the_page_at_once_or_leaves_it(tmp_path, monkeypatch):
    path = Report("first").save(tmp_path / "runs" / "report.html")
    assert "<h1>first</h1>" in path.read_text()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RunError, match="disk is full"):
        Report("second").save(path)
    assert "<h1>first</h1>" in path.read_text() and len(list(path.parent.iterdir())) == 1


def test_the_terminal_gets_tables_and_small_curves_and_no_control_characters():
    text = report().text(90)
    assert "│ ann │ -39.20 ± 0.40 │" in text and "ann: ann  ▁█  1 to 2" in text and "nested" in text
    assert max(map(len, text.splitlines())) <= 90
    assert "\x1b" not in report(HOSTILE).text() and "\x1b[1m" in report().text(colour=True)


def test_curves_that_hold_nothing_finite_are_said_to():
    nothing = Curves("loss", [Curve("a", [0, 1], [math.nan, math.nan])])
    shown = Report("t", [Section("s", curves=[nothing])])
    assert "no values" in shown.text() and "<svg" in shown.html()


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ConfigError, match="row 1 has 1 cells for 2 columns"):
        Table(["a", "b"], [["x", 1], ["y"]])
    with pytest.raises(ConfigError, match="at least one scene"):
        Animation("a", [("people", [])])
    with pytest.raises(ConfigError, match=r"dt: got -1"):
        Animation("a", [("people", [room()])], dt=-1.0)
    lost = Scene(0.0, 0.0, 1.0, 1.0, (Shape("circle", ((math.nan, 0.0),), 1.0),))
    with pytest.raises(ConfigError, match="animation 'a': a shape's place or size is not finite"):
        Report("t", [Section("s", animations=[Animation("a", [("people", [lost])])])]).html()


def test_a_comparison_has_a_column_for_each_learner_and_blanks_where_nothing_was_measured():
    def found(value: float) -> dict[str, Estimate]:
        estimate = Estimate(value, value - 1, value + 1, 9)
        return {"return/team": estimate, "demonstrated return/team": Estimate(5.0, 4.0, 6.0, 9), "energy/obs": estimate}

    table = comparison({"BC": found(1.0), "MA-GAIL": found(2.0)}, "people")
    assert table.columns == ["measure", "people", "BC", "MA-GAIL"]
    assert [[str(cell) for cell in row] for row in table.rows] == [
        ["return/team", "5.0 ± 1.0", "1.0 ± 1.0", "2.0 ± 1.0"],
        ["energy/obs", "", "1.0 ± 1.0", "2.0 ± 1.0"],
    ]
    assert 'th scope="col" class="number">people' in Report("t", tables=[table]).html()  # blanks are no words
    assert [row[0] for row in comparison({"BC": found(1.0)}, measures=["energy/obs"]).rows] == ["energy/obs"]


PROBE = """
<script>
window.addEventListener("load", () => {
  const one = (what) => document.querySelector(what);
  const dark = () => { const c = one("canvas"), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
                       let n = 0; for (let k = 0; k < d.length; k += 4) n += d[k] < 200; return n; };
  const said = {drawn: dark()};
  const scrub = one("input");
  scrub.value = 5; scrub.dispatchEvent(new Event("input"));
  said.time = one("output").textContent;
  said.captions = [...document.querySelectorAll("figure p")].map((e) => e.textContent);
  said.paused = one(".controls button").getAttribute("aria-label");
  one(".controls button").click();
  said.playing = one(".controls button").getAttribute("aria-label");
  document.querySelectorAll("nav button")[1].click();
  said.hidden = [...document.querySelectorAll("section")].map((s) => s.hidden);
  one("h1").textContent = JSON.stringify(said);
});
</script>"""


def test_a_browser_runs_the_page_without_complaint(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here to open the page with")

    def opened(html: str) -> tuple[str, str]:
        (tmp_path / "page.html").write_text(html)
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
        command += [
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=3000",
            str(tmp_path / "page.html"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)

    dom, complaints = opened(report(HOSTILE).html())
    assert complaints == ""
    assert 'aria-selected="true"' in dom and re.search(r"<output>\d\.\d of 3\.5 s</output>", dom)

    free = re.sub(r"<meta http-equiv=[^>]*>", "", report().html()).replace("</body>", PROBE + "</body>")
    dom, complaints = opened(free)
    said = json.loads(re.search(r"<h1>(\{.*\})</h1>", dom).group(1))
    assert said.pop("drawn") > 1000 and complaints == ""
    assert said == {
        "time": "2.5 of 3.5 s",
        "captions": ["ann 5", "ann"],  # the shorter one waits at its last scene
        "paused": "play",
        "playing": "pause",
        "hidden": [True, False],
    }
