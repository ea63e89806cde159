"use strict";
// What every part of a page uses: its data, numbers as text, the theme's colours, the chart library.
const SVG_LIMIT = 2000; // beyond this many points SVG is slow and WebGL draws them, where there is WebGL
const byId = (id) => document.getElementById(id);
const escaped = (text) => String(text).replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);

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

// Loads the packed chart library and calls back.
async function withLibrary(done) {
  const address = URL.createObjectURL(new Blob([await inflate("library")], { type: "text/javascript" }));
  const library = element("script", undefined, { src: address });
  library.addEventListener("load", done);
  document.head.append(library);
}

// A count with three digits and a prefix, as the tables and figures write it.
function countText(value) {
  for (const [size, letter] of [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (Math.abs(value) >= size * 0.9995) {
      const scaled = value / size;
      return scaled.toFixed(Math.abs(scaled) >= 99.95 ? 0 : Math.abs(scaled) >= 9.995 ? 1 : 2) + letter;
    }
  }
  return value.toFixed(0);
}

// A stored value with the digits of its quantity: the same number has the same digits everywhere.
function numberText(column, value) {
  if (value === null || value === undefined) return "";
  if (column.digits === "count") return countText(value);
  if (column.digits === "text") return String(value);
  const scaled = value * column.scale, fixed = /^\.(\d+)f$/.exec(column.digits);
  if (fixed) return scaled.toFixed(Number(fixed[1]));
  const digits = Number((/^\.(\d+)g$/.exec(column.digits) || [0, 4])[1]);
  return String(Number(scaled.toPrecision(digits)));
}

const unitText = (axis, value) => numberText(axis, value) + (axis.unit && value !== null ? " " + axis.unit : "");

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

// ---- theme -----------------------------------------------------------------------------------------------------
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const inkOr = (color) => (color === "#000000" ? themed("--ink") : color); // black lines vanish on a dark page

function axisLayout(title, log, ticks) {
  return { title: { text: title, standoff: 8 }, type: log ? "log" : "linear", gridcolor: themed("--grid"), zeroline: false,
    linecolor: themed("--line"), exponentformat: "SI", automargin: true, tickangle: 0, ...(log ? ticks : {}) };
}

function chartLayout(more) {
  return { hovermode: "closest", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { align: "left", bgcolor: themed("--paper"), font: { size: 12, color: themed("--ink") } },
    showlegend: false,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: themed("--soft"), activecolor: themed("--ink") },
    margin: { l: 60, r: 20, t: 12, b: 62 }, font: { family: "system-ui, sans-serif", size: 13, color: themed("--ink") },
    ...more };
}

// The legend of a chart: the library's own takes the height that a narrow chart needs.
const GLYPHS = { circle: "●", square: "■", diamond: "◆", "triangle-up": "▲", cross: "✚", x: "✖", "triangle-down": "▼",
  star: "★", "triangle-left": "◀", "triangle-right": "▶", "diamond-tall": "♦", hexagon2: "⬢", line: "━", dash: "╌╌",
  ring: "◯", pentagon: "⬠", octagon: "⬟", hexagon: "⬣" };
function fillLegend(id, entries) {
  byId(id).replaceChildren(...entries.map(({ name, symbol, color }) => {
    const item = element("li"), glyph = element("span", GLYPHS[symbol], { "aria-hidden": "true" });
    glyph.style.color = color;
    item.append(glyph, name);
    return item;
  }));
}

const PLOT = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
const hasWebGL = (() => {
  try { return !!document.createElement("canvas").getContext("webgl2"); } catch (error) { return false; }
})();
const kindOf = (count) => (count > SVG_LIMIT && hasWebGL ? "scattergl" : "scatter");

// ---- a page that is written again while its study runs ----------------------------------------------------------
function reloadLater(state) {
  const seconds = Number(document.documentElement.dataset.refresh);
  if (!seconds) return;
  const again = () => {
    if (document.hidden || (document.activeElement && document.activeElement.matches("input[type=search], select"))) {
      setTimeout(again, 1000); // not while somebody types or chooses
      return;
    }
    try { sessionStorage.setItem(location.pathname, JSON.stringify(state())); } catch (error) { /* no storage */ }
    location.reload();
  };
  setTimeout(again, seconds * 1000);
}

function restored() {
  try { return JSON.parse(sessionStorage.getItem(location.pathname)) || {}; } catch (error) { return {}; }
}
