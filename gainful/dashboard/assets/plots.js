// The plots, drawn by uPlot: quality over time, a race, a confirmation against its boundary.
// Colours are those of the page's style sheet, so that plots follow light and dark.  Nothing here writes markup.

const { uPlot } = window;

const MARKS = {
  promoted: { sign: "▲", colour: "--good" },
  confirmed: { sign: "▲", colour: "--good" },
  "rolled-back": { sign: "▼", colour: "--bad" },
  alarm: { sign: "!", colour: "--bad" },
  rejected: { sign: "×", colour: "--other" },
  staged: { sign: "·", colour: "--before" },
};

export const sign = (kind) => MARKS[kind]?.sign ?? "·";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const font = () => `12px ${getComputedStyle(document.body).fontFamily}`;
const whole = (share) => `${Math.round(share * 100)} %`;
const gained = (points) => `${points > 0 ? "+" : points < 0 ? "−" : ""}${Math.abs(points)}`;

/**
 * A plot that is as wide as its place, can be moved along by arrow keys, and says what stands under its cursor.
 * `make` returns options, data and the ranges x and y; what it is given to show may change without a new canvas.
 */
export class Plot {
  constructor(place, height, make, tell = null) {
    this.height = height;
    this.make = make;
    this.tell = tell;
    this.canvas = document.createElement("div");
    this.canvas.className = "plot";
    this.canvas.setAttribute("role", "img");
    place.replaceChildren(this.canvas);
    if (tell) {
      this.canvas.tabIndex = 0;
      this.readout = document.createElement("p");
      this.readout.className = "readout";
      this.readout.setAttribute("aria-hidden", "true"); // the table beside says it all
      place.append(this.readout);
      this.canvas.addEventListener("keydown", (event) => this.step(event));
    }
    new ResizeObserver(() => this.resize()).observe(this.canvas);
  }

  show(shown, words) {
    this.canvas.setAttribute("aria-label", words);
    const seriesBefore = this.made?.options.series.length;
    this.made = this.make(shown);
    this.shown = shown;
    if (this.plot && seriesBefore === this.made.options.series.length) {
      this.plot.setData(this.made.data);
      this.say(this.plot);
    } else this.draw();
  }

  /** Draw anew, in the colours of now. */
  redraw() {
    if (this.shown === undefined) return;
    this.made = this.make(this.shown);
    this.draw();
  }

  draw() {
    const width = this.canvas.clientWidth;
    if (this.made === undefined || width === 0) return;
    this.plot?.destroy();
    this.width = width;
    const { options, data } = this.made;
    const range = (name) => (_, low, high) => this.made[name]?.(low, high) ?? [low, high];
    const scales = { x: { time: false, ...options.scales?.x, range: range("x") }, y: { ...options.scales?.y } };
    if (this.made.y) scales.y.range = range("y");
    const hooks = {
      draw: [(plot) => this.made.paint?.(plot)],
      setCursor: [(plot) => this.say(plot)],
    };
    const cursor = { show: this.tell !== null, y: false, points: { show: false }, drag: { x: false, y: false } };
    const size = { width, height: this.height };
    this.plot = new uPlot({ ...options, ...size, scales, hooks, cursor, legend: { show: false } }, data, this.canvas);
  }

  resize() {
    if (!this.plot) this.draw();
    else if (this.width !== this.canvas.clientWidth && this.canvas.clientWidth > 0) {
      this.width = this.canvas.clientWidth;
      this.plot.setSize({ width: this.width, height: this.height });
    }
  }

  say(plot) {
    if (!this.tell) return;
    const at = plot.cursor.idx;
    this.readout.textContent = at == null ? "" : this.tell(this.shown, plot.data, at);
  }

  step(event) {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way || !this.plot) return;
    event.preventDefault();
    const [x] = this.plot.data;
    const from = this.plot.cursor.idx ?? (way > 0 ? -1 : x.length);
    const to = Math.min(Math.max(from + way, 0), x.length - 1);
    this.plot.setCursor({ left: this.plot.valToPos(x[to], "x"), top: this.height / 2 });
  }
}

function axis(extra) {
  return {
    stroke: colour("--soft"),
    font: font(),
    grid: { stroke: colour("--grid"), width: 1 },
    ticks: { show: false },
    ...extra,
  };
}

