"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const charts = new Map(data.charts.map((chart) => [chart.name, chart]));
  const views = new Map();
  const root = document.documentElement;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const MOST_ROWS = 50;
  const LABELLED = 40;
  const NARROW = 420; // pixels

  // ---- elements

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value !== null) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  function shown(value) {
    if (value === null || value === undefined) return "";
    if (typeof value !== "number" || Number.isInteger(value)) return String(value);
    return String(Number(value.toPrecision(5)));
  }

  // ---- colours

  function theme() {
    return root.dataset.theme || (prefersDark.matches ? "dark" : "light");
  }

  const remembered = (() => {
    try { return localStorage.getItem("effnet-theme"); } catch { return null; }
  })();
  if (remembered === "dark" || remembered === "light") root.dataset.theme = remembered;

  const switcher = document.getElementById("theme");
  function nameSwitch() {
    switcher.textContent = theme() === "dark" ? "Light colours" : "Dark colours";
  }
  switcher.hidden = false;
  nameSwitch();
  switcher.addEventListener("click", () => {
    root.dataset.theme = theme() === "dark" ? "light" : "dark";
    try { localStorage.setItem("effnet-theme", root.dataset.theme); } catch { /* a page from a file may not remember */ }
    nameSwitch();
    drawAll();
  });
  prefersDark.addEventListener("change", () => { nameSwitch(); drawAll(); });

  // ---- charts

  function column(packed) {
    return packed.texts ? packed.places.map((place) => packed.texts[place]) : packed;
  }

  function rowsOf(chart) {
    if (!chart.rows) {
      const columns = Object.entries(chart.columns).map(([name, packed]) => [name, column(packed)]);
      const count = columns.length ? columns[0][1].length : 0;
      chart.rows = Array.from({ length: count }, (_, row) => Object.fromEntries(columns.map(([name, values]) => [name, values[row]])));
    }
    return chart.rows;
  }

  // On a phone, legends stand one below the other with a name in each line.
  function configured(width) {
    const config = data.themes[theme()];
    if (width >= NARROW) return config;
    return { ...config, legend: { ...config.legend, columns: 1, labelLimit: width - 80, layout: { direction: "vertical" } } };
  }

  async function embed(host, spec, rows, renderer) {
    const old = views.get(host);
    const words = ["role", "aria-label"].map((name) => [name, host.getAttribute(name)]);
    const result = await vegaEmbed(host, { width: "container", height: 260, ...spec, data: { values: rows } }, {
      mode: "vega-lite", actions: false, ast: true, renderer, defaultStyle: false,
      config: configured(host.clientWidth), tooltip: { theme: theme() },
    });
    if (old) old.finalize();
    views.set(host, result);
    // Vega describes the drawing; the page has better words for it.
    for (const [name, text] of words) host.setAttribute(name, text);
    host.removeAttribute("aria-roledescription");
    for (const drawn of host.querySelectorAll("svg, canvas")) drawn.setAttribute("aria-hidden", "true");
    return result;
  }

  let drawing = 0;
  async function drawAll() {
    const own = ++drawing;
    delete root.dataset.ready;
    for (const chart of charts.values()) {
      const host = document.getElementById(`chart-${chart.name}`);
      await embed(host, chart.spec, rowsOf(chart), "svg");
      if (own !== drawing) return; // other colours were asked for meanwhile
      await new Promise((done) => setTimeout(done));
    }
    for (const matrix of matrices) await matrix.draw();
    if (own === drawing) root.dataset.ready = "true";
  }

  // ---- files

  function save(name, content, type) {
    const url = type ? URL.createObjectURL(new Blob([content], { type })) : content;
    const link = element("a", { href: url, download: name });
    link.click();
    if (type) setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  function csvOf(names, rows) {
    const cell = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [names, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  }

  async function saveChart(chart, host, kind) {
    if (kind === "csv") {
      const names = Object.keys(chart.columns).filter((name) => !chart.hidden.includes(name));
      save(`${chart.name}.csv`, csvOf(names, rowsOf(chart).map((row) => names.map((name) => row[name]))), "text/csv");
      return;
    }
    const view = views.get(host).view;
    if (kind === "svg") save(`${chart.name}.svg`, await view.toSVG(), "image/svg+xml");
    else save(`${chart.name}.png`, await view.toImageURL("png", 2));
  }

  for (const button of document.querySelectorAll("button[data-save]")) {
    const chart = charts.get(button.dataset.chart);
    button.addEventListener("click", () => saveChart(chart, document.getElementById(`chart-${chart.name}`), button.dataset.save));
  }

  for (const details of document.querySelectorAll("details[data-values]")) {
    details.addEventListener("toggle", () => {
      if (!details.open || details.querySelector("table")) return;
      const chart = charts.get(details.dataset.values);
      const names = Object.keys(chart.columns).filter((name) => !chart.hidden.includes(name));
      const body = rowsOf(chart).map((row) => element("tr", {}, ...names.map((name) => element("td", {}, shown(row[name])))));
      details.append(element("div", { class: "values", tabindex: "0", role: "region", "aria-label": `Values of ${chart.title}` },
        element("table", {}, element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)))), element("tbody", {}, ...body))));
    });
  }

  // ---- tables that can be sorted and searched

  /* columns: {title, values: (number or text)[], texts?: text[] for numbers that stand for a name} */
  function sortableTable(host, label, columns, sortedBy, ascending) {
    const count = columns[0].values.length;
    const texts = columns.map((each) => each.names ? each.values.map((value) => each.names[value] ?? "") : each.values);
    const searched = Array.from({ length: count }, (_, row) => columns.map((each, place) => each.names ? texts[place][row] : "").join("\n").toLowerCase());
    const search = element("input", { type: "search", autocomplete: "off", oninput: () => { limit = MOST_ROWS; fill(); } });
    const told = element("span", { role: "status" });
    const more = element("button", { type: "button", onclick: () => { limit += 10 * MOST_ROWS; fill(); } }, "Show more");
    const heads = columns.map((each, place) => element("th", { scope: "col", class: each.names ? null : "number" },
      element("button", { type: "button", onclick: () => sort(place) }, each.title)));
    const body = element("tbody");
    const file = element("button", { type: "button", onclick: () => save(`${label.toLowerCase()}.csv`, csvOf(columns.map((each) => each.title),
      found().map((row) => texts.map((values) => values[row]))), "text/csv"), "aria-label": `CSV of ${label}` }, "CSV");
    let order = Array.from({ length: count }, (_, row) => row);
    let limit = MOST_ROWS, key = -1, up = true;

    function sort(place, direction) {
      up = direction ?? (place === key ? !up : Boolean(columns[place].names));
      key = place;
      const values = texts[place];
      const sign = up ? 1 : -1;
      order.sort((a, b) => {
        const [left, right] = [values[a], values[b]];
        if (left === right) return a - b;
        if (left === null || left === undefined) return 1;
        if (right === null || right === undefined) return -1;
        return sign * (typeof left === "number" ? left - right : left.localeCompare(right, undefined, { numeric: true }));
      });
      heads.forEach((head, index) => index === place ? head.setAttribute("aria-sort", up ? "ascending" : "descending") : head.removeAttribute("aria-sort"));
      fill();
    }

    function found() {
      const wanted = search.value.trim().toLowerCase();
      return wanted ? order.filter((row) => searched[row].includes(wanted)) : order;
    }

    function fill() {
      const rows = found();
      body.replaceChildren(...rows.slice(0, limit).map((row) => element("tr", {}, ...columns.map((each, place) =>
        element("td", { class: each.names ? null : "number" }, shown(texts[place][row]))))));
      more.hidden = rows.length <= limit;
      told.textContent = `${Math.min(limit, rows.length)} of ${rows.length}`;
    }

    host.append(
      element("div", { class: "tools" }, element("label", {}, "Search a class", search), told, file),
      element("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body)),
      more,
    );
    sort(sortedBy, ascending);
    return search;
  }

  function cellsOf(table) {
    const cells = [];
    for (let place = 0; place < table.cells.length; place += 3) cells.push(table.cells.slice(place, place + 3));
    return cells;
  }

  function confusions(host, table) {
    const cells = cellsOf(table);
    const images = new Map();
    for (const [truth, , count] of cells) images.set(truth, (images.get(truth) || 0) + count);
    const wrong = cells.filter(([truth, chosen]) => truth !== chosen);
    if (!wrong.length) { host.append(element("p", {}, "There are none.")); return; }
    sortableTable(host, "Confusions", [
      { title: "Class", values: wrong.map((cell) => cell[0]), names: table.classes },
      { title: "Predicted", values: wrong.map((cell) => cell[1]), names: table.classes },
      { title: "Images", values: wrong.map((cell) => cell[2]) },
      { title: "% of the class", values: wrong.map((cell) => 100 * cell[2] / images.get(cell[0])) },
    ], 2, false);
  }

  function classes(host, table) {
    const mistaken = new Map();
    for (const [truth, chosen, count] of cellsOf(table)) {
      if (truth !== chosen && count > (mistaken.get(truth)?.[1] || 0)) mistaken.set(truth, [chosen, count]);
    }
    const columns = Object.entries(table.metrics).map(([name, values]) =>
      name === "class" ? { title: "Class", values, names: table.classes } : { title: name.replaceAll("_", " "), values });
    if (table.cells.length) {
      columns.push({ title: "Mostly mistaken for", values: table.metrics.class.map((place) => mistaken.get(place)?.[0] ?? -1), names: table.classes });
    }
    const f1 = columns.findIndex((each) => each.title === "f1");
    sortableTable(host, "Classes", columns, Math.max(0, f1), true);
  }

  // ---- the confusion matrix as a picture

  const matrices = [];

  function matrix(host, table, place) {
    const cells = cellsOf(table);
    const present = [...new Set(cells.flatMap(([truth, chosen]) => [truth, chosen]))];
    const images = new Map(), right = new Map(), blamed = new Map();
    for (const [truth, chosen, count] of cells) {
      images.set(truth, (images.get(truth) || 0) + count);
      if (truth === chosen) right.set(truth, count);
      else blamed.set(chosen, (blamed.get(chosen) || 0) + count);
    }
    const recall = (each) => images.get(each) ? (right.get(each) || 0) / images.get(each) : 1;
    const orders = {
      "class": (a, b) => a - b,
      "name": (a, b) => table.classes[a].localeCompare(table.classes[b], undefined, { numeric: true }),
      "accuracy, lowest first": (a, b) => recall(a) - recall(b) || a - b,
      "images, most first": (a, b) => (images.get(b) || 0) - (images.get(a) || 0) || a - b,
      "wrongly predicted, most first": (a, b) => (blamed.get(b) || 0) - (blamed.get(a) || 0) || a - b,
    };
    const name = `confusion-matrix${place ? `-${place + 1}` : ""}`;
    const select = element("select", { onchange: () => draw() }, ...Object.keys(orders).map((each) => element("option", {}, each)));
    const search = element("input", { type: "search", autocomplete: "off", oninput: () => draw() });
    const told = element("span", { role: "status" });
    const picture = element("div", { class: "drawing", role: "img", "aria-label": `Confusion matrix of ${present.length} classes; the tables below hold its values` });
    const buttons = ["png", "svg", "csv"].map((kind) => element("button", { type: "button", "aria-label": `${kind.toUpperCase()} of the confusion matrix`,
      onclick: () => saveMatrix(kind) }, kind.toUpperCase()));
    host.append(element("div", { class: "tools" }, element("label", {}, "Order", select), element("label", {}, "Search a class", search), told, ...buttons), picture);

    function chosenClasses() {
      const wanted = search.value.trim().toLowerCase();
      const sorted = [...present].sort(orders[select.value]);
      if (!wanted) return sorted;
      const hit = new Set(present.filter((each) => table.classes[each].toLowerCase().includes(wanted)));
      // With what they are taken for, and what is taken for them.
      const kept = new Set(hit);
      for (const [truth, chosen] of cells) if (hit.has(truth) || hit.has(chosen)) { kept.add(truth); kept.add(chosen); }
      return sorted.filter((each) => kept.has(each));
    }

    async function draw() {
      const sorted = chosenClasses();
      const position = new Map(sorted.map((each, index) => [each, index]));
      const rows = cells.filter(([truth, chosen]) => position.has(truth) && position.has(chosen)).map(([truth, chosen, count]) => ({
        x: position.get(chosen), x1: position.get(chosen) + 1, y: position.get(truth), y1: position.get(truth) + 1,
        share: 100 * count / images.get(truth), images: count, truth: table.classes[truth], predicted: table.classes[chosen],
      }));
      told.textContent = `${sorted.length} of ${present.length} classes`;
      const count = Math.max(1, sorted.length);
      const names = sorted.map((each) => table.classes[each].slice(0, 40));
      const few = sorted.length <= LABELLED;
      const axis = few
        ? { values: sorted.map((_, index) => index + 0.5), labelExpr: `${JSON.stringify(names)}[floor(datum.value)]`, grid: false, ticks: false, labelLimit: 120 }
        : { labels: false, ticks: false, grid: false };
      const scale = { domain: [0, count], nice: false, zero: false };
      const side = Math.min(picture.clientWidth || 600, 640);
      await embed(picture, {
        height: side, mark: "rect",
        encoding: {
          x: { field: "x", type: "quantitative", scale, title: "predicted", axis: { ...axis, labelAngle: -90 } }, x2: { field: "x1" },
          y: { field: "y", type: "quantitative", scale: { ...scale, reverse: true }, title: "class", axis }, y2: { field: "y1" },
          color: { field: "share", type: "quantitative", title: "% of the class",
            scale: { domain: [0, 100], range: theme() === "dark" ? ["#22303f", "#8ccbff"] : ["#d5e5f5", "#08306b"] },
            legend: { orient: "top", direction: "horizontal", gradientLength: 200 } },
          tooltip: [{ field: "truth", type: "nominal", title: "class" }, { field: "predicted", type: "nominal" }, { field: "images", type: "quantitative" },
            { field: "share", type: "quantitative", title: "% of the class", format: ".1f" }],
        },
      }, rows, "canvas");
    }

    async function saveMatrix(kind) {
      if (kind === "csv") {
        save(`${name}.csv`, csvOf(["class", "predicted", "images"], cells.map(([truth, chosen, count]) => [table.classes[truth], table.classes[chosen], count])), "text/csv");
        return;
      }
      const view = views.get(picture).view;
      if (kind === "svg") save(`${name}.svg`, await view.toSVG(), "image/svg+xml");
      else save(`${name}.png`, await view.toImageURL("png", 2));
    }

    matrices.push({ draw });
  }

  for (const host of document.querySelectorAll("[data-matrix]")) matrix(host, data.tables[Number(host.dataset.matrix)], Number(host.dataset.matrix));
  for (const host of document.querySelectorAll("[data-table]")) {
    (host.dataset.table === "classes" ? classes : confusions)(host, data.tables[Number(host.dataset.section)]);
  }

  // ---- the recipe

  const filter = document.getElementById("recipe-filter");
  const settings = [...document.querySelectorAll("#recipe-table tbody tr")];
  function filterSettings() {
    const wanted = filter.querySelector("input:checked").value;
    let count = 0;
    for (const row of settings) {
      row.hidden = wanted !== "all" && !(wanted in row.dataset);
      count += !row.hidden;
    }
    document.getElementById("recipe-count").textContent = `${count} of ${settings.length} settings`;
  }
  filter.hidden = false;
  filter.addEventListener("change", filterSettings);
  filterSettings();

  // ---- a run that goes on

  if (data.live) {
    const note = document.getElementById("live");
    const ask = async () => {
      try {
        const answer = await fetch("state", { cache: "no-store" });
        const state = await answer.json();
        if (state.version !== data.version) { location.reload(); return; }
        note.textContent = state.line;
      } catch {
        note.textContent = "The server has ended; the page shows what was there last.";
        return;
      }
      setTimeout(ask, 2000);
    };
    ask();
  }

  drawAll();
})();
