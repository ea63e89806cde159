// The chart of operating points: series, fronts of the chosen pair of axes, what was confirmed, the knee.
function pointChart(data, hoverText, groupsOf) {
  const points = data.points, count = points.trial.length;
  const axes = new Map(data.axes.map((axis) => [axis.name, axis]));
  const hidden = { model: new Set(), router: new Set() };
  const hover = Array.from({ length: count }, (_, index) => hoverText(index));
  let showsAll = false;

  function fillControls(before) {
    const others = data.axes.map((axis) => axis.name).filter((name) => name !== data.objectives[0]);
    const chosen = { "axis-x": data.objectives[1] || others[0] || data.objectives[0], "axis-y": data.objectives[0] };
    for (const id of Object.keys(chosen)) {
      for (const axis of data.axes) byId(id).append(element("option", axis.label, { value: axis.name }));
      byId(id).value = axes.has(before[id]) ? before[id] : chosen[id];
      byId(id).addEventListener("change", () => {
        byId(id.replace("axis", "log")).checked = axes.get(byId(id).value).log;
        showsAll = false;
        draw();
      });
    }
    for (const [log, axis] of [["log-x", "axis-x"], ["log-y", "axis-y"]]) {
      byId(log).checked = log in before ? before[log] : axes.get(byId(axis).value).log;
    }
    for (const kind of ["model", "router"]) {
      const values = [...new Set(points.trial.map((_, index) => groupsOf(index)[kind]))].filter(Boolean).sort();
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
    byId("filters").hidden = byId("filter-model").hidden && byId("filter-router").hidden;
    for (const id of ["log-x", "log-y"]) byId(id).addEventListener("change", draw);
    byId("show-all").addEventListener("click", () => { showsAll = !showsAll; draw(); });
  }

  const visible = (index) => !hidden.model.has(groupsOf(index).model) && !hidden.router.has(groupsOf(index).router);

  // Allowed points that no other of these is better than in both, by the first axis from good to bad; none without directions.
  function frontOf(indices, x, y) {
    const better = (name) => ({ minimize: 1, maximize: -1 })[axes.get(name).goal] || 0;
    const signX = better(x), signY = better(y);
    if (!signX || !signY || x === y) return [];
    const loss = (name, sign, i) => sign * points.values[name][i];
    const measured = indices.filter((i) => points.allowed[i] && points.values[x][i] !== null && points.values[y][i] !== null);
    measured.sort((a, b) => loss(x, signX, a) - loss(x, signX, b) || loss(y, signY, a) - loss(y, signY, b));
    const front = [];
    let best = Infinity;
    for (const i of measured) {
      if (loss(y, signY, i) < best) { best = loss(y, signY, i); front.push(i); }
    }
    return front;
  }

  function trace(indices, x, y, extra) {
    const scaled = (name) => indices.map((i) => {
      const value = points.values[name][i];
      return value === null ? null : value * axes.get(name).scale;
    });
    return Object.assign({ x: scaled(x), y: scaled(y), customdata: indices, text: indices.map((i) => hover[i]),
      type: kindOf(count), mode: "markers", hovertemplate: "%{text}<extra></extra>" }, extra);
  }

  function line(indices, x, y, name, color, dash) {
    const shape = axes.get(x).goal === "minimize" ? "hv" : "vh";
    return trace(indices, x, y, { mode: "lines", name: name, type: "scatter", hoverinfo: "skip", hovertemplate: null,
      line: { shape: shape, width: dash ? 1.5 : 2, color: color, dash: dash || "solid" } });
  }

  // What confirm found, where these axes can show it.
  function confirmedTrace(x, y) {
    const sure = data.confirmed;
    if (!sure || x !== data.objectives[1] || (y !== data.objectives[0] && y !== sure.metric)) return null;
    const factor = axes.get(data.objectives[0]).scale;
    const far = (ends, sign) => ends.map((end, i) => (end === null ? null : sign * (end - sure.y[i]) * factor));
    return { x: sure.x.map((value) => value * axes.get(x).scale), y: sure.y.map((value) => value * factor),
      error_y: { type: "data", symmetric: false, array: far(sure.y_high, 1), arrayminus: far(sure.y_low, -1),
        color: themed("--ink"), thickness: 1.5, width: 4 },
      name: sure.label, type: "scatter", mode: "markers",
      hovertemplate: "%{y:.2f}<extra>" + escaped(sure.label) + "</extra>",
      marker: { size: 11, symbol: "pentagon", color: themed("--paper"), line: { width: 2, color: themed("--ink") } } };
  }

  // The y range of the fronts with what was confirmed; null where it would leave nothing out.
  function rangeOf(kept, y, fronts, sure) {
    if (y !== data.objectives[0] && !(data.confirmed && y === data.confirmed.metric)) return null;
    const factor = axes.get(y).scale;
    const inside = fronts.flat().map((i) => points.values[y][i] * factor);
    if (sure) {
      inside.push(...sure.y, ...sure.y.map((v, i) => v + (sure.error_y.array[i] || 0)),
        ...sure.y.map((v, i) => v - (sure.error_y.arrayminus[i] || 0)));
    }
    if (!inside.length) return null;
    const low = Math.min(...inside), high = Math.max(...inside), margin = 0.06 * (high - low) || 0.05 * Math.abs(high) || 1;
    const range = [low - margin, high + margin];
    const outside = kept.filter((i) => {
      const value = points.values[y][i];
      return value !== null && (value * factor < range[0] || value * factor > range[1]);
    }).length;
    return outside ? { range, outside } : null;
  }

  function draw() {
    const x = byId("axis-x").value, y = byId("axis-y").value, log = byId("log-y").checked;
    const kept = points.trial.map((_, index) => index).filter(visible);
    const isStudy = x === data.objectives[1] && y === data.objectives[0];
    const perSeries = data.lines === "series";
    const pair = frontOf(kept, x, y);
    const dense = perSeries ? [] : frontOf(kept.filter((i) => data.series[points.series[i]].dense), x, y);
    const flagged = new Set(isStudy && data.front && data.objectives.length > 2 ? kept.filter((i) => data.front[i]) : pair);
    dense.forEach((i) => flagged.add(i));
    const traces = [];
    const looks = data.series.map((one) => ({ color: inkOr(one.color), symbol: one.symbol }));
    const own = data.series.map((_, s) => kept.filter((i) => points.series[i] === s));
    const fronts = [pair, dense.slice(-1)]; // of the dense front its best: cheap poor nets would flatten all else
    if (perSeries) {
      data.series.forEach((one, s) => {
        fronts.push(frontOf(own[s], x, y));
        fronts.at(-1).forEach((i) => flagged.add(i));
        if (fronts.at(-1).length) traces.push(line(fronts.at(-1), x, y, one.name, looks[s].color));
      });
    } else if (pair.length) {
      const title = data.objectives.length > 2 && isStudy ? "front of these two" : "front";
      traces.push(line(pair, x, y, title + " (" + pair.length + ")", themed("--accent")));
      if (dense.length > 1) traces.push(line(dense, x, y, "dense front (" + dense.length + ")", themed("--ink"), "dash"));
    }
    data.series.forEach((one, s) => traces.unshift(trace(own[s].filter((i) => !flagged.has(i)), x, y, { name: one.name,
      opacity: one.dense ? 0.75 : 0.4, marker: { size: one.dense ? 8 : 6, ...looks[s] } })));
    data.series.forEach((one, s) => traces.push(trace(own[s].filter((i) => flagged.has(i)), x, y, { name: one.name,
      type: "scatter", marker: { size: 11, ...looks[s], line: { width: 1.5, color: themed("--ink") } } })));
    const sure = confirmedTrace(x, y);
    if (sure) traces.push(sure);
    fillLegend("legend", [
      ...traces.filter((one) => one.mode === "lines" && !perSeries).map((one) => ({ name: one.name,
        symbol: one.line.dash === "dash" ? "dash" : "line", color: one.line.color })),
      ...data.series.map((one, s) => ({ name: one.name || "operating points", ...looks[s] })).filter((_, s) => own[s].length),
      ...(sure ? [{ name: sure.name, symbol: "pentagon", color: themed("--ink") }] : []),
      ...(data.knee ? [{ name: "knee", symbol: "ring", color: themed("--knee") }] : [])]);
    if (data.knee) {
      traces.push(trace(kept.filter((i) => data.knee[i]), x, y, { name: "knee", type: "scatter", hoverinfo: "skip",
        hovertemplate: null, marker: { size: 22, color: "rgba(0,0,0,0)", line: { width: 3, color: themed("--knee") } } }));
    }
    const narrow = rangeOf(kept, y, fronts, sure);
    byId("show-all").hidden = !narrow;
    if (narrow) byId("show-all").textContent = showsAll ? "Follow the front" : "Show all (" + narrow.outside + " outside)";
    const both = sure && y !== data.confirmed.metric ? "; pentagons: test" : "";
    const ticks = (name) => logTicks(kept.map((i) => points.values[name][i] * axes.get(name).scale));
    const yaxis = axisLayout(axes.get(y).label + both, log, ticks(y));
    if (narrow && !showsAll) yaxis.range = log ? narrow.range.map((v) => Math.log10(Math.max(v, 1e-12))) : narrow.range;
    const layout = chartLayout({ uirevision: x + y + showsAll + byId("log-x").checked + log,
      xaxis: axisLayout(axes.get(x).label, byId("log-x").checked, ticks(x)), yaxis });
    const dropped = data.dropped ? " (" + data.dropped.toLocaleString("en") + " more are left out of the chart)" : "";
    byId("shown").textContent = kept.length.toLocaleString("en") + " of " + count.toLocaleString("en") + " points" + dropped;
    return window.Plotly.react(byId("chart"), traces, layout, PLOT);
  }

  const state = () => ({ "axis-x": byId("axis-x").value, "axis-y": byId("axis-y").value, "log-x": byId("log-x").checked,
    "log-y": byId("log-y").checked });
  return { fillControls, draw, axes, frontOf, state };
}
