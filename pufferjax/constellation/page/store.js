// The runs as columns. A column's key tells its kind: "figure:perf", "setting:ppo.gamma", "run:experiment".

const RUN_COLUMNS = ["experiment", "name", "status"];
const SCORES = ["evaluation.perf", "perf", "evaluation.score", "score", "evaluation.episode_return", "episode_return"];
const COSTS = ["wall_seconds", "train_seconds", "step"];

export class Store {
  constructor() {
    this.version = "";
    this.clear();
  }

  clear() {
    this.rows = []; // {id, folder, experiment, name, status, problem, change}
    this.columns = new Map(); // key -> [value of each row or null]
    this.numbers = new Map(); // id -> its place in rows
    this.facts = new Map(); // key -> {isNumeric, distinct}, made when asked for
  }

  // Takes what the server says has changed; whether anything has.
  apply(changes) {
    if (changes.is_all) this.clear();
    this.version = changes.version;
    if (!changes.is_all && !changes.rows.length && !changes.removed.length) return false;
    this.facts.clear();
    this.#remove(new Set(changes.removed));
    for (const [id, folder, name, status, problem, settings, figures] of changes.rows) {
      let number = this.numbers.get(id);
      if (number === undefined) {
        number = this.rows.length;
        this.numbers.set(id, number);
        for (const column of this.columns.values()) column.push(null);
        this.rows.push({ id, change: 0 });
      } else {
        for (const column of this.columns.values()) column[number] = null;
      }
      const row = this.rows[number];
      Object.assign(row, { folder: changes.folders[folder], name, status, problem, change: row.change + 1 });
      settings.forEach((value, i) => {
        if (value >= 0) this.#column(`setting:${changes.setting_names[i]}`)[number] = changes.values[value];
      });
      figures.forEach((value, i) => {
        if (value !== null) this.#column(`figure:${changes.figure_names[i]}`)[number] = value;
      });
    }
    this.#nameExperiments();
    return true;
  }

  #column(key) {
    let column = this.columns.get(key);
    if (!column) this.columns.set(key, (column = new Array(this.rows.length).fill(null)));
    return column;
  }

  #remove(ids) {
    if (!ids.size) return;
    const stays = this.rows.map((row) => !ids.has(row.id));
    for (const [key, column] of this.columns) this.columns.set(key, column.filter((_, i) => stays[i]));
    this.rows = this.rows.filter((_, i) => stays[i]);
    this.numbers = new Map(this.rows.map((row, i) => [row.id, i]));
  }

  // The folder above a run; with its path where two of them have the same name.
  #nameExperiments() {
    const folders = new Map();
    for (const { folder } of this.rows) {
      const name = folder.slice(folder.lastIndexOf("/") + 1);
      folders.set(name, (folders.get(name) ?? new Set()).add(folder));
    }
    for (const row of this.rows) {
      const name = row.folder.slice(row.folder.lastIndexOf("/") + 1);
      row.experiment = folders.get(name).size > 1 ? row.folder : name;
    }
    for (const name of RUN_COLUMNS) this.columns.set(`run:${name}`, this.rows.map((row) => row[name]));
  }

  value(key, number) {
    return this.columns.get(key)?.[number] ?? null;
  }

  // {isNumeric, distinct: count up to 1000, categories: sorted texts unless numeric, counts: how many rows have a value}
  factsOf(key) {
    let facts = this.facts.get(key);
    if (!facts) {
      const distinct = new Set();
      let isNumeric = true;
      let count = 0;
      for (const value of this.columns.get(key) ?? []) {
        if (value === null) continue;
        count++;
        if (typeof value !== "number") isNumeric = false;
        distinct.add(value);
      }
      const categories = isNumeric && count ? null : [...distinct].map(String).sort();
      facts = { isNumeric: isNumeric && count > 0, distinct: distinct.size, categories, count };
      this.facts.set(key, facts);
    }
    return facts;
  }

  // Keys of the settings of which runs have different values, or some none.
  differing() {
    return this.#keys("setting:").filter((key) => {
      const { distinct, count } = this.factsOf(key);
      return distinct > 1 || (distinct === 1 && count < this.rows.length && !this.#isOfAllGood(key, count));
    });
  }

  #isOfAllGood(key, count) {
    const good = this.rows.filter((row) => row.status !== "broken").length;
    return count >= good;
  }

  #keys(prefix) {
    return [...this.columns.keys()].filter((key) => key.startsWith(prefix)).sort();
  }

  // For a drop-down list of columns.
  groups({ numeric = false, none = null } = {}) {
    const differing = new Set(this.differing());
    const option = (key) => [key, key.slice(key.indexOf(":") + 1)];
    const fits = (key) => !numeric || this.factsOf(key).isNumeric;
    const settings = this.#keys("setting:").filter(fits);
    return {
      ...(none ? { "": [["", none]] } : {}),
      Figures: this.#keys("figure:").filter(fits).map(option),
      "Settings that differ": settings.filter((key) => differing.has(key)).map(option),
      Run: numeric ? [] : ["run:experiment", "run:status"].map(option),
      "Other settings": settings.filter((key) => !differing.has(key)).map(option),
    };
  }

  #first(names, otherwise) {
    return names.map((name) => `figure:${name}`).find((key) => this.factsOf(key).count > 0) ?? otherwise;
  }

  score() {
    return this.#first(SCORES, "figure:perf");
  }

  cost() {
    return this.#first(COSTS, "figure:wall_seconds");
  }

  // Figures that have a curve: those of the lines, not of the final evaluation.
  curveFigures() {
    const names = this.#keys("figure:").map((key) => key.slice("figure:".length));
    return names.filter((name) => !name.startsWith("evaluation.") && !/^(train|total)_seconds$/.test(name));
  }

  settingsOf(number) {
    return this.#keys("setting:")
      .map((key) => [key.slice("setting:".length), this.columns.get(key)[number]])
      .filter(([, value]) => value !== null);
  }

  figuresOf(number) {
    return this.#keys("figure:")
      .map((key) => [key.slice("figure:".length), this.columns.get(key)[number]])
      .filter(([, value]) => value !== null);
  }
}
