// Three columns as a cloud of points that turns, coloured by a fourth.

import { cssColor, el, hideHint, showHint } from "./dom.js";
import { extent, place, ticksOf } from "./figures.js";
import { Picker, axisOf, colorsOf, hintOf } from "./pickers.js";

const TURN = 0.12; // radians of an arrow key

// Plotly reads tags in its texts.
function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

export class Scatter {
  title = "Scatter";

  constructor(app) {
    this.app = app;
    // The setting with the most values says most.
    const differing = (store) => store.differing().filter((key) => store.factsOf(key).isNumeric && key !== "setting:seed");
    const richest = (store) => differing(store).sort((a, b) => store.factsOf(b).distinct - store.factsOf(a).distinct)[0];
    this.x = new Picker(app, "x", { start: (store) => richest(store) ?? store.cost() });
    this.y = new Picker(app, "y", { start: (store) => store.cost() });
    this.z = new Picker(app, "z", { start: (store) => store.score() });
    this.color = new Picker(app, "Colour", { start: () => "run:experiment", none: "one colour" });
    this.legend = el("div", { class: "legend" });
    this.plot = el("div", {
      class: "plot", tabindex: "0", role: "img", "aria-label": "Scatter of the runs; arrow keys turn it, + and - zoom",
      onkeydown: (event) => this.#key(event),
    });
    this.plot.addEventListener("pointermove", (event) => (this.pointer = event));
    this.plot.addEventListener("pointerleave", hideHint);
    this.note = el("p", { class: "note" });
    this.pickers = [this.x, this.y, this.z, this.color];
    this.element = [el("div", { class: "pickers" }, ...this.pickers.map((x) => x.element)), this.legend, this.plot, this.note];
  }

  async draw() {
    const { store } = this.app;
    this.pickers.forEach((picker) => picker.refresh());
    const shown = this.app.shown();
    const axes = [this.x, this.y, this.z].map((picker) => axisOf(store, picker.key, picker.scale, shown));
    const placed = axes.map((axis) => axis.values.map((value) => place(axis.scale, value)));
    const kept = shown.map((_, i) => i).filter((i) => placed.every((values) => !Number.isNaN(values[i])));
    this.numbers = kept.map((i) => shown[i]);
    const { colors, legend } = colorsOf(store, this.color.key, this.color.scale, this.numbers);
    this.legend.replaceChildren(...legend);
    const missing = shown.length - kept.length;
    this.note.textContent = missing ? `${missing} of ${shown.length} runs have no place here: a value is missing or outside of the scale` : "";
    const data = placed.map((values) => kept.map((i) => values[i]));
    const trace = {
      type: "scatter3d", mode: "markers", x: data[0], y: data[1], z: data[2], hoverinfo: "none",
      marker: { size: kept.length > 2000 ? 2.5 : 5, color: colors, opacity: 0.9, line: { width: 0 } },
    };
    const [text, line] = [cssColor("--text"), cssColor("--line")];
    const scene = { aspectmode: "cube", bgcolor: "rgba(0,0,0,0)", uirevision: "kept", camera: { eye: { x: 1.5, y: 1.5, z: 0.9 } } };
    ["x", "y", "z"].forEach((name, at) => {
      const { categories, scale, label } = axes[at];
      const [low, high] = extent(data[at]) ?? [0, 1];
      const ticks = categories
        ? categories.map((category, i) => ({ at: i, text: category })).slice(0, 20)
        : ticksOf(scale, low, high, 5);
      scene[`${name}axis`] = {
        title: { text: plain(label), font: { size: 13 } }, color: text, gridcolor: line, zeroline: false,
        showspikes: false, tickvals: ticks.map((tick) => tick.at), ticktext: ticks.map((tick) => plain(tick.text.slice(0, 24))),
      };
    });
    const layout = {
      scene, margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", showlegend: false, uirevision: "kept",
      font: { family: "system-ui, sans-serif", color: text },
    };
    await window.Plotly.react(this.plot, [trace], layout, { displayModeBar: false, responsive: true });
    this.plot.dataset.points = kept.length;
    this.plot.setAttribute(
      "aria-label", `${kept.length} runs by ${axes.map((axis) => axis.label).join(", ")}; arrow keys turn, + and - zoom`,
    );
    if (!this.isListening) this.#listen();
  }

  #listen() {
    this.isListening = true;
    const keys = () => [this.x.key, this.y.key, this.z.key, this.color.key];
    this.plot.on("plotly_hover", ({ points }) => {
      const number = this.numbers[points[0].pointNumber];
      if (number !== undefined && this.pointer) showHint(hintOf(this.app.store, number, keys()), this.pointer);
    });
    this.plot.on("plotly_unhover", hideHint);
    this.plot.on("plotly_click", ({ points }) => {
      const number = this.numbers[points[0].pointNumber];
      hideHint();
      if (number !== undefined) this.app.open(this.app.store.rows[number].id);
    });
  }

  #key(event) {
    const eye = this.plot.layout?.scene?.camera?.eye ?? this.plot._fullLayout?.scene?.camera?.eye;
    if (!eye || event.ctrlKey || event.metaKey || event.altKey) return;
    let { x, y, z } = eye;
    const turn = { ArrowLeft: -TURN, ArrowRight: TURN }[event.key];
    const lift = { ArrowUp: 0.15, ArrowDown: -0.15 }[event.key];
    const zoom = { "+": 1 / 1.15, "-": 1.15 }[event.key];
    if (turn) [x, y] = [x * Math.cos(turn) - y * Math.sin(turn), x * Math.sin(turn) + y * Math.cos(turn)];
    else if (lift) z += lift;
    else if (zoom) [x, y, z] = [x * zoom, y * zoom, z * zoom];
    else return;
    event.preventDefault();
    window.Plotly.relayout(this.plot, { "scene.camera.eye": { x, y, z } });
  }
}
