"use strict";
// The records of the page: unpacking, formatting, filtering. Knows nothing of how they are shown.

const NONE = "–";

/** Reads the records out of their script element. Rejects with a sentence for the reader. */
async function loadRecords(element) {
  let json = element.textContent;
  if (element.dataset.encoding === "deflate") {
    if (typeof DecompressionStream === "undefined") {
      throw new Error(
        "This browser cannot unpack the records (it lacks DecompressionStream; browsers from 2023 on have it). " +
          "All figures below are complete, and records.csv beside this file holds every record.");
    }
    const bytes = Uint8Array.from(atob(json), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    json = await new Response(stream).text();
  }
  const { rows, columns } = JSON.parse(json);
  return { rows, columns, named: new Map(columns.map((column) => [column.name, column])) };
}

/** Writes a number with three significant digits, as the figures do. */
function significant(value) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const rounded = Number(value.toPrecision(3));
  const exponent = Math.floor(Math.log10(Math.abs(rounded)));
  if (exponent >= -3 && exponent < 3) return rounded.toFixed(2 - exponent);
  if (exponent >= 3 && exponent < 7) return grouped(rounded);
  return rounded.toExponential(2).replace("e", "·10^").replace("^+", "^");
}

function grouped(value) {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ",");
}

function time(us) {
  if (us < 999.5) return significant(us) + " µs";
  return us < 999500 ? significant(us / 1e3) + " ms" : significant(us / 1e6) + " s";
}

/** Writes a number of a column for people. */
function written(column, value) {
  if (value === null || value === undefined) return NONE;
  switch (column.unit) {
    case "count": return grouped(value);
    case "time": return time(value);
    case "percent": return (value * 100).toFixed(1) + " %";
    case "factor": return significant(value) + "×";
    default: return significant(value);
  }
}

/** Writes the value of a row in a column for people. */
function textAt(column, row) {
  if (!column) return NONE;
  return column.levels ? column.levels[column.codes[row]] || NONE : written(column, column.values[row]);
}

/** Returns what a filter compares: a number or a text. */
function valueAt(column, row) {
  return column.levels ? column.levels[column.codes[row]] : column.values[row];
}

function byValue(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

/** Returns the different values of a column among rows, in order. */
function distinct(column, rows) {
  const seen = new Set();
  for (const row of rows) {
    const value = valueAt(column, row);
    if (value !== null && value !== "") seen.add(value);
  }
  return [...seen].sort(byValue);
}

/** Returns the rows that have the chosen value in each column and the words somewhere in their texts. */
function filtered(records, chosen, words) {
  const tests = [];
  for (const [name, value] of chosen) {
    const column = records.named.get(name);
    if (column.levels) {
      const code = column.levels.indexOf(value);
      tests.push((row) => column.codes[row] === code);
    } else {
      tests.push((row) => column.values[row] === Number(value));
    }
  }
  for (const word of words.toLowerCase().split(/\s+/).filter((word) => word)) {
    // A text is looked at once, not once a row.
    const found = records.columns
      .filter((column) => column.levels)
      .map((column) => [column.codes, column.levels.map((level) => level.toLowerCase().includes(word))]);
    tests.push((row) => found.some(([codes, has]) => has[codes[row]]));
  }
  const rows = [];
  for (let row = 0; row < records.rows; row++) {
    if (tests.every((test) => test(row))) rows.push(row);
  }
  return rows;
}

function median(values) {
  values.sort((a, b) => a - b);
  const middle = values.length >> 1;
  return values.length % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

/**
 * Returns the attention time of each tile relative to the best of its problem and policy: the median over those.
 * A problem is what makes times comparable.
 */
function tileTimes(records, rows) {
  const names = ["device", "dtype", "batch", "heads", "head_dim", "seqlen", "grid", "input", "policy"];
  const columns = names.map((name) => records.named.get(name)).filter((column) => column);
  const [m, n, us, status] = ["block_m", "block_n", "time_us", "status"].map((name) => records.named.get(name));
  const groups = new Map();
  if (!us) return { tiles: new Map(), groups: 0 };
  for (const row of rows) {
    const value = us.values[row];
    if (!value || status.levels[status.codes[row]] !== "ok") continue;
    const key = columns.map((column) => (column.levels ? column.codes[row] : column.values[row])).join("|");
    if (!groups.has(key)) groups.set(key, new Map());
    const tile = m.values[row] + "|" + n.values[row];
    const best = groups.get(key).get(tile);
    if (best === undefined || value < best) groups.get(key).set(tile, value);
  }
  const ratios = new Map();
  for (const group of groups.values()) {
    const best = Math.min(...group.values());
    for (const [tile, value] of group) {
      if (!ratios.has(tile)) ratios.set(tile, []);
      ratios.get(tile).push(value / best);
    }
  }
  return { tiles: new Map([...ratios].map(([tile, values]) => [tile, median(values)])), groups: groups.size };
}
