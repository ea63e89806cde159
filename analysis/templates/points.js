// What a page says of operating points and of trials: over the pointer, and where they are pinned.
function pointFacts(data, prefix) {
  const points = data.points, trials = data.trials;
  const textOf = (column, row) => (column && column.codes[row] >= 0 ? column.values[column.codes[row]] : "");
  const keyOf = (key, row) => textOf(trials.keys[key], row);
  const axes = new Map(data.axes.map((axis) => [axis.name, axis]));
  const groupsOf = (index) => ({ model: keyOf("model.name", data.trial_of[index]) || "unknown", router: keyOf("model.router.mode", data.trial_of[index]) });
  const nameOf = (row) => [prefix ? prefix(row) : "", keyOf("model.name", row), keyOf("model.router.mode", row)].filter(Boolean).join(" · ");

  function knobText(index) {
    const knob = textOf(points.knob, index), value = textOf(points.knob_value, index);
    if (!knob || value === "") return "";
    return knob + " = " + (isNaN(value) ? value : Number(Number(value).toPrecision(4)));
  }

  function yamlOf(row, index) {
    const isOwn = index === undefined || points.is_default[index], lines = [];
    for (const key of Object.keys(trials.keys)) {
      if (keyOf(key, row) === "" || (key === "evaluation.knob_value" && !isOwn)) continue;
      lines.push(key + ": " + keyOf(key, row));
    }
    if (!isOwn && textOf(points.knob_value, index) !== "") lines.push("evaluation.knob_value: " + textOf(points.knob_value, index));
    return lines.join("\n") + "\n";
  }

  const changed = trials.varied.filter((key) => key !== "model.name" && key !== "model.router.mode");
  const brief = [...new Set([...data.objectives, "routing_ratio", "params", "ms_per_image"])].filter((name) => axes.has(name));
  function hoverText(index) {
    const row = data.trial_of[index], lines = ["<b>trial " + points.trial[index] + "</b> " + escaped(nameOf(row))];
    for (const name of brief) {
      const value = unitText(axes.get(name), points.values[name][index]);
      if (value !== "") lines.push(escaped(axes.get(name).label.split(" (")[0]) + ": " + escaped(value));
    }
    if (knobText(index)) lines.push(escaped(knobText(index)));
    if (!points.allowed[index]) lines.push("breaks a constraint");
    for (const key of changed.slice(0, 12)) {
      if (keyOf(key, row) !== "") lines.push(escaped(key) + ": " + escaped(keyOf(key, row)));
    }
    return lines.join("<br>");
  }

  // What the board of pins shows of a point, or of a trial without one.
  function describe(one) {
    const facts = new Map(), row = one.row, index = one.index;
    const measured = (names) => names.forEach((name) => {
      const axis = axes.get(name), value = index === undefined ? "" : unitText(axis, points.values[name][index]);
      if (value !== "") facts.set(axis.label.split(" (")[0], value);
    });
    measured(data.objectives.filter((name) => axes.has(name)));
    if (index !== undefined && knobText(index)) facts.set("knob", knobText(index) + (points.is_default[index] ? " (its own setting)" : ""));
    if (index === undefined) facts.set("state", textOf(trials.state, row));
    if (textOf(trials.reason, row)) facts.set("reason", textOf(trials.reason, row));
    for (const key of changed) if (keyOf(key, row) !== "") facts.set(key, keyOf(key, row));
    measured(data.axes.map((axis) => axis.name).filter((name) => !data.objectives.includes(name)));
    const files = textOf(trials.files, row).split(" ").filter(Boolean);
    return { trial: trials.number[row], title: nameOf(row), facts, yaml: yamlOf(row, index), files,
      home: textOf(trials.home, row) + "/" + trials.number[row] };
  }

  return { groupsOf, hoverText, describe };
}
