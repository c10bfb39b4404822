// A scatter plot of records: uPlot draws axes and scales, this draws the marks and finds them under pointer and keys.

const MANY_POINTS = 4000;
const MARKS = ["circle", "square", "up", "diamond", "down"];
const MAX_SERIES = 7;

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Returns round values within a range. */
function ticks(low, high, log, wanted) {
  const out = [];
  if (log) {
    const decades = Math.log10(high / low);
    if (decades < 0.35) return ticks(low, high, false, wanted);
    const steps = decades < 1 ? [1, 1.5, 2, 3, 4, 5, 6, 8] : decades < 3.5 && wanted > 4 ? [1, 2, 5] : [1];
    const stride = Math.max(1, Math.ceil(decades / 8));
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
      if (((e % stride) + stride) % stride) continue;
      for (const step of steps) {
        const value = Number(step + "e" + e);
        if (value >= low && value <= high) out.push(value);
      }
    }
    return out;
  }
  const raw = (high - low) / wanted;
  const decade = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * decade).find((s) => s >= raw * 0.999);
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) out.push(Number((i * step).toPrecision(12)));
  return out;
}

/** Returns the range of values with room at both ends. */
function range(values, log) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (log) {
    const room = high > low * 1.02 ? (high / low) ** 0.06 : 1.5;
    return [low / room, high * room];
  }
  const room = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 0.5;
  return [low - room, high + room];
}

function path(ctx, mark, x, y, r) {
  ctx.beginPath();
  if (mark === "circle") ctx.arc(x, y, r, 0, 2 * Math.PI);
  if (mark === "square") ctx.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8);
  const corners = { up: [0, -1.3, 1.15, 0.8, -1.15, 0.8], down: [0, 1.3, 1.15, -0.8, -1.15, -0.8], diamond: [0, -1.3, 1.3, 0, 0, 1.3, -1.3, 0] }[mark];
  if (corners) {
    for (let i = 0; i < corners.length; i += 2) {
      ctx[i ? "lineTo" : "moveTo"](x + corners[i] * r, y + corners[i + 1] * r);
    }
    ctx.closePath();
  }
}

class Chart {
  /** `root` holds canvas, tooltip and legend; `onPick(row)` is told which record was chosen. */
  constructor(root, records, onPick) {
    this.root = root;
    this.records = records;
    this.onPick = onPick;
    this.plot = null;
    this.points = [];
    this.at = -1;
    this.area = root.querySelector(".area");
    this.ring = root.querySelector(".ring");
    this.tip = root.querySelector(".tip");
    this.legend = root.querySelector(".key");
    this.note = root.querySelector(".note");
    this.area.addEventListener("pointermove", (event) => this.hover(event));
    this.area.addEventListener("pointerleave", () => this.show(this.at));
    this.area.addEventListener("click", (event) => this.pick(this.near(event)));
    root.addEventListener("keydown", (event) => this.key(event));
  }

  /** Draws rows by the named columns. */
  draw(rows, options) {
    this.rows = rows;
    this.options = options;
    const [x, y, by] = [options.x, options.y, options.by].map((name) => this.records.named.get(name));
    const ok = (value, log) => value !== null && Number.isFinite(value) && (!log || value > 0);
    this.points = rows.filter((row) => ok(x.values[row], options.logX) && ok(y.values[row], options.logY));
    this.points.sort((a, b) => x.values[a] - x.values[b] || y.values[a] - y.values[b]);
    this.xs = this.points.map((row) => x.values[row]);
    this.ys = this.points.map((row) => y.values[row]);
    this.at = -1;
    this.series(by);
    const left = rows.length - this.points.length;
    this.note.textContent = !this.points.length
      ? "No trial of this choice has both values."
      : left ? `${grouped(left)} of ${grouped(rows.length)} trials lack one of the values${options.logX || options.logY ? " or cannot stand on a logarithmic axis" : ""}.` : "";
    if (this.plot) this.plot.destroy();
    this.plot = null;
    this.show(-1);
    if (!this.points.length) return;
    this.plot = new uPlot(this.settings(x, y), [[0, 1], [0, 1]], this.area);
    this.root.dataset.points = this.points.length;
  }

  /** Sorts points into series by a column: the most frequent values, and one for the rest. */
  series(by) {
    this.codes = new Uint8Array(this.points.length);
    this.names = [];
    this.legend.replaceChildren();
    if (!by) return;
    const counts = new Map();
    for (const row of this.points) counts.set(valueAt(by, row), (counts.get(valueAt(by, row)) || 0) + 1);
    const values = [...counts].sort((a, b) => b[1] - a[1]).slice(0, MAX_SERIES).map((entry) => entry[0]).sort(byValue);
    const place = new Map(values.map((value, n) => [value, n]));
    const others = counts.size > values.length;
    this.points.forEach((row, i) => {
      const n = place.get(valueAt(by, row));
      this.codes[i] = n === undefined ? values.length : n;
    });
    this.names = values.map((value) => (by.levels ? value || NONE : written(by, value)));
    if (others) this.names.push(`${counts.size - values.length} others`);
    const heading = document.createElement("li");
    heading.textContent = by.label + ":";
    this.legend.append(heading, ...this.names.map((name, n) => this.entry(name, n)));
  }

  entry(name, n) {
    const item = document.createElement("li");
    const mark = document.createElement("canvas");
    mark.width = mark.height = 28;
    mark.setAttribute("aria-hidden", "true");
    const ctx = mark.getContext("2d");
    ctx.fillStyle = this.colour(n);
    path(ctx, MARKS[n % MARKS.length], 14, 14, 9);
    ctx.fill();
    item.append(mark, name);
    return item;
  }

