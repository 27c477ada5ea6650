// One epoch as a diagram, its numbers filled in from the latest line of metrics.

import { el } from "./dom.js";
import { short } from "./figures.js";

const WRITTEN = {
  count: (value) => Math.round(value).toLocaleString("en-US"),
  percent: (value) => `${Number((100 * value).toPrecision(3))} %`,
  short,
};

// The figures of a line, and what follows from them.
function withDerived(last, settings) {
  const figures = { ...settings, ...last };
  if (last.epoch > 0 && last.step > 0) {
    figures.epoch_steps = last.step / last.epoch;
    if (last.steps_per_second > 0) figures.epoch_ms = (1000 * figures.epoch_steps) / last.steps_per_second;
  }
  return figures;
}

export class Flow {
  constructor(source) {
    this.element = el("div", { class: "flow-picture" });
    this.ready = source.svg().then((text) => {
      const svg = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
      this.element.replaceChildren(document.importNode(svg, true));
    });
  }

  // last: figures of the latest line; settings: numbers by name.
  async show(last, settings, isLive) {
    await this.ready;
    this.element.classList.toggle("live", isLive);
    const figures = withDerived(last, settings);
    for (const text of this.element.querySelectorAll("[data-figure], [data-figures]")) {
      const names = (text.dataset.figures ?? text.dataset.figure).split(" ");
      const values = names.map((name) => figures[name]);
      const write = WRITTEN[text.dataset.format];
      const written = values.map((value) => (typeof value === "number" ? write(value) : "–")).join(" / ");
      this.#put(text, `${written} ${text.dataset.label}`);
    }
    const stages = Object.keys(figures).filter((name) => name.startsWith("stage_seconds."));
    const total = stages.reduce((sum, name) => sum + figures[name], 0);
    for (const text of this.element.querySelectorAll("[data-stage]")) {
      const seconds = figures[`stage_seconds.${text.dataset.stage}`];
      const share = total > 0 ? `, ${Math.round((100 * seconds) / total)} %` : "";
      this.#put(text, typeof seconds === "number" ? `${short(1000 * seconds)} ms${share}` : "");
    }
  }

  #put(text, content) {
    if (text.textContent === content) return;
    text.textContent = content;
    if (!this.isFilled) return setTimeout(() => (this.isFilled = true));
    text.classList.add("changed");
    setTimeout(() => text.classList.remove("changed"), 600);
  }
}
