// Numbers: scales of axes and their ticks, how a number is written, colours, quantiles.

export const SCALES = ["linear", "log", "logit"];

// A value as a coordinate; NaN where the scale has no place for it.
export function place(scale, value) {
  if (typeof value !== "number") return NaN;
  if (scale === "log") return value > 0 ? Math.log10(value) : NaN;
  if (scale === "logit") return value > 0 && value < 1 ? Math.log(value / (1 - value)) : NaN;
  return value;
}

export function valueAt(scale, at) {
  if (scale === "log") return 10 ** at;
  if (scale === "logit") return 1 / (1 + Math.exp(-at));
  return at;
}

export function format(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-4 || size >= 1e9) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
}

// At most seven characters: 1.23M.
export function short(value) {
  const size = Math.abs(value);
  for (const [unit, factor] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (size >= factor) return `${Number((value / factor).toPrecision(3))}${unit}`;
  }
  return size !== 0 && size < 1e-3 ? value.toExponential(1).replace("e-", "e−") : String(Number(value.toPrecision(3)));
}

// [{at, text}] between two coordinates of a scale.
export function ticksOf(scale, low, high, count = 6) {
  if (!(high > low)) return [{ at: low, text: short(valueAt(scale, low)) }];
  if (scale === "log") {
    const step = Math.max(1, Math.ceil((high - low) / count));
    const ticks = [];
    for (let at = Math.floor(low); at <= high; at += step) {
      const factors = high - low < 1 ? [1, 1.5, 2, 3, 4, 5, 6, 8] : high - low < count / 2 ? [1, 2, 5] : [1];
      for (const factor of factors) ticks.push({ at: at + Math.log10(factor), text: short(factor * 10 ** at) });
    }
    const inside = ticks.filter(({ at }) => at >= low && at <= high);
    if (inside.length >= 2) return inside;
  }
  if (scale === "logit") {
    const values = [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999];
    const inside = values.filter((value) => place("logit", value) >= low && place("logit", value) <= high);
    if (inside.length >= 2) {
      const step = Math.ceil(inside.length / count);
      return inside.filter((_, i) => i % step === 0).map((value) => ({ at: place("logit", value), text: String(value) }));
    }
  }
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) {
    ticks.push({ at: i * step, text: short(valueAt(scale, Math.abs(i * step) < step / 1e6 ? 0 : i * step)) });
  }
  return ticks;
}

// The lowest and highest finite number; null if there is none.
export function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low && value > -Infinity) low = value;
    if (value > high && value < Infinity) high = value;
  }
  return low <= high ? [low, high] : null;
}

export function quantile(sorted, share) {
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}

// The mean of what lies between the quartiles; values at their border count in part.
export function interquartileMean(sorted) {
  const cut = sorted.length / 4;
  let total = 0;
  let weights = 0;
  for (let i = 0; i < sorted.length; i++) {
    const weight = Math.max(0, Math.min(i + 1, sorted.length - cut) - Math.max(i, cut));
    total += weight * sorted[i];
    weights += weight;
  }
  return total / weights;
}

const VIRIDIS = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99],
  [170, 220, 50], [253, 231, 37],
];

export function viridis(share) {
  const at = Math.max(0, Math.min(1, share)) * (VIRIDIS.length - 1);
  const below = Math.min(Math.floor(at), VIRIDIS.length - 2);
  const mixed = VIRIDIS[below].map((x, i) => Math.round(x + (at - below) * (VIRIDIS[below + 1][i] - x)));
  return `rgb(${mixed.join(",")})`;
}

const PALETTE = [
  "#2a9d8f", "#e76f51", "#4c78c8", "#d4a017", "#a05fc4", "#59a14f", "#d6336c", "#7f8c99", "#17a2b8", "#9c6644",
  "#8cb33e", "#6c5ce7",
];

export function colorOfNumber(number) {
  return PALETTE[number % PALETTE.length];
}

export const NO_COLOR = "#8a8f98";