const dots = (name, size) => ({
  stroke: colour(name),
  width: 0,
  paths: () => null,
  points: { show: true, size, fill: colour(name), stroke: colour(name), width: 0 },
});

const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const hour = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const dates = (_, splits) =>
  splits.map((at, k) => {
    const time = hour.format(at * 1000);
    if (splits.length > 1 && splits[1] - splits[0] >= 86400) return day.format(at * 1000);
    return k === 0 || time === "00:00" ? `${time}\n${day.format(at * 1000)}` : time;
  });
const SIDES = [12, 16, 0, 0]; // the same for plots that share their hours

/** Keep means of enough requests: of two requests a mean is 0, a half or 1, which hides the others. */
function steady(arm, least) {
  return arm.mean.map((mean, k) => (arm.known[k] >= least ? mean : null));
}
export const ENOUGH = 10;

/** Points of each arm, the band of the champion anew with each champion, and a line for every move. */
export function quality({ quality: q, moves, phone }) {
  const least = q.arms.some((arm) => arm.known.some((n) => n >= ENOUGH)) ? ENOUGH : 1;
  const columns = [middles(q), q.band_low, q.band_high, q.band_mean, ...q.arms.map((arm) => steady(arm, least))];
  const data = columns.map(() => []);
  q.at.forEach((_, k) => {
    if (k && q.policies[k] !== q.policies[k - 1]) data.forEach((list, c) => list.push(c ? null : q.at[k]));
    columns.forEach((column, c) => data[c].push(column[k]));
  });
  const known = columns.slice(1).flat().filter((value) => value !== null);
  const low = Math.max(0, Math.floor(Math.min(...known, 1) * 10 - 0.2) / 10);
  const high = Math.min(1, Math.ceil(Math.max(...known, 0) * 10 + 0.2) / 10);
  const size = q.at.length > 150 || phone ? 3 : 5;
  const line = { stroke: colour("--accent"), width: 2, points: { show: q.at.length < 3 } };
  const edge = { stroke: "transparent", width: 0, points: { show: false } };
  return {
    data,
    x: () => span(q),
    y: () => [low, high > low ? high : 1],
    paint: (plot) => marks(plot, moves),
    options: {
      padding: SIDES,
      axes: [
        axis({ space: 64, size: 44, values: dates, splits: hours }),
        axis({ size: 48, values: (_, ticks) => ticks.map(whole) }),
      ],
      series: [{}, edge, edge, line, dots("--accent", size), dots("--other", size), dots("--former", size)],
      bands: [{ series: [2, 1], fill: colour("--band") }],
    },
  };
}

/** A point stands in the middle of its stretch, so that a move lies on the side of it where it happened. */
const middles = (q) => q.at.map((at) => at + q.hours * 1800);

/** The time that both plots show. */
const span = (q) => [q.at[0], Math.max(q.at.at(-1) + q.hours * 3600, q.at[0] + 3600 * 3)];

/** Ticks at full hours or days of the reader's own time zone. */
function hours(plot, _, from, to) {
  const steps = [1, 3, 6, 12, 24, 48, 168, 336, 672, 1344, 2688, 8760];
  const least = ((to - from) / 3600) * (64 / Math.max(plot.width - 80, 64));
  const step = (steps.find((one) => one >= least) ?? steps.at(-1)) * 3600;
  const offset = new Date(from * 1000).getTimezoneOffset() * -60;
  const found = [];
  for (let at = Math.ceil((from + offset) / step) * step - offset; at <= to; at += step) found.push(at);
  return found;
}

function marks(plot, moves) {
  const { ctx } = plot;
  const { left, top, width, height } = plot.bbox;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.textAlign = "center";
  ctx.font = `600 ${12 * ratio}px ${getComputedStyle(document.body).fontFamily}`;
  for (const move of moves) {
    const how = MARKS[move.kind];
    const x = move.at === null ? NaN : plot.valToPos(move.at, "x", true);
    if (!how || !(x >= left && x <= left + width)) continue;
    ctx.strokeStyle = ctx.fillStyle = colour(how.colour);
    ctx.lineWidth = ratio;
    ctx.setLineDash(move.kind === "staged" ? [2 * ratio, 4 * ratio] : []);
    ctx.beginPath();
    ctx.moveTo(x, top + 14 * ratio);
    ctx.lineTo(x, top + height);
    ctx.stroke();
    ctx.fillText(how.sign, x, top + 11 * ratio);
  }
  ctx.restore();
}

