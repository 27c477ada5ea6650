// Learning curves by experiment: over its runs the mean between the quartiles, and the band between them.

import { dot, el, fillSelect, hideHint } from "./dom.js";
import { SCALES, colorOfNumber, interquartileMean, quantile } from "./figures.js";
import { Plane } from "./plane.js";

const GRID = 120; // points of a mean
const MAX_EXPERIMENTS = 24;
const AT_ONCE = 500; // curves in a question

function at(curve, x) {
  let low = 0;
  let high = curve.x.length - 1;
  if (x < curve.x[0] || x > curve.x[high]) return NaN;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (curve.x[middle] <= x) low = middle;
    else high = middle;
  }
  const width = curve.x[high] - curve.x[low];
  return width > 0 ? curve.values[low] + ((x - curve.x[low]) / width) * (curve.values[high] - curve.values[low]) : curve.values[high];
}

// {x, mean, low, high} of some curves {x, values}, x ascending: where at least half of them have a value.
export function summary(curves) {
  const kept = curves.filter((curve) => curve.x.length);
  const found = { x: [], mean: [], low: [], high: [] };
  if (!kept.length) return found;
  const first = Math.min(...kept.map((curve) => curve.x[0]));
  const last = Math.max(...kept.map((curve) => curve.x[curve.x.length - 1]));
  for (let i = 0; i < GRID; i++) {
    const x = i === GRID - 1 ? last : first + (i / (GRID - 1)) * (last - first);
    const values = Float64Array.from(kept, (curve) => at(curve, x)).filter((value) => !Number.isNaN(value)).sort();
    if (values.length * 2 < kept.length) continue;
    found.x.push(x);
    found.mean.push(interquartileMean(values));
    found.low.push(quantile(values, 0.25));
    found.high.push(quantile(values, 0.75));
  }
  return found;
}

export class Curves {
  title = "Curves";

  constructor(app) {
    this.app = app;
    const select = (label) => el("select", { "aria-label": label, onchange: () => app.draw() });
    this.figure = select("Figure");
    this.isChosen = false;
    this.figure.addEventListener("change", () => (this.isChosen = true));
    this.x = select("Over");
    fillSelect(this.x, { "": [["step", "steps"], ["seconds", "seconds"]] }, "step");
    this.scale = select("Figure: scale");
    this.scale.append(...SCALES.map((name) => el("option", { value: name }, name)));
    this.each = el("input", { type: "checkbox", onchange: () => app.draw() });
    this.legend = el("div", { class: "legend" });
    this.plot = el("div", { class: "plot" });
    this.note = el("p", { class: "note" });
    this.plane = new Plane(this.plot);
    this.curves = new Map(); // id -> {figure, change, curve}
    this.element = [
      el("div", { class: "pickers" },
        el("label", {}, "Figure", this.figure), this.scale, el("label", {}, "over", this.x), el("label", {}, this.each, "every run")),
      this.legend, this.plot, this.note,
    ];
  }

  async draw() {
    const { store, source } = this.app;
    const names = store.curveFigures();
    const chosen = this.isChosen ? this.figure.value : names.find((name) => name === "perf" && store.factsOf("figure:perf").count) ?? "episode_return";
    const figure = fillSelect(this.figure, { "": names.map((name) => [name, name]) }, chosen);
    const groups = new Map(); // experiment -> rows, of those with the most
    for (const number of this.app.shown()) {
      const row = store.rows[number];
      if (groups.has(row.experiment)) groups.get(row.experiment).push(row);
      else groups.set(row.experiment, [row]);
    }
    const largest = [...groups.values()].sort((a, b) => b.length - a.length).slice(0, MAX_EXPERIMENTS);
    this.left = groups.size - largest.length;
    const rows = largest.flat();
    const missing = rows.filter((row) => {
      const known = this.curves.get(row.id);
      return !known || known.figure !== figure || known.change !== row.change;
    });
    for (let start = 0; start < missing.length; start += AT_ONCE) {
      const some = missing.slice(start, start + AT_ONCE);
      const changes = some.map((row) => row.change);
      this.note.textContent = `reading ${missing.length - start} curves`;
      const got = await source.curves(some.map((row) => row.id), figure, rows.length);
      some.forEach((row, i) => this.curves.set(row.id, { figure, change: changes[i], curve: got[row.id] }));
      if (this.app.view !== this || this.app.isDrawAsked) return; // something else is to be drawn
    }
    this.#show(figure, rows);
  }

  #show(figure, rows) {
    const experiments = new Map();
    for (const row of rows) {
      const curve = this.curves.get(row.id)?.curve;
      if (!curve?.values.length) continue;
      const points = { x: curve[this.x.value], values: curve.values };
      if (experiments.has(row.experiment)) experiments.get(row.experiment).push(points);
      else experiments.set(row.experiment, [points]);
    }
    const categories = this.app.store.factsOf("run:experiment").categories ?? [];
    const sorted = [...experiments].sort((a, b) => b[1].length - a[1].length);
    const [lines, bands, legend] = [[], [], []];
    for (const [name, curves] of sorted) {
      const color = colorOfNumber(Math.max(0, categories.indexOf(name)));
      const { x, mean, low, high } = summary(curves);
      if (this.each.checked) for (const curve of curves) lines.push({ x: curve.x, y: curve.values, color, width: 0.6 });
      if (curves.length > 1) bands.push({ x, low, high, color });
      lines.push({ x, y: mean, color });
      legend.push(el("span", {}, dot(color), `${name} (${curves.length})`));
    }
    this.legend.replaceChildren(...legend);
    hideHint();
    const label = this.x.value === "step" ? "steps" : "seconds";
    const what = `${figure} over ${label}: ${sorted.length} experiments`;
    this.plane.show({
      x: { scale: "linear", label, categories: null }, y: { scale: this.scale.value, label: figure, categories: null },
      lines, bands, what,
    });
    this.note.textContent =
      `${what}; line: mean between the quartiles of its runs, where at least half of them have got; band: the quartiles` +
      (this.left ? `; ${this.left} experiments with fewer runs are not drawn` : "");
  }
}
