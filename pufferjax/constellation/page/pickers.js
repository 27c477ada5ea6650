// Choosing columns and scales, and what a chosen column is on an axis or as colours.

import { dot, el, fillSelect } from "./dom.js";
import { NO_COLOR, SCALES, colorOfNumber, extent, format, place, viridis } from "./figures.js";

// A column and, if `scales`, a scale. `start`: a function of the store for the first choice.
export class Picker {
  constructor(app, label, { start, numeric = false, scales = true, scale = "linear", none = null }) {
    this.app = app;
    this.start = start;
    this.options = { numeric, none };
    this.isChosen = false;
    this.column = el("select", { "aria-label": label, onchange: () => this.#changed() });
    this.scaling = el("select", { "aria-label": `${label}: scale`, onchange: () => app.draw() });
    this.scaling.append(...SCALES.map((name) => el("option", { value: name }, name)));
    this.scaling.value = scale;
    this.scaling.hidden = !scales;
    this.element = el("span", { class: "picker" }, `${label} `, this.column, this.scaling);
  }

  #changed() {
    this.isChosen = true;
    this.app.draw();
  }

  refresh() {
    const chosen = this.isChosen ? this.column.value : this.start(this.app.store);
    fillSelect(this.column, this.app.store.groups(this.options), chosen);
  }

  get key() {
    return this.column.value;
  }

  get scale() {
    return this.app.store.factsOf(this.key).isNumeric ? this.scaling.value : "linear";
  }
}

export function nameOf(key) {
  return key.slice(key.indexOf(":") + 1);
}

// {scale, label, categories, values} of a column for the rows of `numbers`.
export function axisOf(store, key, scale, numbers) {
  const { isNumeric, categories } = store.factsOf(key);
  const column = store.columns.get(key) ?? [];
  const label = nameOf(key);
  if (isNumeric || !categories) return { scale, label, categories: null, values: numbers.map((i) => column[i] ?? null) };
  const order = new Map(categories.map((text, at) => [text, at]));
  const values = numbers.map((i) => (column[i] === null || column[i] === undefined ? null : order.get(String(column[i]))));
  return { scale: "linear", label, categories, values };
}

// {colors, legend: elements} of a column for the rows of `numbers`.
export function colorsOf(store, key, scale, numbers) {
  if (!key) return { colors: numbers.map(() => colorOfNumber(0)), legend: [] };
  const { categories, values } = axisOf(store, key, scale, numbers);
  if (categories) {
    const colors = values.map((at) => (at === null ? NO_COLOR : colorOfNumber(at)));
    const present = [...new Set(values)].filter((at) => at !== null).sort((a, b) => a - b);
    const legend = present.slice(0, 40).map((at) => el("span", {}, dot(colorOfNumber(at)), categories[at] || "(empty)"));
    if (present.length > 40) legend.push(el("span", {}, `and ${present.length - 40} more, in the same colours again`));
    return { colors, legend };
  }
  const placed = values.map((value) => place(scale, value));
  const [low, high] = extent(placed) ?? [0, 1];
  const share = (at) => (high > low ? (at - low) / (high - low) : 0.5);
  const colors = placed.map((at) => (Number.isNaN(at) ? NO_COLOR : viridis(share(at))));
  const kept = values.filter((_, i) => !Number.isNaN(placed[i]));
  const [least, most] = extent(kept) ?? [null, null];
  const legend = [
    el("span", {}, nameOf(key)),
    el("span", {}, dot(viridis(0)), format(least)),
    el("span", {}, dot(viridis(1)), format(most)),
    el("span", {}, dot(NO_COLOR), "none"),
  ];
  return { colors, legend };
}

// What is said of a run where the pointer is.
export function hintOf(store, number, keys) {
  const row = store.rows[number];
  const lines = keys.filter((key) => key).map((key) => `${nameOf(key)}  ${format(store.value(key, number))}`);
  return [`${row.experiment} / ${row.name}`, ...new Set(lines)].join("\n");
}
