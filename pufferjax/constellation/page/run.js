// One run: its data flow, curves, pictures, settings and figures; of a live one as they come.

import { el, fillSelect } from "./dom.js";
import { colorOfNumber, format } from "./figures.js";
import { Flow } from "./flow.js";
import { Plane } from "./plane.js";

const CURVES = ["perf", "episode_return", "loss", "entropy", "steps_per_second", "state_set_size", "priority_mean", "restarted_share"];
const SECONDS_BETWEEN = 1.5;

export class Run {
  title = "Run";

  constructor(app) {
    this.app = app;
    this.name = el("h2");
    this.facts = el("p", { class: "note" });
    this.problem = el("p", { class: "problem" });
    this.flow = new Flow(app.source);
    this.images = el("div", { class: "images" });
    this.grid = el("div", { class: "grid" });
    this.more = el("select", { "aria-label": "Another curve", onchange: () => this.#addCurve() });
    this.x = el("select", { "aria-label": "Curves over", onchange: () => this.#showCurves() });
    fillSelect(this.x, { "": [["step", "over steps"], ["wall_seconds", "over seconds"]] }, "step");
    this.settings = el("table");
    this.figures = el("table");
    this.planes = new Map();
    this.added = [];
    this.element = [
      this.name, this.facts, this.problem, this.flow.element, this.images,
      el("div", { class: "run-columns" },
        el("div", {}, el("div", { class: "pickers" }, el("h3", {}, "Curves"), this.x, this.more), this.grid),
        el("div", {}, el("h3", {}, "Settings"), this.settings, el("h3", {}, "Latest figures"), this.figures)),
    ];
  }

  async draw() {
    const { app } = this;
    const id = app.openedId;
    const number = app.store.numbers.get(id);
    if (number === undefined) {
      this.name.textContent = id ? "This run is gone" : "No run is open: click a point, or a row of the table";
      for (const part of this.element.slice(1)) part.hidden = true;
      return;
    }
    for (const part of this.element) part.hidden = false;
    if (id !== this.shownId) {
      [this.shownId, this.details] = [id, null];
      this.images.replaceChildren();
      this.imagesShown = "";
    }
    const row = app.store.rows[number];
    this.name.textContent = `${row.experiment} / ${row.name}`;
    this.problem.textContent = row.problem ?? "";
    this.#table(this.settings, app.store.settingsOf(number));
    this.#table(this.figures, app.store.figuresOf(number));
    const change = `${id} ${row.change} ${row.status}`;
    const now = performance.now();
    if (change !== this.readChange || (row.status === "live" && now - this.readAt > 1000 * SECONDS_BETWEEN)) {
      [this.readChange, this.readAt] = [change, now];
      try {
        const details = await app.source.run(id);
        if (app.openedId !== id) return;
        this.details = details;
      } catch (error) {
        this.readChange = "";
        app.say(error.message);
        return;
      }
    }
    if (!this.details) return;
    const status = this.details.status;
    const points = this.details.curves.step?.length ?? 0;
    this.facts.textContent = `${status} · folder ${row.folder} · ${points} points of its curves are drawn`;
    const settings = Object.fromEntries(app.store.settingsOf(number));
    await this.flow.show(this.details.last, settings, status === "live");
    this.#showImages();
    this.#showCurves();
  }

  // While it is open and live.
  tick() {
    if (this.details?.status === "live") this.draw();
  }

  #table(table, entries) {
    const state = JSON.stringify(entries);
    if (table.state === state) return;
    table.state = state;
    table.replaceChildren(...entries.map(([name, value]) =>
      el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: typeof value === "number" ? "number" : null, title: String(value) }, format(value)))));
  }

  #showImages() {
    const { source } = this.app;
    const names = this.details.images.map((image) => source.imageName(image));
    if (this.imagesShown === JSON.stringify(names)) return;
    this.imagesShown = JSON.stringify(names);
    this.images.replaceChildren(...this.details.images.map((image) =>
      el("figure", {}, el("img", { src: source.image(this.shownId, image), alt: source.imageName(image), loading: "lazy" }),
        el("figcaption", {}, source.imageName(image)))));
  }

  #addCurve() {
    if (this.more.value) this.added.push(this.more.value);
    this.#showCurves();
  }

  #showCurves() {
    const curves = this.details?.curves ?? {};
    const hasValues = (name) => curves[name]?.some((value) => value !== null);
    const shown = [...CURVES, ...this.added].filter(hasValues);
    const others = Object.keys(curves).filter((name) => hasValues(name) && !shown.includes(name)).sort();
    fillSelect(this.more, { "": [["", "another curve"]], Figures: others.map((name) => [name, name]) }, "");
    const elements = shown.map((name) => this.#plane(name).element);
    if (elements.length !== this.grid.children.length || elements.some((x, i) => this.grid.children[i] !== x)) {
      this.grid.replaceChildren(...elements);
    }
    const x = curves[this.x.value] ?? [];
    for (const name of shown) {
      const kept = curves[name].map((_, i) => i).filter((i) => curves[name][i] !== null);
      this.#plane(name).plane.show({
        x: { scale: "linear", label: this.x.value === "step" ? "steps" : "seconds", categories: null },
        y: { scale: "linear", label: name, categories: null },
        lines: [{ x: kept.map((i) => x[i]), y: kept.map((i) => curves[name][i]), color: colorOfNumber(0) }],
        what: `${name}: ${kept.length} points`,
      });
    }
  }

  #plane(name) {
    if (!this.planes.has(name)) {
      const element = el("div", { class: "plot small" });
      this.planes.set(name, { element, plane: new Plane(element) });
    }
    return this.planes.get(name);
  }
}
