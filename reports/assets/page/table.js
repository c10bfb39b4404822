// The table of records: one page of rows at a time, sorted by any column.

const PAGE_ROWS = 50;
const SHOWN = ["status", "device", "dtype", "seqlen", "policy", "mask_block", "block_m", "block_n", "strategy", "stage", "evaluation",
  "sparsity", "total_us", "time_us", "mask_us", "speedup_total", "speedup", "tflops", "sparsity_error", "kernel_error"];

class RecordTable {
  /** `root` holds the table and its pager; `onPick(row)` is told which record was chosen. */
  constructor(root, records, onPick) {
    this.root = root;
    this.records = records;
    this.onPick = onPick;
    this.page = 0;
    this.sort = { name: "total_us", down: false };
    this.picked = null;
    const all = [...Array(records.rows).keys()];
    // A column with one value says nothing here; the chosen record shows it.
    this.columns = SHOWN.map((name) => records.named.get(name)).filter((column) => {
      return column && (column.name === "policy" || column.name === "total_us" || distinct(column, all).length > 1);
    });
    this.head = root.querySelector("thead tr");
    this.body = root.querySelector("tbody");
    this.place = root.querySelector(".place");
    this.buttons = Object.fromEntries([...root.querySelectorAll("button[data-go]")].map((b) => [b.dataset.go, b]));
    this.heads();
    for (const [go, button] of Object.entries(this.buttons)) {
      button.addEventListener("click", () => this.go(go));
    }
  }

  heads() {
    for (const column of this.columns) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.dataset.name = column.name;
      if (!column.levels) cell.className = "num";
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = column.label;
      button.addEventListener("click", () => this.sortBy(column.name));
      cell.append(button);
      this.head.append(cell);
    }
  }

  sortBy(name) {
    const again = this.sort.name === name;
    this.sort = { name, down: again ? !this.sort.down : false };
    this.page = 0;
    this.arrange();
  }

  show(rows) {
    this.rows = rows.slice();
    this.page = 0;
    this.arrange();
  }

  /** Sorts the rows; those without a value come last either way. */
  arrange() {
    const { name, down } = this.sort;
    const column = this.records.named.get(name);
    for (const cell of this.head.children) {
      cell.setAttribute("aria-sort", cell.dataset.name === name ? (down ? "descending" : "ascending") : "none");
    }
    if (column) {
      const sign = down ? -1 : 1;
      if (column.levels) {
        const order = column.levels.map((level, n) => [level, n]).sort((a, b) => byValue(a[0], b[0]));
        const rank = [];
        order.forEach(([level, n], i) => { rank[n] = level === "" ? Infinity : i * sign; });
        this.rows.sort((a, b) => {
          const [x, y] = [rank[column.codes[a]], rank[column.codes[b]]];
          return x === y ? a - b : x - y;
        });
      } else {
        const rank = (row) => (column.values[row] === null ? Infinity : column.values[row] * sign);
        this.rows.sort((a, b) => (rank(a) === rank(b) ? a - b : rank(a) - rank(b)));
      }
    }
    this.fill();
  }

  pages() {
    return Math.max(1, Math.ceil(this.rows.length / PAGE_ROWS));
  }

  go(where) {
    const last = this.pages() - 1;
    this.page = { first: 0, previous: Math.max(0, this.page - 1), next: Math.min(last, this.page + 1), last }[where];
    this.fill();
  }

  fill() {
    const from = this.page * PAGE_ROWS;
    this.body.replaceChildren(...this.rows.slice(from, from + PAGE_ROWS).map((row) => this.line(row)));
    const to = Math.min(this.rows.length, from + PAGE_ROWS);
    this.place.textContent = this.rows.length
      ? `${grouped(from + 1)}–${grouped(to)} of ${grouped(this.rows.length)}`
      : "no trial";
    const [first, last] = [this.page === 0, this.page === this.pages() - 1];
    this.buttons.first.disabled = this.buttons.previous.disabled = first;
    this.buttons.next.disabled = this.buttons.last.disabled = last;
  }

  line(row) {
    const line = document.createElement("tr");
    line.tabIndex = 0;
    line.dataset.row = row;
    line.setAttribute("aria-selected", String(row === this.picked));
    for (const column of this.columns) {
      const cell = document.createElement("td");
      if (!column.levels) cell.className = "num";
      cell.textContent = textAt(column, row);
      line.append(cell);
    }
    line.addEventListener("click", () => this.onPick(row));
    line.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.onPick(row);
      }
      const to = { ArrowDown: line.nextElementSibling, ArrowUp: line.previousElementSibling }[event.key];
      if (to) {
        event.preventDefault();
        to.focus();
      }
    });
    return line;
  }

  choose(row) {
    this.picked = row;
    for (const line of this.body.children) {
      line.setAttribute("aria-selected", String(Number(line.dataset.row) === row));
    }
  }
}
