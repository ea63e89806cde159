// Pinned points: up to two side by side, each with its values, its configuration and its files.
function pinBoard(describe) {
  const box = byId("pinned");
  let pins = [];

  function link(home, file, text) {
    return element("a", text || file, { href: encodeURI(home + "/" + file), target: "_blank" });
  }

  async function copy(pre, said) {
    try {
      await navigator.clipboard.writeText(pre.textContent);
    } catch (error) { // pages opened from disk may not use the clipboard interface
      const range = document.createRange();
      range.selectNodeContents(pre);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      if (!document.execCommand("copy")) {
        said.textContent = "selected: press Ctrl+C";
        return;
      }
    }
    said.textContent = "copied";
  }

  function card(one) {
    const node = element("details", undefined, { class: "configuration" });
    node.open = pins.length === 1;
    node.append(element("summary", "Configuration of trial " + one.trial));
    const pre = element("pre", one.yaml, { tabindex: "0", "aria-label": "Configuration of trial " + one.trial + " as YAML" });
    const said = element("span", undefined, { role: "status", class: "copied" });
    const button = element("button", "Copy YAML", { type: "button", class: "plain copy" });
    button.addEventListener("click", () => copy(pre, said));
    const row = element("p", undefined, { class: "controls" });
    row.append(button, said);
    node.append(row, pre);
    return node;
  }

  function show() {
    box.replaceChildren();
    box.hidden = !pins.length;
    byId("explorer").className = "explorer" + (pins.length ? " open" : "") + (pins.length > 1 ? " two" : "");
    if (pins.length) fill(pins.map(describe));
    window.dispatchEvent(new Event("resize"));
  }

  function fill(found) {
    const table = element("table", undefined, { class: "pins" }), head = element("tr"), body = element("tbody");
    head.append(element("th", found.length > 1 ? "differences are marked" : "", { scope: "col" }));
    found.forEach((one, place) => {
      const cell = element("th", undefined, { scope: "col" });
      const close = element("button", "✕", { type: "button", class: "plain unpin", "aria-label": "unpin trial " + one.trial });
      close.addEventListener("click", () => { pins.splice(place, 1); show(); });
      cell.append(close, element("b", "trial " + one.trial), element("div", one.title));
      head.append(cell);
    });
    table.append(element("thead"), body);
    table.tHead.append(head);
    const names = [...new Set(found.flatMap((one) => [...one.facts.keys()]))];
    for (const name of names) {
      const values = found.map((one) => one.facts.get(name) || "");
      const row = element("tr", undefined, values.some((value) => value !== values[0]) ? { class: "differs" } : {});
      row.append(element("th", name, { scope: "row" }), ...values.map((value) => element("td", value)));
      body.append(row);
    }
    const files = element("tr");
    files.append(element("th", "files", { scope: "row" }));
    for (const one of found) {
      const cell = element("td", undefined, { class: "files" });
      if (one.files.length) cell.append(link(one.home, "", "folder"));
      for (const file of one.files) cell.append(link(one.home, file));
      files.append(cell);
    }
    body.append(files);
    box.append(table, ...found.map(card));
    box.append(element("p", "Save a configuration as run.yaml, then: routing train --config run.yaml", { class: "note" }));
  }

  // Pins a point or a trial; a third takes the place of the older one.
  function pin(one) {
    const same = (other) => other.row === one.row && other.index === one.index;
    if (!pins.some(same)) pins = [...pins, one].slice(-2);
    show();
  }

  function clear() {
    pins = [];
    show();
  }

  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && pins.length) clear(); });
  return { pin, clear, pins: () => pins };
}
