// A plot in the plane, on a canvas, fluid with ten thousand points: axes of any scale, points, lines, bands and boxes.
// Wheel: zoom. Drag: move. Double click: all of it again. Keys: arrows go from point to point, Enter opens one, + - 0 zoom.

import { cssColor, el, hideHint, showHint } from "./dom.js";
import { extent, place, ticksOf } from "./figures.js";

const MARGIN = { left: 74, right: 14, top: 10, bottom: 40 };
const MANY = 1000; // points
const REACH = 12; // pixels between a pointer and the point it means

export class Plane {
  // onOpen(index), hintOf(index): of a point; without them points are not for picking.
  constructor(container, { onOpen = null, hintOf = null } = {}) {
    this.canvas = el("canvas", { tabindex: onOpen ? "0" : "-1", role: "img" });
    container.append(this.canvas);
    this.onOpen = onOpen;
    this.hintOf = hintOf;
    this.content = null;
    this.zoomed = null; // {x: [low, high], y: [low, high]}, coordinates
    this.picked = -1;
    new ResizeObserver(() => this.draw()).observe(container);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.#listen();
  }

  // axis: {scale, label, categories: texts at 0, 1, ... or null}; all x and y are values, indices where there are
  // categories. points: {x, y, colors, rings: indices}; lines: [{x, y, color, width}]; bands: [{x, low, high, color}];
  // boxes: [{at, quantiles: [5], color}]; what: said to those who do not see it.
  show(content) {
    const axes = JSON.stringify([content.x.label, content.x.scale, content.y.label, content.y.scale]);
    if (axes !== this.axes) this.zoomed = null;
    this.axes = axes;
    this.content = { points: null, lines: [], bands: [], boxes: [], ...content };
    const { x, y, points } = this.content;
    const placed = (axis, values) => Float64Array.from(values, (value) => place(axis.categories ? "linear" : axis.scale, value));
    this.px = points ? placed(x, points.x) : new Float64Array();
    this.py = points ? placed(y, points.y) : new Float64Array();
    this.px.forEach((_, i) => {
      if (Number.isNaN(this.px[i] + this.py[i])) this.px[i] = this.py[i] = NaN; // nor do the axes reach for it
    });
    this.placedLines = this.content.lines.map((line) => ({ ...line, x: placed(x, line.x), y: placed(y, line.y) }));
    this.placedBands = this.content.bands.map((band) => ({
      ...band, x: placed(x, band.x), low: placed(y, band.low), high: placed(y, band.high),
    }));
    this.placedBoxes = this.content.boxes.map((box) => ({ ...box, quantiles: placed(y, box.quantiles) }));
    this.home = { x: this.#range(x, "x"), y: this.#range(y, "y") };
    if (this.picked >= this.px.length) this.picked = -1;
    this.canvas.setAttribute("aria-label", content.what);
    this.draw();
  }

  #range(axis, name) {
    if (axis.categories) return [-0.5, Math.max(axis.categories.length, 1) - 0.5];
    const parts = [name === "x" ? this.px : this.py];
    for (const line of this.placedLines) parts.push(line[name]);
    for (const band of this.placedBands) parts.push(...(name === "x" ? [band.x] : [band.low, band.high]));
    for (const box of this.placedBoxes) parts.push(name === "x" ? [box.at - 0.5, box.at + 0.5] : box.quantiles);
    const ends = parts.map(extent).filter((x) => x !== null);
    if (!ends.length) return [0, 1];
    const low = Math.min(...ends.map((x) => x[0]));
    const high = Math.max(...ends.map((x) => x[1]));
    const room = (high - low) * 0.04 || Math.abs(low) * 0.1 || 0.5;
    return [low - room, high + room];
  }

  get range() {
    return this.zoomed ?? this.home;
  }

