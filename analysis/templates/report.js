// The report of one study: chart, pinned points, trial table and learning curves over the same trials.
(async function () {
  const data = JSON.parse(await inflate("data"));
  const points = data.points, trials = data.trials;
  const rowOf = new Map(trials.number.map((number, row) => [number, row]));
  const facts = pointFacts(data);
  const chart = pointChart(data, facts.hoverText, facts.groupsOf), board = pinBoard(facts.describe);
  const pointOf = new Map();
  points.trial.forEach((number, index) => { if (!pointOf.has(number) || points.is_default[index]) pointOf.set(number, index); });

  function showTrial(number) {
    if (!rowOf.has(number)) return;
    board.pin({ row: rowOf.get(number), index: pointOf.get(number) });
    byId("explorer").scrollIntoView({ block: "nearest" });
  }
  const showAddress = () => { const found = /^#trial-(\d+)$/.exec(location.hash); if (found) showTrial(Number(found[1])); };

  trialTable(data, (row) => showTrial(trials.number[row]));
  document.addEventListener("click", (event) => { // links in the page's own tables: also to the trial that is in the address
    const link = event.target.closest("a[href^='#trial-']");
    if (link && !event.defaultPrevented) { event.preventDefault(); showTrial(Number(link.hash.slice(7))); }
  });
  window.addEventListener("hashchange", showAddress);

  const before = restored();
  for (const pin of before.pins || []) if (rowOf.has(pin)) showTrial(pin);
  const ready = () => { // a page that is not drawn yet does not load itself again
    document.documentElement.dataset.ready = "yes";
    reloadLater(() => ({ ...(points.trial.length ? chart.state() : {}), pins: board.pins().map((pin) => trials.number[pin.row]) }));
  };
  const curves = data.curves ? curveChart(data, showTrial) : null;
  if (!points.trial.length) byId("chart").textContent = "No operating point has been measured yet.";
  if (!points.trial.length && !curves) {
    ready();
    return;
  }
  withLibrary(async () => {
    const draw = async () => {
      if (points.trial.length) await chart.draw();
      if (curves) await curves.draw();
    };
    if (points.trial.length) chart.fillControls(before);
    await draw();
    dark.addEventListener("change", draw);
    if (points.trial.length) {
      byId("chart").on("plotly_click", (event) => {
        const index = event.points.length ? event.points[0].customdata : undefined;
        if (index !== undefined) board.pin({ row: data.trial_of[index], index });
      });
    }
    if (curves) curves.listen();
    showAddress();
    ready();
  });
})();
