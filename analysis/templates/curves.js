// Learning curves: a line per trial, those of the front in full strength.
function curveChart(data, show) {
  const found = data.curves, choice = byId("curve-metric");
  const place = new Map(data.series.map((one, index) => [one.name, index]));
  const metrics = new Map(found.metrics.map((metric) => [metric.name, metric]));
  for (const metric of found.metrics) choice.append(element("option", metric.label, { value: metric.name }));
  choice.addEventListener("change", draw);

  function draw() {
    const metric = metrics.get(choice.value), named = new Map(), traces = [];
    const strong = (one) => one.front;
    for (const one of [...found.trials].sort((a, b) => strong(a) - strong(b))) {
      if (!one.values[metric.name]) continue;
      const series = data.series[place.get(one.series)];
      const name = series ? series.name || "trials" : "stopped or running";
      traces.push({ x: one.epoch, y: one.values[metric.name].map((v) => (v === null ? null : v * metric.scale)),
        type: "scatter", mode: one.epoch.length > 40 ? "lines" : "lines+markers", name, opacity: strong(one) ? 1 : 0.35, customdata: one.epoch.map(() => one.trial),
        hovertemplate: "trial " + one.trial + ", epoch %{x}: %{y:.4~g}<extra>" + escaped(name) + "</extra>",
        line: { width: strong(one) ? 2 : 1, color: series ? inkOr(series.color) : themed("--soft") },
        marker: { size: 5, symbol: series ? series.symbol : "circle-open" } });
      named.set(name, { name, symbol: series ? series.symbol : "ring", color: series ? inkOr(series.color) : themed("--soft") });
    }
    fillLegend("curve-legend", [...named.values()]);
    const left = found.left_out ? "; " + found.left_out.toLocaleString("en") + " more trials are left out" : "";
    byId("curves-shown").textContent = traces.length + " trials, those with a point on the front in full strength" + left;
    const layout = chartLayout({ xaxis: { ...axisLayout("epoch"), tickformat: "d" }, yaxis: axisLayout(metric.label), uirevision: metric.name });
    return window.Plotly.react(byId("curve-chart"), traces, layout, PLOT);
  }

  return { draw, listen: () => byId("curve-chart").on("plotly_click", (event) => show(event.points[0].customdata)) };
}