  colour(n) {
    return n >= MAX_SERIES ? css("--muted") : css("--series-" + (n % MAX_SERIES));
  }

  settings(x, y) {
    const { logX, logY } = this.options;
    const [xRange, yRange] = [range(this.xs, logX), range(this.ys, logY)];
    const width = Math.max(280, this.area.clientWidth);
    const height = Math.round(Math.min(460, Math.max(300, width * 0.55)));
    const axis = (column, [low, high], log, wanted) => ({
      label: column.label,
      labelFont: "13px system-ui, sans-serif",
      font: "12px system-ui, sans-serif",
      stroke: css("--ink"),
      grid: { stroke: css("--grid"), width: 1 },
      ticks: { stroke: css("--muted"), width: 1 },
      splits: () => ticks(low, high, log, wanted),
      filter: (_, splits) => splits,
      values: (_, splits) => splits.map((value) => written(column, value).replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "")),
    });
    return {
      width,
      height,
      legend: { show: false },
      cursor: { show: false },
      scales: {
        x: { time: false, range: xRange, distr: logX ? 3 : 1 },
        y: { range: yRange, distr: logY ? 3 : 1 },
      },
      axes: [
        { ...axis(x, xRange, logX, width < 500 ? 4 : 7), size: 44 },
        { ...axis(y, yRange, logY, 6), size: 74 },
      ],
      series: [{}, { scale: "y", paths: () => null, points: { show: false } }],
      hooks: { draw: [(plot) => this.marks(plot)] },
    };
  }

  /** Draws every mark, and remembers where it lies. */
  marks(plot) {
    const { ctx, bbox } = plot;
    const ratio = uPlot.pxRatio || devicePixelRatio || 1;
    const many = this.points.length > MANY_POINTS;
    this.px = new Float32Array(this.points.length);
    this.py = new Float32Array(this.points.length);
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.globalAlpha = many ? 0.55 : 0.8;
    const colours = this.names.length ? this.names.map((_, n) => this.colour(n)) : [this.colour(0)];
    for (let n = 0; n < colours.length; n++) {
      ctx.fillStyle = colours[n];
      for (let i = 0; i < this.points.length; i++) {
        if (this.codes[i] !== n) continue;
        const [x, y] = [plot.valToPos(this.xs[i], "x", true), plot.valToPos(this.ys[i], "y", true)];
        this.px[i] = x / ratio;
        this.py[i] = y / ratio;
        if (many) {
          ctx.fillRect(x - 1.5 * ratio, y - 1.5 * ratio, 3 * ratio, 3 * ratio);
        } else {
          path(ctx, MARKS[n % MARKS.length], x, y, 3.6 * ratio);
          ctx.fill();
        }
      }
    }
    ctx.restore();
  }

  /** Returns the point nearest to the pointer, or -1 where none is near. */
  near(event) {
    if (!this.plot) return -1;
    const box = this.area.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [best, least] = [-1, 18 * 18];
    for (let i = 0; i < this.points.length; i++) {
      const distance = (this.px[i] - x) ** 2 + (this.py[i] - y) ** 2;
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }

  hover(event) {
    const i = this.near(event);
    this.show(i >= 0 ? i : this.at);
  }

  /** Rings a point and says what it is; -1 hides both. */
  show(i) {
    this.ring.hidden = this.tip.hidden = i < 0 || !this.plot;
    if (i < 0 || !this.plot) return;
    const [x, y] = [this.px[i], this.py[i]];
    this.ring.style.transform = `translate(${x - 9}px, ${y - 9}px)`;
    this.tip.replaceChildren(...tipLines(this.records, this.points[i], this.options).map(([name, value]) => {
      const line = document.createElement("div");
      const label = document.createElement("b");
      label.textContent = name + " ";
      line.append(label, value);
      return line;
    }));
    const room = this.root.querySelector(".frame").clientWidth;
    const width = this.tip.offsetWidth;
    const left = x + 16 + width > room ? Math.max(0, x - 16 - width) : x + 16;
    this.tip.style.transform = `translate(${Math.min(left, Math.max(0, room - width))}px, ${Math.max(0, y - 20)}px)`;
  }

  pick(i) {
    this.at = i;
    this.show(i);
    this.onPick(i < 0 ? null : this.points[i]);
  }

  /** Rings the point of a row chosen elsewhere. */
  choose(row) {
    this.at = this.points.indexOf(row);
    this.show(this.at);
  }

  key(event) {
    const last = this.points.length - 1;
    if (!this.plot || last < 0) return;
    const step = event.shiftKey ? 10 : 1;
    const to = {
      ArrowRight: Math.min(last, this.at + step),
      ArrowUp: Math.min(last, this.at + step),
      ArrowLeft: Math.max(0, this.at - step),
      ArrowDown: Math.max(0, this.at - step),
      Home: 0,
      End: last,
      Escape: -1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.pick(to);
  }
}

/** Returns what the tooltip says of a row. */
function tipLines(records, row, options) {
  const names = ["status", "seqlen", "policy", "mask_block", "block_m", "block_n", "config", "total_us", "time_us", "speedup_total", options.x, options.y];
  return [...new Set(names)]
    .map((name) => records.named.get(name))
    .filter((column) => column && textAt(column, row) !== NONE)
    .map((column) => [column.label, textAt(column, row)]);
}
