// The page of several studies: their points in one chart, a front for each.
(async function () {
  const data = JSON.parse(await inflate("data"));
  const studies = data.series.map((one) => one.name), studyOf = new Map();
  data.trial_of.forEach((row, index) => studyOf.set(row, studies[data.points.series[index]]));
  const facts = pointFacts(data, (row) => studyOf.get(row));
  const chart = pointChart(data, facts.hoverText, facts.groupsOf), board = pinBoard(facts.describe);
  if (!data.points.trial.length) {
    byId("chart").textContent = "No operating point has been measured yet.";
    document.documentElement.dataset.ready = "yes";
    return;
  }
  withLibrary(async () => {
    chart.fillControls({});
    await chart.draw();
    dark.addEventListener("change", chart.draw);
    byId("chart").on("plotly_click", (event) => {
      const index = event.points.length ? event.points[0].customdata : undefined;
      if (index !== undefined) board.pin({ row: data.trial_of[index], index });
    });
    document.documentElement.dataset.ready = "yes";
  });
})();
