"use strict";

// Sections as tabs; without this script they stand one below the other.
const sections = [...document.querySelectorAll("main > section")];
const tabs = document.querySelector("nav");
if (tabs) {
  tabs.hidden = false;
  const buttons = [...tabs.querySelectorAll("button")];
  const choose = (chosen, focus) => {
    sections.forEach((section, k) => { section.hidden = k !== chosen; });
    buttons.forEach((button, k) => {
      button.setAttribute("aria-selected", String(k === chosen));
      button.tabIndex = k === chosen ? 0 : -1;
    });
    buttons[chosen].scrollIntoView({ block: "nearest", inline: "nearest" });
    if (focus) buttons[chosen].focus();
    window.dispatchEvent(new Event("resize"));
  };
  buttons.forEach((button, k) => {
    button.addEventListener("click", () => { choose(k); history.replaceState(null, "", `#${sections[k].id}`); });
    button.addEventListener("keydown", (event) => {
      const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (way) choose((k + way + buttons.length) % buttons.length, true);
    });
  });
  choose(Math.max(0, sections.findIndex((section) => `#${section.id}` === location.hash)));
}

// A scene: shapes in its own units, y upwards, painted in order.
const EM = 1.4; // a font's size over the height of its capitals
function paint(canvas, player, frame) {
  const [left, bottom, right, top] = player.box;
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio);
  if (!width) return; // in a hidden tab
  const scale = width / (right - left);
  const height = Math.round(scale * (top - bottom));
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const context = canvas.getContext("2d");
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, width, height);
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = context.lineCap = "round";
  const x = (value) => (value - left) * scale;
  const y = (value) => (top - value) * scale;
  const draw = (index) => {
    const [kind, points, size, colour, text] = player.shapes[index];
    context.fillStyle = context.strokeStyle = colour;
    const [px, py] = points[0];
    if (kind === "rect") {
      const [qx, qy] = points[1];
      // Whole pixels, so that neighbours leave no seam.
      const [x0, x1] = [Math.round(x(Math.min(px, qx))), Math.round(x(Math.max(px, qx)))];
      const [y0, y1] = [Math.round(y(Math.max(py, qy))), Math.round(y(Math.min(py, qy)))];
      context.fillRect(x0, y0, x1 - x0, y1 - y0);
    } else if (kind === "circle") {
      context.beginPath();
      context.arc(x(px), y(py), Math.max(size * scale, ratio / 2), 0, 2 * Math.PI);
      context.fill();
    } else if (kind === "line") {
      context.lineWidth = Math.max(size * scale, ratio);
      context.beginPath();
      points.forEach(([qx, qy]) => context.lineTo(x(qx), y(qy)));
      context.stroke();
    } else {
      context.font = `${size * scale * EM}px system-ui, sans-serif`;
      context.fillText(text, x(px), y(py));
    }
  };
  for (let k = 0; k < player.base; k += 1) draw(k); // what is the same in every frame comes first
  player.frames[frame].forEach(draw);
}

const REST = 0.8; // seconds at the last scene before it starts again
const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
for (const animation of document.querySelectorAll(".animation")) {
  const data = JSON.parse(animation.querySelector("script").textContent);
  const frames = Math.max(...data.players.map((player) => player.frames.length));
  const canvases = [...animation.querySelectorAll("canvas")];
  const captions = [...animation.querySelectorAll("figure p")];
  const [button, scrub, output, speed] = ["button", "input", "output", "select"].map((tag) => animation.querySelector(`.controls ${tag}`));
  const icon = button.querySelector("path");
  let [now, playing, before, visible, begun] = [0, false, 0, false, false];
  scrub.max = String(frames - 1);

  const show = () => {
    const frame = Math.min(frames - 1, Math.floor(now));
    data.players.forEach((player, k) => {
      const own = Math.min(frame, player.frames.length - 1); // the shorter one waits at its end
      paint(canvases[k], player, own);
      captions[k].textContent = player.captions[own] || "";
    });
    scrub.value = String(frame);
    output.textContent = `${(frame * data.dt).toFixed(1)} of ${((frames - 1) * data.dt).toFixed(1)} s`;
  };
  const set = (wanted) => {
    playing = wanted;
    button.setAttribute("aria-label", playing ? "pause" : "play");
    icon.setAttribute("d", playing ? "M3 2h4v12H3zM9 2h4v12H9z" : "M4 2l10 6-10 6z");
    if (playing) { before = performance.now(); requestAnimationFrame(tick); }
  };
  const tick = (time) => {
    if (!playing || !visible) return;
    now += Math.max(0, time - before) / 1000 / data.dt * Number(speed.value);
    before = time;
    if (now >= frames + REST / data.dt * Number(speed.value)) now = 0;
    show();
    requestAnimationFrame(tick);
  };
  button.addEventListener("click", () => set(!playing));
  scrub.addEventListener("input", () => { set(false); now = Number(scrub.value); show(); });
  window.addEventListener("resize", show);
  new IntersectionObserver(([entry]) => {
    visible = entry.isIntersecting;
    if (!visible) return;
    show();
    if (!begun && !calm && frames > 1) set(true); else set(playing);
    begun = true;
  }).observe(animation);
  set(false);
  show();
}
