// Puts the explorer together: filters, chart, tile map, table and the record that is chosen.

const FILTERS = ["device", "dtype", "seqlen", "policy", "mask_block", "heads", "head_dim", "status", "strategy", "stage"];

function option(value, label) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = label;
  return element;
}

class Explorer {
  constructor(root, records) {
    this.root = root;
    this.records = records;
    this.words = root.querySelector("#words");
    this.count = root.querySelector("#count");
    this.detail = root.querySelector("#detail");
    this.none = root.querySelector("#none-chosen");
    const pick = (row) => this.pick(row);
    this.chart = new Chart(root.querySelector("#chart"), records, pick);
    this.table = new RecordTable(root.querySelector("#records"), records, pick);
    this.filters();
    this.axes();
    root.querySelector("#reset").addEventListener("click", () => this.reset());
    let waiting = 0;
    this.words.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.update(), 120);
    });
    const redraw = () => this.redraw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    let width = innerWidth;
    addEventListener("resize", () => {
      // Phones resize when a bar slides away.
      if (innerWidth !== width) redraw();
      width = innerWidth;
    });
    this.update();
  }

  filters() {
    const place = this.root.querySelector("#filters");
    const all = [...Array(this.records.rows).keys()];
    this.selects = [];
    for (const name of FILTERS) {
      const column = this.records.named.get(name);
      const values = column ? distinct(column, all) : [];
      if (values.length < 2) continue;
      const select = document.createElement("select");
      select.id = "filter-" + name;
      select.append(option("", "all"));
      for (const value of values) select.append(option(value, column.levels ? value : written(column, value)));
      select.addEventListener("change", () => this.update());
      place.insertBefore(labelled(column.label, select), place.firstElementChild.nextElementSibling);
      this.selects.push([name, select]);
    }
    // Each was put in front of the one before.
    for (const [, select] of this.selects) place.insertBefore(select.parentElement, place.querySelector(".search"));
  }

  axes() {
    const numbers = this.records.columns.filter((column) => column.values);
    const groups = this.records.columns.filter((column) => !["reason", "config", "variant"].includes(column.name))
      .filter((column) => column.levels || ["seqlen", "threshold", "block_m", "block_n", "heads", "head_dim"].includes(column.name));
    const has = (name) => this.records.named.has(name);
    const select = (id, columns, wanted) => {
      const element = this.root.querySelector(id);
      for (const column of columns) element.append(option(column.name, column.label));
      const first = wanted.find(has);
      if (first) element.value = first;
      element.addEventListener("change", () => this.redraw());
      return element;
    };
    this.x = select("#axis-x", numbers, ["sparsity", "seqlen"]);
    this.y = select("#axis-y", numbers, ["total_us", "time_us", "speedup_total"]);
    this.by = select("#colour-by", groups, ["seqlen", "policy", "mask_block"]);
    this.logX = this.root.querySelector("#log-x");
    this.logY = this.root.querySelector("#log-y");
    for (const box of [this.logX, this.logY]) box.addEventListener("change", () => this.redraw());
  }

  reset() {
    for (const [, select] of this.selects) select.value = "";
    this.words.value = "";
    this.pick(null);
    this.update();
  }

  /** Applies the filters to everything. */
  update() {
    const chosen = this.selects.map(([name, select]) => [name, select.value]).filter(([, value]) => value !== "");
    this.rows = filtered(this.records, chosen, this.words.value);
    this.count.textContent = `${grouped(this.rows.length)} of ${grouped(this.records.rows)} trials`;
    this.table.show(this.rows);
    this.tiles();
    this.redraw();
  }

  redraw() {
    if (!this.x.value || !this.y.value) return;
    this.chart.draw(this.rows, {
      x: this.x.value, y: this.y.value, by: this.by.value, logX: this.logX.checked, logY: this.logY.checked,
    });
  }

  pick(row) {
    this.chart.choose(row);
    this.table.choose(row);
    this.detail.replaceChildren();
    this.none.hidden = row !== null;
    if (row === null) return;
    for (const column of this.records.columns) {
      const text = textAt(column, row);
      if (text === NONE) continue;
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = column.label;
      value.textContent = text;
      this.detail.append(term, value);
    }
  }

  /** Fills the map of tiles with the rows that are left. */
  tiles() {
    const place = this.root.querySelector("#tiles");
    const { tiles, groups } = tileTimes(this.records, this.rows);
    const note = place.querySelector(".note");
    const table = place.querySelector("table");
    table.replaceChildren();
    const sides = [0, 1].map((side) => [...new Set([...tiles.keys()].map((tile) => Number(tile.split("|")[side])))].sort((a, b) => a - b));
    if (tiles.size < 2) {
      note.textContent = "Fewer than two tiles were timed for this choice.";
      return;
    }
    note.textContent = `Attention time relative to the best tile${groups > 1 ? `; median over ${grouped(groups)} problems and policies` : ""}.`;
    const worst = Math.min(3, Math.max(1.25, ...tiles.values()));
    const head = document.createElement("tr");
    head.append(cellOf("th", "M \\ N"), ...sides[1].map((n) => cellOf("th", String(n))));
    head.querySelectorAll("th").forEach((cell) => { cell.scope = "col"; });
    table.append(head);
    for (const m of sides[0]) {
      const line = document.createElement("tr");
      const name = cellOf("th", String(m));
      name.scope = "row";
      line.append(name);
      for (const n of sides[1]) {
        const ratio = tiles.get(m + "|" + n);
        const cell = cellOf("td", ratio === undefined ? "" : ratio.toFixed(2));
        if (ratio !== undefined) shade(cell, (ratio - 1) / (worst - 1));
        line.append(cell);
      }
      table.append(line);
    }
  }
}

/** Cividis, as in the figures. */
const CIVIDIS = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];

function shade(cell, share) {
  const place = Math.min(1, Math.max(0, share)) * (CIVIDIS.length - 1);
  const below = Math.min(CIVIDIS.length - 2, Math.floor(place));
  const mixed = CIVIDIS[below].map((low, c) => Math.round(low + (CIVIDIS[below + 1][c] - low) * (place - below)));
  cell.style.backgroundColor = `rgb(${mixed})`;
  cell.style.color = share < 0.5 ? "#fff" : "#000";
}

function cellOf(kind, text) {
  const cell = document.createElement(kind);
  cell.textContent = text;
  return cell;
}

function labelled(text, control) {
  const label = document.createElement("label");
  label.append(text, control);
  return label;
}

(async () => {
  const root = document.getElementById("explore");
  const trouble = root.querySelector("#trouble");
  try {
    const records = await loadRecords(document.getElementById("data"));
    root.querySelector("#explorer").hidden = false;
    // Of use in the console of a browser, and to tests.
    root.explorer = new Explorer(root, records);
    trouble.hidden = true;
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    root.querySelector("#explorer").hidden = true;
    trouble.textContent = error.message;
    document.documentElement.dataset.ready = "failed";
  }
})();