  draw() {
    const { canvas, content } = this;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!content || !width || !height) return;
    const ratio = devicePixelRatio || 1;
    const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== columns) canvas.width = columns;
    if (canvas.height !== rows) canvas.height = rows;
    // Drawn by the processor: what is drawn here is little, and many points come as pixels.
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
    const { x, y } = this.range;
    this.toX = (at) => MARGIN.left + ((at - x[0]) / (x[1] - x[0])) * inner.width;
    this.toY = (at) => MARGIN.top + inner.height - ((at - y[0]) / (y[1] - y[0])) * inner.height;
    this.inner = inner;
    this.#axes(context, inner, width, height);
    context.save();
    context.beginPath();
    context.rect(MARGIN.left, MARGIN.top, inner.width, inner.height);
    context.clip();
    this.placedBands.forEach((band) => this.#band(context, band));
    this.placedBoxes.forEach((box) => this.#box(context, box));
    if (content.linesBelow) this.placedLines.forEach((line) => this.#line(context, line));
    this.#points(context);
    if (!content.linesBelow) this.placedLines.forEach((line) => this.#line(context, line));
    context.restore();
  }

  #axes(context, inner, width, height) {
    const { content } = this;
    const text = cssColor("--soft");
    context.font = "12px system-ui, sans-serif";
    context.lineWidth = 1;
    context.strokeStyle = cssColor("--line");
    context.fillStyle = text;
    const ticks = (axis, [low, high], count) =>
      axis.categories
        ? axis.categories.map((label, at) => ({ at, text: label })).filter(({ at }) => at >= low && at <= high)
        : ticksOf(axis.scale, low, high, count);
    context.textAlign = "center";
    context.textBaseline = "top";
    const across = ticks(content.x, this.range.x, Math.max(2, Math.floor(inner.width / 80)));
    const room = Math.max(3, Math.floor(inner.width / Math.max(across.length, 1) / 7));
    for (const { at, text: label } of across) {
      const left = Math.round(this.toX(at)) + 0.5;
      context.beginPath();
      context.moveTo(left, MARGIN.top);
      context.lineTo(left, MARGIN.top + inner.height);
      context.stroke();
      context.fillText(label.length > room ? `${label.slice(0, room - 1)}…` : label, left, MARGIN.top + inner.height + 5);
    }
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const { at, text: label } of ticks(content.y, this.range.y, Math.max(2, Math.floor(inner.height / 45)))) {
      const top = Math.round(this.toY(at)) + 0.5;
      context.beginPath();
      context.moveTo(MARGIN.left, top);
      context.lineTo(MARGIN.left + inner.width, top);
      context.stroke();
      context.fillText(label.length > 8 ? `${label.slice(0, 7)}…` : label, MARGIN.left - 5, top);
    }
    context.textAlign = "center";
    context.textBaseline = "bottom";
    context.fillStyle = cssColor("--text");
    context.fillText(content.x.label, MARGIN.left + inner.width / 2, height - 2, inner.width);
    context.save();
    context.translate(11, MARGIN.top + inner.height / 2);
    context.rotate(-Math.PI / 2);
    context.textBaseline = "middle";
    context.fillText(content.y.label, 0, 0, inner.height);
    context.restore();
  }

  #points(context) {
    const { points } = this.content;
    if (!points) return;
    const count = this.px.length;
    const size = count > 3000 ? 2 : count > 500 ? 3 : 4;
    context.globalAlpha = count > MANY ? 0.75 : 0.9;
    if (count > MANY) this.#squares(context, points.colors, size);
    for (let i = 0; i < (count > MANY ? 0 : count); i++) {
      if (Number.isNaN(this.px[i])) continue;
      context.fillStyle = points.colors[i];
      context.beginPath();
      context.arc(this.toX(this.px[i]), this.toY(this.py[i]), size, 0, 2 * Math.PI);
      context.fill();
    }
    context.globalAlpha = 1;
    context.strokeStyle = cssColor("--text");
    context.lineWidth = 2;
    for (const i of [...(points.rings ?? []), ...(this.picked >= 0 ? [this.picked] : [])]) {
      if (Number.isNaN(this.px[i] + this.py[i])) continue;
      context.beginPath();
      context.arc(this.toX(this.px[i]), this.toY(this.py[i]), size + 3, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  // Many points, as pixels: some milliseconds for ten thousand, with a graphics card or without.
  #squares(context, colors, size) {
    const ratio = devicePixelRatio || 1;
    const [width, height] = [this.canvas.width, this.canvas.height];
    this.sheet ??= document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    [this.sheet.canvas.width, this.sheet.canvas.height] = [width, height];
    const image = this.sheet.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const known = new Map(); // colour -> pixel
    const reach = Math.max(1, Math.round(size * ratio));
    for (let i = 0; i < colors.length; i++) {
      if (Number.isNaN(this.px[i])) continue;
      if (!known.has(colors[i])) known.set(colors[i], this.#pixel(colors[i]));
      const pixel = known.get(colors[i]);
      const [x, y] = [Math.round(this.toX(this.px[i]) * ratio), Math.round(this.toY(this.py[i]) * ratio)];
      const [left, right] = [Math.max(0, x - reach), Math.min(width - 1, x + reach)];
      for (let row = Math.max(0, y - reach); row <= Math.min(height - 1, y + reach); row++) {
        for (let column = left; column <= right; column++) pixels[row * width + column] = pixel;
      }
    }
    this.sheet.putImageData(image, 0, 0);
    context.drawImage(this.sheet.canvas, 0, 0, width / ratio, height / ratio);
  }

  // A CSS colour as the four bytes of a pixel.
  #pixel(color) {
    this.sheet.fillStyle = color;
    this.sheet.fillRect(0, 0, 1, 1);
    return new Uint32Array(this.sheet.getImageData(0, 0, 1, 1).data.buffer)[0];
  }

  #line(context, { x, y, color, width = 2 }) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.lineJoin = "round";
    context.beginPath();
    let isDrawing = false;
    for (let i = 0; i < x.length; i++) {
      const isThere = !Number.isNaN(x[i] + y[i]);
      if (isThere && isDrawing) context.lineTo(this.toX(x[i]), this.toY(y[i]));
      else if (isThere) context.moveTo(this.toX(x[i]), this.toY(y[i]));
      if (isThere && x.length === 1) context.arc(this.toX(x[i]), this.toY(y[i]), 2, 0, 2 * Math.PI);
      isDrawing = isThere;
    }
    context.stroke();
  }

  #band(context, { x, low, high, color }) {
    context.fillStyle = color;
    context.globalAlpha = 0.18;
    context.beginPath();
    const kept = [...x.keys()].filter((i) => !Number.isNaN(x[i] + low[i] + high[i]));
    for (const i of kept) context.lineTo(this.toX(x[i]), this.toY(high[i]));
    for (const i of kept.reverse()) context.lineTo(this.toX(x[i]), this.toY(low[i]));
    context.fill();
    context.globalAlpha = 1;
  }

  #box(context, { at, quantiles, color }) {
    const [lowest, low, middle, high, highest] = [...quantiles].map((value) => this.toY(value));
    const left = this.toX(at - 0.3);
    const right = this.toX(at + 0.3);
    const center = (left + right) / 2;
    context.strokeStyle = color;
    context.fillStyle = color;
    context.lineWidth = 1.5;
    context.globalAlpha = 0.25;
    context.fillRect(left, high, right - left, low - high);
    context.globalAlpha = 1;
    context.strokeRect(left, high, right - left, low - high);
    context.beginPath();
    for (const [x1, y1, x2, y2] of [
      [left, middle, right, middle], [center, high, center, highest], [center, low, center, lowest],
      [center - 6, highest, center + 6, highest], [center - 6, lowest, center + 6, lowest],
    ]) {
      context.moveTo(x1, y1);
      context.lineTo(x2, y2);
    }
    context.stroke();
  }

  // The point nearest to a place on the canvas, -1 if none is near.
  nearest(left, top) {
    let best = REACH ** 2;
    let found = -1;
    for (let i = 0; i < this.px.length; i++) {
      const distance = (this.toX(this.px[i]) - left) ** 2 + (this.toY(this.py[i]) - top) ** 2;
      if (distance < best) [best, found] = [distance, i];
    }
    return found;
  }

  zoom(factor, left = MARGIN.left + this.inner.width / 2, top = MARGIN.top + this.inner.height / 2) {
    const { x, y } = this.range;
    const shareX = (left - MARGIN.left) / this.inner.width;
    const shareY = 1 - (top - MARGIN.top) / this.inner.height;
    const scaled = ([low, high], share) => {
      const center = low + share * (high - low);
      return [center - (center - low) * factor, center + (high - center) * factor];
    };
    this.zoomed = {
      x: this.content.x.categories ? x : scaled(x, shareX),
      y: this.content.y.categories ? y : scaled(y, shareY),
    };
    this.draw();
  }

  reset() {
    this.zoomed = null;
    this.draw();
  }

  #listen() {
    const { canvas } = this;
    let from = null;
    let isMoved = false;
    canvas.addEventListener("wheel", (event) => {
      if (!this.content) return;
      event.preventDefault();
      this.zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("pointerdown", (event) => {
      from = { x: event.offsetX, y: event.offsetY, range: this.range };
      isMoved = false;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.content) return;
      if (from) {
        const [dx, dy] = [event.offsetX - from.x, event.offsetY - from.y];
        if (!isMoved && Math.hypot(dx, dy) < 4) return;
        isMoved = true;
        const { x, y } = from.range;
        const [wide, high] = [(dx / this.inner.width) * (x[1] - x[0]), (dy / this.inner.height) * (y[1] - y[0])];
        this.zoomed = { x: x.map((at) => at - wide), y: y.map((at) => at + high) };
        hideHint();
        this.draw();
      } else if (this.hintOf) {
        const index = this.nearest(event.offsetX, event.offsetY);
        canvas.style.cursor = index >= 0 ? "pointer" : "default";
        if (index >= 0) showHint(this.hintOf(index), event);
        else hideHint();
      }
    });
    canvas.addEventListener("pointerup", (event) => {
      if (from && !isMoved && this.onOpen) {
        const index = this.nearest(event.offsetX, event.offsetY);
        if (index >= 0) {
          hideHint();
          this.onOpen(index);
        }
      }
      from = null;
    });
    canvas.addEventListener("pointercancel", () => (from = null));
    canvas.addEventListener("pointerleave", hideHint);
    canvas.addEventListener("blur", hideHint);
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    if (!this.content || event.ctrlKey || event.metaKey || event.altKey) return;
    const zooms = { "+": () => this.zoom(1 / 1.3), "-": () => this.zoom(1.3), 0: () => this.reset() };
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (zooms[event.key]) zooms[event.key]();
    else if (step && this.hintOf) this.#step(step);
    else if (event.key === "Enter" && this.picked >= 0 && this.onOpen) {
      hideHint();
      this.onOpen(this.picked);
    } else return;
    event.preventDefault();
  }

  #step(step) {
    const order = [...this.px.keys()].filter((i) => !Number.isNaN(this.px[i] + this.py[i]));
    if (!order.length) return;
    order.sort((a, b) => this.px[a] - this.px[b] || this.py[a] - this.py[b]);
    const at = order.indexOf(this.picked);
    this.picked = order[at < 0 ? (step > 0 ? 0 : order.length - 1) : (at + step + order.length) % order.length];
    this.draw();
    const box = this.canvas.getBoundingClientRect();
    showHint(this.hintOf(this.picked), {
      clientX: box.left + this.toX(this.px[this.picked]),
      clientY: box.top + this.toY(this.py[this.picked]),
    });
  }
}
