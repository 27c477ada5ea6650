// The runs as a table with what differs between them.

import { el } from "./dom.js";
import { format } from "./figures.js";
import { nameOf } from "./pickers.js";

const PAGE = 100; // rows
const MAX_SETTINGS = 40;
const FIGURES = ["figure:step", "figure:wall_seconds", "figure:steps_per_second"];

export class Table {
  title = "Table";

  constructor(app) {
    this.app = app;
    this.key = "run:experiment";
    this.isDescending = false;
    this.page = 0;
    this.table = el("table");
    this.pages = el("div", { class: "pages" });
    this.note = el("p", { class: "note" });
    this.element = [this.note, el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Runs" }, this.table), this.pages];
  }

  columns() {
    const { store } = this.app;
    const settings = store.differing();
    this.left = Math.max(0, settings.length - MAX_SETTINGS);
    const figures = [store.score(), ...FIGURES].filter((key) => store.factsOf(key).count);
    return ["run:experiment", "run:name", "run:status", ...new Set(figures), ...settings.slice(0, MAX_SETTINGS)];
  }

  sorted() {
    const { store } = this.app;
    const column = store.columns.get(this.key) ?? [];
    const sign = this.isDescending ? -1 : 1;
    const order = (a, b) => {
      const [x, y] = [column[a] ?? null, column[b] ?? null];
      if (x === null || y === null) return (x === null) - (y === null); // the missing ones last, either way
      if (typeof x === "number" && typeof y === "number") return sign * (x - y);
      return sign * String(x).localeCompare(String(y), "en", { numeric: true });
    };
    return [...this.app.shown()].sort((a, b) => order(a, b) || a - b);
  }

  draw() {
    const { store } = this.app;
    const columns = this.columns();
    const rows = this.sorted();
    const last = Math.max(0, Math.ceil(rows.length / PAGE) - 1);
    this.page = Math.min(this.page, last);
    const focused = this.table.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    const head = el("tr", {}, ...columns.map((key) => this.#head(key)));
    const body = rows.slice(this.page * PAGE, (this.page + 1) * PAGE).map((number) => this.#row(number, columns));
    this.table.replaceChildren(el("thead", {}, head), el("tbody", {}, ...body));
    if (focused) [...this.table.querySelectorAll("[data-focus]")].find((x) => x.dataset.focus === focused)?.focus();
    const go = (page) => () => {
      this.page = page;
      this.draw();
    };
    this.pages.replaceChildren(
      el("button", { type: "button", disabled: this.page === 0, onclick: go(this.page - 1) }, "Back"),
      `page ${this.page + 1} of ${last + 1}`,
      el("button", { type: "button", disabled: this.page === last, onclick: go(this.page + 1) }, "Next"),
    );
    const broken = rows.filter((number) => store.rows[number].problem).length;
    this.note.textContent =
      `${rows.length} runs${broken ? `, of which ${broken} cannot be read in part or at all` : ""}` +
      (this.left ? `; ${this.left} more settings differ than fit here` : "");
  }

  #head(key) {
    const isSorted = key === this.key;
    const sort = isSorted ? (this.isDescending ? "descending" : "ascending") : "none";
    const mark = isSorted ? (this.isDescending ? " ▼" : " ▲") : "";
    const click = () => {
      // Figures begin with the highest.
      this.isDescending = isSorted ? !this.isDescending : key.startsWith("figure:");
      this.key = key;
      this.page = 0;
      this.draw();
    };
    return el("th", { scope: "col", "aria-sort": sort }, el("button", { type: "button", "data-focus": key, onclick: click }, nameOf(key) + mark));
  }

  #row(number, columns) {
    const { store } = this.app;
    const row = store.rows[number];
    const open = () => this.app.open(row.id);
    const cells = columns.map((key) => {
      const value = store.value(key, number);
      if (key === "run:name") {
        const click = (event) => {
          event.stopPropagation();
          open();
        };
        return el("td", {}, el("button", { type: "button", "data-focus": row.id, onclick: click }, row.name));
      }
      if (key === "run:status") {
        const status = el("td", { class: `status-${row.status}` }, row.status);
        if (row.problem) status.append(el("div", { class: "problem" }, row.problem));
        return status;
      }
      return el("td", { class: typeof value === "number" ? "number" : null, title: typeof value === "string" ? value : null }, format(value));
    });
    return el("tr", { class: "run", onclick: open }, ...cells);
  }
}