/** How many requests each stretch brought. */
export function requests({ quality: q }) {
  const bars = uPlot.paths.bars({ size: [0.8, 24], align: 0 });
  const fill = colour("--before");
  return {
    data: [middles(q), q.requests],
    x: () => span(q),
    y: (_, most) => [0, most || 1],
    options: {
      padding: SIDES,
      axes: [
        axis({ splits: hours, size: 4, values: (_, ticks) => ticks.map(() => "") }),
        axis({ size: 48, space: 26, values: (_, ticks) => ticks.map(short) }),
      ],
      series: [{}, { fill, stroke: fill, width: 0, points: { show: false }, paths: bars }],
    },
  };
}

const short = (n) => (n >= 1e6 ? `${n / 1e6}M` : n >= 1e3 ? `${n / 1e3}k` : `${n}`);

/** The gain of each candidate over the best policy so far, while it raced. */
export function race({ racers }) {
  const x = [...new Set([0, ...racers.flatMap((racer) => racer.n)])].sort((a, b) => a - b);
  const gains = racers.map((racer) =>
    x.map((n) => (n === 0 ? 0 : racer.n.includes(n) ? racer.gain[racer.n.indexOf(n)] * 100 : null)),
  );
  return {
    data: [x, ...gains],
    x: () => [0, x.at(-1) || 1],
    paint: (plot) => ends(plot, racers.map((racer) => racer.label)),
    options: {
      padding: [10, 34, 0, 0],
      axes: [axis({ space: 40, splits: () => x }), axis({ size: 44, values: (_, ticks) => ticks.map(gained) })],
      series: [
        {},
        ...racers.map((racer) => {
          const on = racer.fate !== "not raced" && !racer.fate.startsWith("dropped");
          const stroke = colour(on ? "--accent" : "--before");
          return { stroke, width: on ? 2 : 1.25, spanGaps: true, points: { show: true, size: 5, fill: stroke } };
        }),
      ],
    },
  };
}

/** Write each line's name at its end; a name that would lie on another is moved down. */
function ends(plot, names) {
  const { ctx } = plot;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.font = `${12 * ratio}px ${getComputedStyle(document.body).fontFamily}`;
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  const found = names.map((name, k) => {
    const values = plot.data[k + 1];
    const last = values.findLastIndex((value) => value !== null);
    return { name, k, x: plot.valToPos(plot.data[0][last], "x", true), y: plot.valToPos(values[last], "y", true) };
  });
  found.sort((a, b) => a.x - b.x || a.y - b.y);
  let above = null;
  for (const label of found) {
    if (above && Math.abs(above.x - label.x) < 30 * ratio) label.y = Math.max(label.y, above.y + 13 * ratio);
    ctx.fillStyle = plot.series[label.k + 1].stroke(plot, label.k + 1);
    ctx.fillText(label.name, label.x + 7 * ratio, label.y);
    above = label;
  }
  ctx.restore();
}

/** The statistic of a confirmation against what promotes, up to where the test would have to end. */
export function looks(shown) {
  const graded = shown.test === "e-process";
  const start = graded ? 1 : 0;
  const x = [0, ...shown.n];
  const floor = (value) => (graded && value !== null ? Math.max(value, 0.001) : value);
  const top = Math.max(...shown.statistic, ...shown.boundary.map((value) => value ?? 0), 1);
  return {
    data: [x, [start, ...shown.statistic.map(floor)], [null, ...shown.boundary.map(floor)]],
    x: () => [0, Math.max(shown.size, x.at(-1))],
    y: graded ? null : () => [0, Math.ceil(top * 1.15)],
    options: {
      padding: [10, 12, 0, 0],
      scales: { y: graded ? { distr: 3 } : {} },
      axes: [axis({ space: 50 }), axis({ size: 44 })],
      series: [
        {},
        { stroke: colour("--accent"), width: 2, points: { show: true, size: 5, fill: colour("--accent") } },
        { stroke: colour("--bad"), width: 1.5, dash: [5, 5], points: { show: true, size: 4, fill: colour("--bad") } },
      ],
    },
  };
}
