// Which runs are shown: by text, experiment, status, and ranges of any figure or setting.

import { dot, el, fillSelect } from "./dom.js";
import { colorOfNumber, extent, format } from "./figures.js";
import { nameOf } from "./pickers.js";

const STATUSES = ["finished", "live", "interrupted", "broken"];
const NOTCHES = 1000; // of a slider

class Range {
  constructor(filters, key) {
    this.filters = filters;
    this.key = key;
    [this.low, this.high] = [-Infinity, Infinity];
    const name = nameOf(key);
    const number = (end) =>
      el("input", { type: "number", step: "any", "aria-label": `${name}, ${end}`, placeholder: end, oninput: () => this.#typed() });
    const slider = (end, value) =>
      el("input", { type: "range", min: 0, max: NOTCHES, value, "aria-label": `${name}, ${end}, slider`, oninput: () => this.#slid() });
    [this.least, this.most] = [number("least"), number("most")];
    [this.leastSlider, this.mostSlider] = [slider("least", 0), slider("most", NOTCHES)];
    const remove = el("button", { type: "button", "aria-label": `Remove the range of ${name}`, onclick: () => filters.remove(this) }, "×");
    this.element = el("div", { class: "range" },
      el("div", { class: "name" }, name, remove),
      el("div", { class: "row" }, this.least, this.most), this.leastSlider, this.mostSlider);
    this.refresh();
  }

  refresh() {
    const values = (this.filters.app.store.columns.get(this.key) ?? []).filter((x) => typeof x === "number");
    [this.first, this.last] = extent(values) ?? [0, 1];
    this.isLog = this.first > 0 && this.last / this.first > 500;
    this.least.placeholder = format(this.first);
    this.most.placeholder = format(this.last);
  }

  #valueAt(notch) {
    const share = notch / NOTCHES;
    if (this.isLog) return this.first * (this.last / this.first) ** share;
    return this.first + share * (this.last - this.first);
  }

  #notch(value) {
    const share = this.isLog ? Math.log(value / this.first) / Math.log(this.last / this.first) : (value - this.first) / (this.last - this.first);
    return Math.round(NOTCHES * share);
  }

  #typed() {
    this.low = this.least.value === "" ? -Infinity : Number(this.least.value);
    this.high = this.most.value === "" ? Infinity : Number(this.most.value);
    this.leastSlider.value = this.low === -Infinity ? 0 : this.#notch(this.low);
    this.mostSlider.value = this.high === Infinity ? NOTCHES : this.#notch(this.high);
    this.filters.changed();
  }

  #slid() {
    const [low, high] = [Number(this.leastSlider.value), Number(this.mostSlider.value)];
    this.low = low === 0 ? -Infinity : this.#valueAt(low);
    this.high = high === NOTCHES ? Infinity : this.#valueAt(high);
    this.least.value = low === 0 ? "" : Number(this.low.toPrecision(5));
    this.most.value = high === NOTCHES ? "" : Number(this.high.toPrecision(5));
    this.filters.changed();
  }

  get isOpen() {
    return this.low === -Infinity && this.high === Infinity;
  }

  takes(number) {
    if (this.isOpen) return true;
    const value = this.filters.app.store.value(this.key, number);
    return typeof value === "number" && value >= this.low && value <= this.high;
  }
}

export class Filters {
  constructor(app, element) {
    this.app = app;
    this.text = el("input", { type: "search", placeholder: "Name contains", "aria-label": "Name contains", oninput: () => this.changed() });
    this.hiddenExperiments = new Set();
    this.experiments = el("ul");
    this.statuses = new Map(STATUSES.map((name) => [name, el("input", { type: "checkbox", checked: true, onchange: () => this.changed() })]));
    this.ranges = [];
    this.rangeList = el("div");
    this.column = el("select", { "aria-label": "Figure or setting of a new range" });
    const all = (isShown) => () => {
      this.hiddenExperiments = new Set(isShown ? [] : this.names());
      this.changed();
    };
    element.append(
      el("fieldset", {}, el("legend", {}, "Runs"), this.text),
      el("fieldset", {}, el("legend", {}, "Experiments"),
        el("div", { class: "row" },
          el("button", { type: "button", onclick: all(true) }, "All"), " ", el("button", { type: "button", onclick: all(false) }, "None")),
        this.experiments),
      el("fieldset", {}, el("legend", {}, "Status"), ...[...this.statuses].map(([name, box]) => el("label", {}, box, name))),
      el("fieldset", {}, el("legend", {}, "Ranges"), this.column, " ",
        el("button", { type: "button", onclick: () => this.add(this.column.value) }, "Add"), this.rangeList),
      el("button", { type: "button", onclick: () => this.clear() }, "Clear all filters"),
    );
  }

  names() {
    return this.app.store.factsOf("run:experiment").categories ?? [];
  }

  // After the runs have changed.
  refresh() {
    const { store } = this.app;
    fillSelect(this.column, store.groups({ numeric: true }), this.column.value || store.score());
    this.ranges.forEach((range) => range.refresh());
    const counts = new Map();
    for (const row of store.rows) counts.set(row.experiment, (counts.get(row.experiment) ?? 0) + 1);
    const names = this.names();
    const state = JSON.stringify([names.map((name) => [name, counts.get(name), this.hiddenExperiments.has(name)])]);
    if (state === this.state) return;
    this.state = state;
    const focused = this.experiments.contains(document.activeElement) ? document.activeElement.value : null;
    this.experiments.replaceChildren(...names.slice(0, 500).map((name, at) => {
      const toggle = (event) => {
        if (event.target.checked) this.hiddenExperiments.delete(name);
        else this.hiddenExperiments.add(name);
        this.changed();
      };
      const box = el("input", { type: "checkbox", checked: !this.hiddenExperiments.has(name), value: name, onchange: toggle });
      return el("li", {}, el("label", {}, box, dot(colorOfNumber(at)), el("span", {}, name), el("span", {}, String(counts.get(name)))));
    }));
    if (focused !== null) [...this.experiments.querySelectorAll("input")].find((x) => x.value === focused)?.focus();
  }

  add(key) {
    if (!key || this.ranges.some((range) => range.key === key)) return;
    const range = new Range(this, key);
    this.ranges.push(range);
    this.rangeList.append(range.element);
    range.least.focus();
  }

  remove(range) {
    this.ranges = this.ranges.filter((x) => x !== range);
    range.element.remove();
    this.column.focus();
    this.changed();
  }

  clear() {
    this.text.value = "";
    this.hiddenExperiments.clear();
    for (const box of this.statuses.values()) box.checked = true;
    this.ranges = [];
    this.rangeList.replaceChildren();
    this.changed();
  }

  changed() {
    this.refresh();
    this.app.filtered();
  }

  // The places of the rows that pass.
  passing() {
    const { store } = this.app;
    const text = this.text.value.trim().toLowerCase();
    const found = [];
    store.rows.forEach((row, number) => {
      if (this.hiddenExperiments.has(row.experiment) || !this.statuses.get(row.status)?.checked) return;
      if (text && !`${row.folder}/${row.name}`.toLowerCase().includes(text)) return;
      if (this.ranges.every((range) => range.takes(number))) found.push(number);
    });
    return found;
  }
}
