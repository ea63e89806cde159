"use strict";
// Glue between the page's data and the chart library; both lie gzipped in the page, so that it needs no network.
(async function () {
  const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star"];
  const SVG_LIMIT = 2000; // beyond this many points SVG is slow and WebGL draws them, where there is WebGL
  const PAGE_ROWS = 100;
  const byId = (id) => document.getElementById(id);

  async function inflate(id) {
    const bytes = Uint8Array.from(atob(byId(id).textContent), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  function element(tag, text, attributes) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    return node;
  }

  const data = JSON.parse(await inflate("data"));
  const points = data.points, trials = data.trials;
  const count = points.trial.length;
  const axes = new Map(data.axes.map((axis) => [axis.name, axis]));
  const rowOf = new Map(trials.number.map((number, row) => [number, row]));
  const valueOf = (column, row) => (column && column.codes[row] >= 0 ? column.values[column.codes[row]] : "");
  const keyOf = (key, row) => valueOf(trials.keys[key], row);
  const modelOf = (row) => keyOf("model.name", row) || "unknown";
  const routerOf = (row) => keyOf("model.router.mode", row);
  const arms = trials.arm && trials.arm.values.length <= PALETTE.length ? trials.arm : null; // more have no colours
  const groupOf = (row) => valueOf(arms, row) || modelOf(row) + (routerOf(row) ? " · " + routerOf(row) : "");
  const shown = (name, value) => {
    const axis = axes.get(name);
    if (value === null || value === undefined) return "";
    return (value * (axis ? axis.scale : 1)).toLocaleString("en", { maximumSignificantDigits: 5 });
  };

  // ---- one operating point -------------------------------------------------------------------------------------
  function knobText(index) {
    const knob = valueOf(points.knob, index);
    const value = valueOf(points.knob_value, index);
    if (!knob || value === "") return "";
    return knob + " = " + (isNaN(value) ? value : Number(Number(value).toPrecision(4)));
  }

  function facts(index) {
    const list = data.axes.map((axis) => [axis.label, shown(axis.name, points.values[axis.name][index])]);
    if (knobText(index)) list.push(["knob", knobText(index) + (points.is_default[index] ? " (its own setting)" : "")]);
    return list.filter((fact) => fact[1] !== "");
  }

  function yamlOf(index) {
    const row = rowOf.get(points.trial[index]);
    const lines = [];
    for (const key of Object.keys(trials.keys)) {
      if (keyOf(key, row) === "" || (key === "evaluation.knob_value" && !points.is_default[index])) continue;
      lines.push(key + ": " + keyOf(key, row));
    }
    if (!points.is_default[index] && valueOf(points.knob_value, index) !== "") {
      lines.push("evaluation.knob_value: " + valueOf(points.knob_value, index));
    }
    return lines.join("\n") + "\n";
  }

  const brief = [...new Set([...data.objectives, "routing_ratio", "params"])].filter((name) => axes.has(name));
  const escaped = (text) => String(text).replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
  function hoverText(index) {
    const row = rowOf.get(points.trial[index]);
    const lines = ["<b>trial " + points.trial[index] + "</b> " + escaped(groupOf(row))];
    for (const name of brief) {
      const value = shown(name, points.values[name][index]);
      if (value !== "") lines.push(escaped(axes.get(name).label) + ": " + escaped(value));
    }
    if (knobText(index)) lines.push(escaped(knobText(index)));
    for (const key of trials.varied.slice(0, 12)) {
      if (keyOf(key, row) !== "" && key !== "model.name" && key !== "model.router.mode") {
        lines.push(escaped(key) + ": " + escaped(keyOf(key, row)));
      }
    }
    return lines.join("<br>");
  }

  // ---- chart ---------------------------------------------------------------------------------------------------
  const hover = Array.from({ length: count }, (_, index) => hoverText(index));
  const groups = [...new Set(points.trial.map((number) => groupOf(rowOf.get(number))))].sort();
  const hidden = { model: new Set(), router: new Set() };
  const hasWebGL = (() => {
    try { return !!document.createElement("canvas").getContext("webgl2"); } catch (error) { return false; }
  })();

  function fillControls() {
    const others = data.axes.map((axis) => axis.name).filter((name) => name !== data.objectives[0]);
    const against = data.objectives[1] || others[0] || data.objectives[0];
    for (const [id, chosen] of [["axis-x", against], ["axis-y", data.objectives[0]]]) {
      for (const axis of data.axes) byId(id).append(element("option", axis.label, { value: axis.name }));
      byId(id).value = chosen;
    }
    byId("log-x").checked = /flops|latency|params|seconds/.test(byId("axis-x").value);
    for (const [kind, of] of [["model", modelOf], ["router", routerOf]]) {
      const values = [...new Set(points.trial.map((number) => of(rowOf.get(number))))].filter(Boolean).sort();
      byId("filter-" + kind).hidden = values.length < 2;
      for (const value of values) {
        const label = element("label"), box = element("input", undefined, { type: "checkbox", value: value });
        box.checked = true;
        box.addEventListener("change", () => {
          if (box.checked) hidden[kind].delete(value); else hidden[kind].add(value);
          draw();
        });
        label.append(box, value);
        byId("filter-" + kind).append(label);
      }
    }
    for (const id of ["axis-x", "axis-y", "log-x", "log-y"]) byId(id).addEventListener("change", draw);
  }

  function visible(index) {
    const row = rowOf.get(points.trial[index]);
    return !hidden.model.has(modelOf(row)) && !hidden.router.has(routerOf(row));
  }

  function trace(indices, x, y, extra) {
    const scaled = (name) => indices.map((i) => {
      const value = points.values[name][i];
      return value === null ? null : value * axes.get(name).scale;
    });
    return Object.assign({
      x: scaled(x), y: scaled(y), customdata: indices, text: indices.map((i) => hover[i]),
      type: count > SVG_LIMIT && hasWebGL ? "scattergl" : "scatter", mode: "markers",
      hovertemplate: "%{text}<extra></extra>",
    }, extra);
  }

  // Ticks of a logarithmic axis with their whole value: the library writes only the digit between decades.
  function logTicks(values) {
    const positive = values.filter((value) => value > 0);
    const low = positive.reduce((a, b) => Math.min(a, b), Infinity), high = positive.reduce((a, b) => Math.max(a, b), 0);
    if (!positive.length || high / low < 1.5) return {}; // too narrow for round numbers: the library's own ticks
    const steps = high / low > 500 ? [1] : high / low > 4 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)) - 1; power <= Math.ceil(Math.log10(high)) + 1; power++) {
      for (const step of steps) ticks.push(step * 10 ** power);
    }
    const units = [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"], [0, ""]];
    const text = (value) => {
      const [size, letter] = units.find((unit) => value >= unit[0]);
      return Number((size ? value / size : value).toPrecision(3)) + letter;
    };
    return { tickvals: ticks, ticktext: ticks.map(text) };
  }

  // Colour and shape of a group: after a round of colours the shapes shift, so that no two groups look alike.
  function look(g) {
    const round = Math.floor(g / PALETTE.length);
    return { color: PALETTE[g % PALETTE.length], symbol: SYMBOLS[(g + round) % SYMBOLS.length] };
  }

  function draw() {
    const x = byId("axis-x").value, y = byId("axis-y").value;
    const kept = points.trial.map((_, index) => index).filter(visible);
    const traces = groups.map((group, g) => trace(
      kept.filter((i) => groupOf(rowOf.get(points.trial[i])) === group && !points.front[i]), x, y,
      { name: group, showlegend: false, opacity: 0.45,
        marker: { size: 6, ...look(g) } }));
    const isFront = x === data.objectives[1] && y === data.objectives[0] && data.objectives.length === 2;
    const front = kept.filter((i) => points.front[i]).sort((a, b) => points.values[x][a] - points.values[x][b]);
    if (isFront) {
      traces.push(trace(front, x, y, { mode: "lines", line: { shape: "hv", width: 1.5, color: "#1b1f24" },
        hoverinfo: "skip", hovertemplate: null, name: "front", type: "scatter" }));
    }
    groups.forEach((group, g) => {
      if (!kept.some((i) => groupOf(rowOf.get(points.trial[i])) === group)) return;
      const own = front.filter((i) => groupOf(rowOf.get(points.trial[i])) === group);
      const marker = { size: 11, ...look(g),
        line: { width: 1.5, color: "#1b1f24" } };
      const legendOnly = own.length ? {} : { x: [null], y: [null] }; // a group without a front point keeps its legend
      traces.push(trace(own, x, y, { name: group, showlegend: true, marker, type: "scatter", ...legendOnly }));
    });
    const sure = data.confirmed; // points that were trained again under fresh seeds, with their intervals
    const isConfirmed = sure && x === data.objectives[1] && (y === data.objectives[0] || y === sure.metric);
    if (isConfirmed) {
      const far = (ends, sign) => ends.map((end, i) => sign * (end - sure.y[i]) * sure.scale);
      traces.push({ x: sure.x.map((value) => value * axes.get(x).scale), y: sure.y.map((value) => value * sure.scale),
        error_y: { type: "data", symmetric: false, array: far(sure.y_high, 1), arrayminus: far(sure.y_low, -1),
          color: "#1b1f24", thickness: 1.5, width: 4 },
        name: sure.label, type: "scatter", mode: "markers", hovertemplate: "%{y:.5~g}<extra>" + escaped(sure.label) + "</extra>",
        marker: { size: 11, symbol: "pentagon", color: "#ffffff", line: { width: 2, color: "#1b1f24" } } });
    }
    const knee = kept.filter((i) => points.knee[i]);
    traces.push(trace(knee, x, y, { name: "knee", type: "scatter", hoverinfo: "skip", hovertemplate: null,
      marker: { size: 22, color: "rgba(0,0,0,0)", line: { width: 3, color: "#b34700" } } }));
    const both = isConfirmed && y !== sure.metric ? "; pentagons: test" : "";
    const axis = (name, log, more) => ({ title: { text: axes.get(name).label + (more || "") }, type: log ? "log" : "linear",
      gridcolor: "#e6e8eb", zeroline: false, exponentformat: "SI", automargin: true, tickangle: 0,
      ...(log ? logTicks(kept.map((i) => points.values[name][i] * axes.get(name).scale)) : {}) });
    const layout = { uirevision: x + y, xaxis: axis(x, byId("log-x").checked), yaxis: axis(y, byId("log-y").checked, both),
      hovermode: "closest", hoverlabel: { align: "left", bgcolor: "#ffffff", font: { size: 12, color: "#1b1f24" } },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
      margin: { l: 60, r: 20, t: 20, b: 50 }, font: { family: "system-ui, sans-serif", size: 13 } };
    const dropped = data.dropped ? " (" + data.dropped.toLocaleString("en") + " more are left out of the chart)" : "";
    byId("shown").textContent = kept.length.toLocaleString("en") + " of " + count.toLocaleString("en") + " points" + dropped;
    return window.Plotly.react(byId("chart"), traces, layout, { responsive: true, displaylogo: false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });
  }

  // ---- pinned point --------------------------------------------------------------------------------------------
  function pin(index) {
    const row = rowOf.get(points.trial[index]);
    byId("pinned-title").textContent = "Trial " + points.trial[index] + ": " + groupOf(row);
    const list = byId("pinned-facts");
    list.replaceChildren();
    for (const [name, value] of facts(index)) list.append(element("dt", name), element("dd", value));
    byId("pinned-yaml").textContent = yamlOf(index);
    byId("copied").textContent = "";
    byId("pinned").hidden = false;
    byId("explorer").classList.add("open");
    window.dispatchEvent(new Event("resize"));
  }

  function unpin() {
    byId("pinned").hidden = true;
    byId("explorer").classList.remove("open");
    window.dispatchEvent(new Event("resize"));
  }

  async function copy() {
    const node = byId("pinned-yaml");
    try {
      await navigator.clipboard.writeText(node.textContent);
    } catch (error) { // pages opened from disk may not use the clipboard interface
      const range = document.createRange();
      range.selectNodeContents(node);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      if (!document.execCommand("copy")) {
        byId("copied").textContent = "selected: press Ctrl+C";
        return;
      }
    }
    byId("copied").textContent = "copied";
  }

  // ---- trial table ---------------------------------------------------------------------------------------------
  const columns = data.table;
  const cell = (column, row) => (column.numeric ? column.cells[row] : valueOf(column.cells, row));
  const cellText = (column, row) => {
    const value = cell(column, row);
    if (value === null || value === "") return "";
    return column.numeric ? (value * column.scale).toLocaleString("en", { maximumSignificantDigits: 6, useGrouping: column.name !== "number" && column.name !== "seed" }) : value;
  };
  const texts = trials.number.map((_, row) => columns.map((column) => cellText(column, row)).join(" ").toLowerCase());
  const pointOf = new Map();
  points.trial.forEach((number, index) => {
    if (!pointOf.has(number) || points.is_default[index]) pointOf.set(number, index);
  });
  let order = trials.number.map((_, row) => row), sorted = { column: 0, down: false }, limit = PAGE_ROWS;

  function sortBy(position) {
    sorted = { column: position, down: sorted.column === position ? !sorted.down : false };
    const column = columns[position], sign = sorted.down ? -1 : 1;
    const empty = (value) => value === null || value === "";
    order.sort((a, b) => {
      const left = cell(column, a), right = cell(column, b);
      if (empty(left) || empty(right)) return empty(left) - empty(right);
      return sign * (column.numeric ? left - right : String(left).localeCompare(String(right)));
    });
    fillTable();
  }

  function fillHeader() {
    const header = document.querySelector("#table thead tr");
    columns.forEach((column, position) => {
      const head = element("th", undefined, { scope: "col", class: column.numeric ? "number" : "" });
      const button = element("button", column.label, { type: "button" });
      button.addEventListener("click", () => sortBy(position));
      head.append(button);
      header.append(head);
    });
    header.append(element("th", "configuration", { scope: "col" }));
  }

  function fillTable() {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = order.filter((row) => words.every((word) => texts[row].includes(word)));
    document.querySelectorAll("#table thead th").forEach((head, position) => {
      if (position === sorted.column) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const body = document.createDocumentFragment();
    for (const row of rows.slice(0, limit)) {
      const line = element("tr");
      for (const column of columns) line.append(element("td", cellText(column, row), { class: column.numeric ? "number" : "" }));
      const last = element("td"), index = pointOf.get(trials.number[row]);
      if (index !== undefined) {
        const button = element("button", "show", { type: "button", class: "plain", "aria-label": "show configuration of trial " + trials.number[row] });
        button.addEventListener("click", () => { pin(index); byId("explorer").scrollIntoView({ block: "nearest" }); });
        last.append(button);
      }
      line.append(last);
      body.append(line);
    }
    document.querySelector("#table tbody").replaceChildren(body);
    byId("matching").textContent = rows.length.toLocaleString("en") + " of " + trials.number.length.toLocaleString("en") + " trials";
    byId("more").hidden = rows.length <= limit;
  }

  fillHeader();
  fillTable();
  byId("search").addEventListener("input", () => { limit = PAGE_ROWS; fillTable(); });
  byId("more").addEventListener("click", () => { limit *= 4; fillTable(); });
  byId("copy").addEventListener("click", copy);
  byId("unpin").addEventListener("click", unpin);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") unpin(); });

  if (count) {
    const address = URL.createObjectURL(new Blob([await inflate("library")], { type: "text/javascript" }));
    const library = element("script", undefined, { src: address });
    library.addEventListener("load", async () => {
      fillControls();
      await draw();
      byId("chart").on("plotly_click", (event) => {
        if (event.points.length && event.points[0].customdata !== undefined) pin(event.points[0].customdata);
      });
      document.documentElement.dataset.ready = "yes";
    });
    document.head.append(library);
  } else {
    byId("chart").textContent = "No operating point has been measured yet.";
    document.documentElement.dataset.ready = "yes";
  }
})();
