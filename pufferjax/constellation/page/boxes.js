// What each setting does to a figure: a box of quartiles for each of its values, or for each of six equal groups of them.

import { el } from "./dom.js";
import { colorOfNumber, format, quantile, short } from "./figures.js";
import { Picker, nameOf } from "./pickers.js";
import { Plane } from "./plane.js";

const MAX_VALUES = 8; // with a box each
const GROUPS = 6; // of more
const MAX_SETTINGS = 60;

// [{label, members: places in `values`}] for a column of values, in their order.
export function groupsOf(values, isNumeric) {
  const places = values.map((_, i) => i).filter((i) => values[i] !== null);
  const byValue = new Map();
  for (const i of places) {
    if (byValue.has(values[i])) byValue.get(values[i]).push(i);
    else byValue.set(values[i], [i]);
  }
  if (!isNumeric || byValue.size <= MAX_VALUES) {
    const groups = [...byValue].map(([value, members]) => ({ value, label: isNumeric ? format(value) : String(value), members }));
    if (isNumeric) return groups.sort((a, b) => a.value - b.value);
    return groups.sort((a, b) => b.members.length - a.members.length).slice(0, MAX_VALUES).sort((a, b) => (a.label < b.label ? -1 : 1));
  }
  places.sort((a, b) => values[a] - values[b]);
  const groups = [];
  for (let at = 0; at < GROUPS; at++) {
    const members = places.slice(Math.round((at * places.length) / GROUPS), Math.round(((at + 1) * places.length) / GROUPS));
    if (members.length) groups.push({ label: `${short(values[members[0]])}–${short(values[members[members.length - 1]])}`, members });
  }
  return groups;
}

export class Boxes {
  title = "Settings";

  constructor(app) {
    this.app = app;
    this.figure = new Picker(app, "Figure", { start: (store) => store.score(), numeric: true });
    this.grid = el("div", { class: "grid" });
    this.note = el("p", { class: "note" });
    this.planes = new Map(); // key -> {element, plane}
    this.element = [el("div", { class: "pickers" }, this.figure.element), this.note, this.grid];
  }

  draw() {
    const { store } = this.app;
    this.figure.refresh();
    const shown = this.app.shown();
    const figure = store.columns.get(this.figure.key) ?? [];
    const keys = store.differing().filter((key) => store.factsOf(key).distinct > 1);
    this.note.textContent = keys.length
      ? `${nameOf(this.figure.key)} by each of the ${keys.length} settings that differ: least, quartiles, most` +
        (keys.length > MAX_SETTINGS ? `; the first ${MAX_SETTINGS} of them` : "")
      : "No setting differs between these runs.";
    const elements = keys.slice(0, MAX_SETTINGS).map((key) => {
      const { element, plane } = this.#plane(key);
      const rows = shown.filter((i) => figure[i] !== null && figure[i] !== undefined);
      const groups = groupsOf(rows.map((i) => store.columns.get(key)[i]), store.factsOf(key).isNumeric);
      const boxes = groups.map(({ members }, at) => {
        const sorted = Float64Array.from(members, (i) => figure[rows[i]]).sort();
        return { at, quantiles: [0, 0.25, 0.5, 0.75, 1].map((share) => quantile(sorted, share)), color: colorOfNumber(0) };
      });
      requestAnimationFrame(() =>
        plane.show({
          x: { scale: "linear", label: nameOf(key), categories: groups.map((group) => group.label) },
          y: { scale: this.figure.scale, label: nameOf(this.figure.key), categories: null },
          boxes, what: `${nameOf(this.figure.key)} by ${nameOf(key)}: ${boxes.length} boxes`,
        }),
      );
      return element;
    });
    this.grid.replaceChildren(...elements);
  }

  #plane(key) {
    if (!this.planes.has(key)) {
      const element = el("div", { class: "plot small" });
      this.planes.set(key, { element, plane: new Plane(element) });
    }
    return this.planes.get(key);
  }
}
