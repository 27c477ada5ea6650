// Score against cost, and the runs that no other one beats in both.

import { cssColor, el } from "./dom.js";
import { Picker, axisOf, colorsOf, hintOf } from "./pickers.js";
import { Plane } from "./plane.js";

// Places, in the order of cost, of the points of which no other costs less and scores more.
export function paretoFront(costs, scores) {
  const order = costs.map((_, i) => i).filter((i) => costs[i] !== null && scores[i] !== null);
  order.sort((a, b) => costs[a] - costs[b] || scores[b] - scores[a]);
  const front = [];
  for (const i of order) {
    if (!front.length || scores[i] > scores[front[front.length - 1]]) front.push(i);
  }
  return front;
}

export class Pareto {
  title = "Score and cost";

  constructor(app) {
    this.app = app;
    this.cost = new Picker(app, "Cost", { start: (store) => store.cost(), numeric: true, scale: "log" });
    this.score = new Picker(app, "Score", { start: (store) => store.score(), numeric: true });
    this.color = new Picker(app, "Colour", { start: () => "run:experiment", none: "one colour" });
    this.lower = el("input", { type: "checkbox", onchange: () => app.draw() });
    this.legend = el("div", { class: "legend" });
    this.plot = el("div", { class: "plot" });
    this.note = el("p", { class: "note" });
    this.pickers = [this.cost, this.score, this.color];
    this.plane = new Plane(this.plot, {
      onOpen: (index) => app.open(app.store.rows[this.numbers[index]].id),
      hintOf: (index) => hintOf(app.store, this.numbers[index], this.pickers.map((x) => x.key)),
    });
    this.element = [
      el("div", { class: "pickers" }, ...this.pickers.map((x) => x.element), el("label", {}, this.lower, "a lower score is better")),
      this.legend, this.plot, this.note,
    ];
  }

  draw() {
    const { store } = this.app;
    this.pickers.forEach((picker) => picker.refresh());
    this.numbers = this.app.shown();
    const x = axisOf(store, this.cost.key, this.cost.scale, this.numbers);
    const y = axisOf(store, this.score.key, this.score.scale, this.numbers);
    const { colors, legend } = colorsOf(store, this.color.key, this.color.scale, this.numbers);
    const sign = this.lower.checked ? -1 : 1;
    const front = paretoFront(x.values, y.values.map((value) => (value === null ? null : sign * value)));
    this.legend.replaceChildren(...legend);
    const opened = this.numbers.indexOf(store.numbers.get(this.app.openedId) ?? -1);
    const steps = { x: [], y: [] }; // the front as stairs
    front.forEach((i, at) => {
      if (at) {
        steps.x.push(x.values[i]);
        steps.y.push(y.values[front[at - 1]]);
      }
      steps.x.push(x.values[i]);
      steps.y.push(y.values[i]);
    });
    const count = x.values.filter((value, i) => value !== null && y.values[i] !== null).length;
    const what = `${y.label} against ${x.label}: ${count} runs, ${front.length} on the Pareto front`;
    this.plane.show({
      x, y, what, lines: [{ ...steps, color: cssColor("--accent"), width: 2 }], linesBelow: true,
      points: { x: x.values, y: y.values, colors, rings: opened >= 0 ? [opened] : [] },
    });
    this.note.textContent = `${what}. Arrow keys go from run to run, Enter opens one.`;
  }
}
