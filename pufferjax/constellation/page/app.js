// The page: its views, which runs are shown, which one is open, and asking for what is new.

import { Boxes } from "./boxes.js";
import { Curves } from "./curves.js";
import { el, hideHint } from "./dom.js";
import { Filters } from "./filters.js";
import { Pareto } from "./pareto.js";
import { Run } from "./run.js";
import { Scatter } from "./scatter.js";
import { makeSource } from "./source.js";
import { Store } from "./store.js";
import { Table } from "./table.js";

const SECONDS_BETWEEN = 2;

class App {
  constructor() {
    this.source = makeSource();
    this.store = new Store();
    this.openedId = null;
    this.filters = new Filters(this, document.getElementById("filters"));
    this.panel = document.getElementById("view");
    this.views = { scatter: new Scatter(this), cost: new Pareto(this), settings: new Boxes(this), curves: new Curves(this), table: new Table(this), run: new Run(this) };
    this.tabs = document.getElementById("tabs");
    for (const [name, view] of Object.entries(this.views)) {
      const show = () => this.go(name === "run" && this.openedId ? `run/${this.openedId}` : name);
      this.tabs.append(el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "view", onclick: show }, view.title));
    }
    this.tabs.addEventListener("keydown", (event) => this.#tabKey(event));
    addEventListener("hashchange", () => this.#route());
    addEventListener("keydown", (event) => {
      if (event.key === "Escape") hideHint();
    });
  }

  async start() {
    await this.#ask();
    this.#route();
    if (this.source.isLive) setInterval(() => this.#ask(), 1000 * SECONDS_BETWEEN);
    document.documentElement.dataset.ready = "yes";
  }

  go(hash) {
    if (location.hash === `#${hash}`) this.#route();
    else location.hash = hash;
  }

  open(id) {
    this.go(`run/${id}`);
  }

  #route() {
    const [name, id] = decodeURIComponent(location.hash.slice(1)).split("/");
    const chosen = Object.hasOwn(this.views, name) ? name : "scatter";
    if (chosen === "run" && id) this.openedId = id;
    for (const tab of this.tabs.children) {
      const isChosen = tab.id === `tab-${chosen}`;
      tab.setAttribute("aria-selected", isChosen);
      tab.tabIndex = isChosen ? 0 : -1;
    }
    this.panel.setAttribute("aria-labelledby", `tab-${chosen}`);
    hideHint();
    if (this.view !== this.views[chosen]) {
      this.view = this.views[chosen];
      this.panel.replaceChildren(...this.view.element);
      this.panel.scrollTop = 0;
    }
    this.draw();
  }

  #tabKey(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const tabs = [...this.tabs.children];
    const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
    event.preventDefault();
  }

  // The places of the rows that pass the filters.
  shown() {
    this.passing ??= this.filters.passing();
    return this.passing;
  }

  filtered() {
    this.passing = null;
    this.draw();
  }

  // One drawing at a time, and one more after it if something has changed meanwhile.
  async draw() {
    if (!this.view) return;
    if (this.isDrawing) {
      this.isDrawAsked = true;
      return;
    }
    this.isDrawing = true;
    do {
      this.isDrawAsked = false;
      this.#count();
      try {
        await this.view.draw();
      } catch (error) {
        this.say(error.message);
        console.error(error);
      }
    } while (this.isDrawAsked);
    this.isDrawing = false;
  }

  #count() {
    const live = this.store.rows.filter((row) => row.status === "live").length;
    const shown = this.shown().length;
    const all = this.store.rows.length;
    this.say(`${shown === all ? all : `${shown} of ${all}`} runs${live ? `, ${live} live` : ""}${this.source.isLive ? "" : " · exported"}`);
  }

  say(text) {
    const state = document.getElementById("state");
    if (state.textContent !== text) state.textContent = text;
  }

  async #ask() {
    if (this.isAsking || (this.store.version && document.hidden)) return;
    this.isAsking = true;
    try {
      if (this.store.apply(await this.source.runs(this.store.version))) {
        this.passing = null;
        this.filters.refresh();
        await this.draw();
      } else if (this.isLost) this.#count();
      else this.view?.tick?.();
      this.isLost = false;
    } catch (error) {
      this.isLost = true;
      this.say(`the server does not answer (${error.message})`);
    }
    this.isAsking = false;
  }
}

const app = new App();
app.start();
