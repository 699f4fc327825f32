"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const ends = data.ends;
  const N = ends.length;
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

  // Which links a pair of ends has: the number of the first one, and a list where IP families differ.
  const familyBits = (names) => (names.length === 0 ? 3 : (names.includes("IPv4") ? 1 : 0) | (names.includes("IPv6") ? 2 : 0));
  const families = ends.map((end) => familyBits(end.families));
  const sets = data.sets.map((runs) => {
    const out = [];
    for (const [first, last] of runs) for (let end = first; end <= last; end++) out.push(end);
    return out;
  });
  const expand = (links) => {
    const first = new Int32Array(N * N);
    const several = new Map();
    links.forEach((link, number) => {
      const bits = familyBits(link.families || []);
      for (const from of sets[link.from]) {
        for (const to of sets[link.to]) {
          if ((from === to && !ends[from].several) || !(bits & families[from] & families[to])) continue;
          const at = from * N + to;
          if (first[at] === 0) first[at] = number + 1;
          else if (several.has(at)) several.get(at).push(number);
          else several.set(at, [first[at] - 1, number]);
        }
      }
    });
    return { first, of: (from, to) => {
      const at = from * N + to;
      return first[at] === 0 ? [] : several.get(at) || [first[at] - 1];
    } };
  };
  const allowed = expand(data.allowed);
  const denied = { egress: expand(data.denied_egress), ingress: expand(data.denied_ingress) };
  const isDenied = (from, to) => denied.egress.first[from * N + to] !== 0 || denied.ingress.first[from * N + to] !== 0;

  const textOf = (link) => data.traffics[link.traffic].text + (link.families ? ` (${link.families.join(" and ")})` : "");
  const pairText = (from, to) => allowed.of(from, to).map((number) => textOf(data.allowed[number])).join("; ");

  // Rows and columns: bands of namespaces, and the ends of those that are unfolded.
  const groups = [];
  ends.forEach((end, number) => {
    const name = end.namespace === null ? "outside and nodes" : end.namespace;
    const last = groups[groups.length - 1];
    if (last && last.name === name) last.ends.push(number);
    else groups.push({ name, isNamespace: end.namespace !== null, ends: [number], open: false });
  });
  const isTarget = (number) => ends[number].kind !== "own-node" && ends[number].kind !== "ingress-controller";
  for (const group of groups) group.open = N <= 60;
  let words = [];
  const matches = (text) => words.every((word) => text.toLowerCase().includes(word));
  const items = (isColumn) => {
    const out = [];
    for (const group of groups) {
      let shown = isColumn ? group.ends.filter(isTarget) : group.ends;
      const searched = !isColumn && words.length > 0;
      if (searched) shown = shown.filter((number) => matches(ends[number].id));
      if (shown.length === 0) continue;
      out.push({ group, ends: shown, name: group.name });
      if (group.open || searched) for (const number of shown) out.push({ group, ends: [number], end: number, name: shortName(number) });
    }
    return out;
  };
  const shortName = (number) => {
    const end = ends[number];
    return end.namespace !== null && end.id.startsWith(`${end.namespace}/`) ? end.id.slice(end.namespace.length + 1) : end.id;
  };
  let rows = [];
  let columns = [];
  const cache = new Map();
  const cellOf = (row, column) => {
    const single = row.end !== undefined && column.end !== undefined;
    const key = single ? "" : `${row.end ?? `g${groups.indexOf(row.group)}`}|${column.end ?? `g${groups.indexOf(column.group)}`}`;
    if (!single && words.length === 0 && cache.has(key)) return cache.get(key);
    let open = 0;
    let possible = 0;
    let level = 0;
    let traffic = -1;
    for (const from of row.ends) {
      for (const to of column.ends) {
        const number = allowed.first[from * N + to];
        if (number === 0) {
          if (isDenied(from, to)) possible += 1;
          continue;
        }
        possible += 1;
        open += 1;
        const link = data.allowed[number - 1];
        const warm = ends[from].internet || ends[to].internet ? 3 : data.traffics[link.traffic].all ? 2 : 1;
        level = Math.max(level, warm);
        traffic = traffic === -1 || traffic === link.traffic ? link.traffic : -2;
      }
    }
    let text = "";
    if (single) text = pairText(row.end, column.end);
    else if (open === possible && traffic >= 0) text = data.traffics[traffic].text;
    else if (open > 0) text = `${open}/${possible}`;
    const cell = { open, possible, level, text, single };
    if (!single && words.length === 0) cache.set(key, cell);
    return cell;
  };
  const label = (row, column, cell) => {
    const pair = `${row.end === undefined ? row.name : ends[row.end].id} → ${column.end === undefined ? column.name : ends[column.end].id}`;
    if (cell.possible === 0) return `${pair}: no policy applies, or the same pod`;
    if (cell.single) return `${pair}: ${cell.text || "denied"}`;
    return `${pair}: ${cell.text ? `${cell.text}, ` : ""}${cell.open} of ${plural(cell.possible, "pair")} allowed`;
  };

  // The matrix draws the cells that are in view.
  const W = 84;
  const H = 28;
  const HEAD = 150;
  const side = () => (window.innerWidth < 640 ? 150 : 270);
  const grid = make("div", { id: "grid", tabindex: "0", role: "region", "aria-label": "Matrix: rows connect to columns" });
  const size = make("div");
  grid.append(size);
  const why = make("div", { id: "why", role: "region", "aria-live": "polite", "aria-label": "What decides" });
  const active = { row: 0, column: 0 };
  let drawn = "";
  const draw = (again) => {
    const head = side();
    size.style.width = `${head + columns.length * W}px`;
    size.style.height = `${HEAD + rows.length * H}px`;
    const clamp = (n, most) => Math.max(0, Math.min(n, most));
    const view = {
      top: clamp(Math.floor(grid.scrollTop / H) - 4, rows.length),
      bottom: clamp(Math.ceil((grid.scrollTop + grid.clientHeight - HEAD) / H) + 4, rows.length),
      left: clamp(Math.floor(grid.scrollLeft / W) - 2, columns.length),
      right: clamp(Math.ceil((grid.scrollLeft + grid.clientWidth - head) / W) + 2, columns.length),
    };
    const key = Object.values(view).join();
    if (key === drawn && !again) return;
    drawn = key;
    const table = make("table", { role: "grid", "aria-label": "Allowed connections", "aria-rowcount": rows.length + 1, "aria-colcount": columns.length + 1 });
    table.style.left = `${view.left * W}px`;
    table.style.top = `${view.top * H}px`;
    table.style.width = `${head + (view.right - view.left) * W}px`;
    const widths = make("colgroup");
    for (let at = view.left - 1; at < view.right; at++) {
      const width = make("col");
      width.style.width = `${at < view.left ? head : W}px`;
      widths.append(width);
    }
    const shown = columns.slice(view.left, view.right);
    const headings = make("tr", { "aria-rowindex": 1 }, make("th", { class: "corner", scope: "col" }, "from ↓ to →"));
    shown.forEach((column, at) => {
      const heading = make("th", { scope: "col", "aria-colindex": view.left + at + 2, "data-c": view.left + at, title: column.end === undefined ? column.name : ends[column.end].id });
      heading.append(column.end === undefined ? fold(column) : make("span", {}, column.name));
      if (column.end === undefined) heading.classList.add("band");
      headings.append(heading);
    });
    const body = make("tbody");
    rows.slice(view.top, view.bottom).forEach((row, down) => {
      const r = view.top + down;
      const line = make("tr", { "aria-rowindex": r + 2 });
      const heading = make("th", { scope: "row", "data-r": r, title: row.end === undefined ? row.name : ends[row.end].id });
      heading.append(row.end === undefined ? fold(row) : `  ${row.name}`);
      if (row.end === undefined) heading.classList.add("band");
      line.append(heading);
      shown.forEach((column, across) => {
        const cell = cellOf(row, column);
        const c = view.left + across;
        const classes = ["", "some", "all", "net"][cell.level] + (cell.possible === 0 ? " void" : "");
        const text = label(row, column, cell);
        const isActive = r === active.row && c === active.column;
        line.append(make("td", { class: classes, "data-r": r, "data-c": c, title: text, "aria-label": text, "aria-colindex": c + 2, tabindex: isActive ? "0" : "-1" }, cell.text || (cell.possible === 0 ? "" : "–")));
      });
      body.append(line);
    });
    table.append(widths, make("thead", {}, headings), body);
    const focused = size.contains(document.activeElement) && document.activeElement.tagName === "TD";
    size.replaceChildren(table);
    if (focused) focusActive();
  };
  const fold = (item) => {
    const sign = item.group.open ? "▾" : "▸";
    const button = make("button", { type: "button", "aria-expanded": String(item.group.open), tabindex: "-1" }, `${sign} ${item.name} (${item.ends.length})`);
    button.addEventListener("click", () => {
      item.group.open = !item.group.open;
      layOut();
    });
    return button;
  };
  const layOut = () => {
    rows = items(false);
    columns = items(true);
    active.row = Math.min(active.row, Math.max(0, rows.length - 1));
    active.column = Math.min(active.column, Math.max(0, columns.length - 1));
    draw(true);
  };
  const focusActive = () => {
    const cell = size.querySelector(`td[data-r="${active.row}"][data-c="${active.column}"]`);
    if (cell) cell.focus({ preventScroll: true });
  };
  const cross = (r, c) => {
    for (const hot of size.querySelectorAll(".hot")) hot.classList.remove("hot");
    for (const heading of [size.querySelector(`th[data-r="${r}"]`), size.querySelector(`th[data-c="${c}"]`)]) {
      if (heading) heading.classList.add("hot");
    }
  };
  const move = (down, across) => {
    active.row = Math.max(0, Math.min(rows.length - 1, active.row + down));
    active.column = Math.max(0, Math.min(columns.length - 1, active.column + across));
    const top = active.row * H;
    const left = active.column * W;
    const high = grid.clientHeight - HEAD - H;
    const wide = grid.clientWidth - side() - W;
    grid.scrollTop = Math.min(top, Math.max(grid.scrollTop, top - high));
    grid.scrollLeft = Math.min(left, Math.max(grid.scrollLeft, left - wide));
    draw(true);
    focusActive();
    cross(active.row, active.column);
  };
  const steps = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], PageDown: [15, 0], PageUp: [-15, 0] };
  grid.addEventListener("keydown", (event) => {
    if (steps[event.key]) {
      event.preventDefault();
      move(...steps[event.key]);
    } else if ((event.key === "Enter" || event.key === " ") && event.target.tagName === "TD") {
      event.preventDefault();
      explain(rows[active.row], columns[active.column]);
    }
  });
  grid.addEventListener("scroll", () => requestAnimationFrame(() => draw(false)), { passive: true });
  window.addEventListener("resize", () => draw(true));
  grid.addEventListener("click", (event) => {
    const cell = event.target.closest("td");
    if (!cell) return;
    active.row = Number(cell.dataset.r);
    active.column = Number(cell.dataset.c);
    explain(rows[active.row], columns[active.column]);
  });
  grid.addEventListener("mouseover", (event) => {
    const cell = event.target.closest("td");
    cross(cell ? cell.dataset.r : -1, cell ? cell.dataset.c : -1);
  });

  // What decides a cell.
  const source = (number, isRule) => {
    const { file, line, lines, cut } = data.sources[number];
    // A rule decides as a whole. A policy isolates by what it selects and in which directions.
    const selecting = lines.map((text) => /^( *)(?:podSelector|subject|policyTypes):/.exec(text)).map((found) => (found ? found[1].length : Infinity));
    const least = Math.min(...selecting);
    const isMarked = (at) => (isRule ? at === 0 : least < Infinity && selecting[at] === least);
    const code = make("code");
    lines.forEach((text, at) => {
      code.append(make("span", { class: "number" }, `${String(line + at).padStart(5)}  `), isMarked(at) ? make("mark", {}, text) : text, "\n");
    });
    if (cut) code.append(make("span", { class: "number" }, "       …"));
    return make("pre", { tabindex: "0", role: "group", "aria-label": `${file}, line ${line}` }, code);
  };
  const sideOf = (name, numbers, isDenied) => {
    const out = make("div", {}, make("h4", {}, name));
    if (numbers.length === 0) out.append(make("p", {}, isDenied ? "does not deny it" : "not evaluated"));
    for (const number of numbers) {
      const decider = data.deciders[number];
      out.append(make("p", {}, decider.text));
      for (const at of decider.sources) out.append(source(at, decider.rule));
    }
    return out;
  };
  const pair = (from, to) => {
    const out = [make("h3", {}, `${ends[from].id} → ${ends[to].id}`)];
    const part = (text, reasons, isDenied) => {
      out.push(make("p", {}, make("strong", { class: isDenied ? "bad" : "good" }, isDenied ? "denied" : "allowed"), ` ${text}`));
      out.push(make("div", { class: "sides" }, sideOf("egress: the policies of the source", reasons.egress, isDenied), sideOf("ingress: the policies of the destination", reasons.ingress, isDenied)));
    };
    const wordsOf = (link) => `${textOf(link)}${link.through ? `, for ${link.through}` : ""}`;
    for (const number of allowed.of(from, to)) part(wordsOf(data.allowed[number]), data.reasons[data.allowed[number].reasons], false);
    // What denies the same traffic in each direction.
    const parts = new Map();
    for (const side of ["egress", "ingress"]) {
      for (const number of denied[side].of(from, to)) {
        const link = data[`denied_${side}`][number];
        const text = wordsOf(link);
        if (!parts.has(text)) parts.set(text, { egress: [], ingress: [] });
        parts.get(text)[side] = data.reasons[link.reasons][side];
      }
    }
    for (const [text, reasons] of parts) part(text, reasons, true);
    if (out.length === 1) out.push(make("p", {}, "No policy applies to such connections, or it is the same pod."));
    return out;
  };
  const MOST = 60;
  const explain = (row, column) => {
    fill(row, column);
    why.scrollIntoView({ block: "nearest" });
  };
  const fill = (row, column) => {
    if (row.end !== undefined && column.end !== undefined) {
      show(row.end, column.end);
      return;
    }
    const list = make("ul");
    let count = 0;
    for (const from of row.ends) {
      for (const to of column.ends) {
        if (allowed.first[from * N + to] === 0) continue;
        count += 1;
        if (count > MOST) continue;
        const button = make("button", { type: "button" }, `${ends[from].id} → ${ends[to].id}`);
        button.addEventListener("click", () => show(from, to));
        list.append(make("li", {}, button, ` ${pairText(from, to)}`));
      }
    }
    why.replaceChildren(make("h3", {}, `${row.name} → ${column.name}: ${plural(count, "pair")} allowed`), list);
    if (count > MOST) why.append(make("p", {}, `and ${count - MOST} more: unfold the namespaces to see each`));
  };
  const show = (from, to) => {
    why.replaceChildren(...pair(from, to));
    history.replaceState(null, "", `#why=${encodeURIComponent(ends[from].id)}&to=${encodeURIComponent(ends[to].id)}`);
  };
  const fromLink = () => {
    const found = /^#why=([^&]*)&to=(.*)$/.exec(location.hash);
    if (!found) return;
    let names;
    try {
      names = found.slice(1).map(decodeURIComponent);
    } catch {
      return;
    }
    const [from, to] = names.map((name) => ends.findIndex((end) => end.id === name));
    if (from < 0 || to < 0) return;
    show(from, to);
    why.scrollIntoView();
  };

  // The search filters the rows of all tables and of the matrix.
  const field = make("input", { id: "search", type: "search", autocomplete: "off", placeholder: "name, port, file …" });
  const count = make("span", { role: "status" });
  const lines = Array.from(document.querySelectorAll("table.list tbody tr"), (line) => [line, line.textContent.toLowerCase()]);
  const search = () => {
    words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [line, text] of lines) {
      line.hidden = !words.every((word) => text.includes(word));
      if (!line.hidden) shown += 1;
    }
    count.textContent = words.length > 0 ? `${shown} of ${plural(lines.length, "row")}` : "";
    layOut();
  };
  let waiting = 0;
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 120);
  });
  document.getElementById("search-place").append(make("label", { for: "search" }, "Search"), field, count);

  const bar = make("div", { class: "bar" });
  for (const [text, open] of [["Unfold all", true], ["Fold all", false]]) {
    const button = make("button", { type: "button" }, text);
    button.addEventListener("click", () => {
      for (const group of groups) group.open = open;
      grid.scrollTo(0, 0);
      layOut();
    });
    bar.append(button);
  }
  bar.append(make("ul", { class: "key" }, make("li", { class: "some" }, "some ports"), make("li", { class: "all" }, "everything"), make("li", { class: "net" }, "the internet"), make("li", {}, "– denied")));
  document.getElementById("matrix-place").append(make("p", {}, "Rows connect to columns. A cell has the ports, or how many pairs are allowed; click it to see what decides."), bar, grid, why);
  const links = document.getElementById("links");
  links.open = false;
  window.addEventListener("beforeprint", () => { links.open = true; });
  layOut();
  fromLink();
  window.addEventListener("hashchange", fromLink);
})();
