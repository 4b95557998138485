"use strict";
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const { items, pictures, paths, actions } = data;
  const part = (id) => document.getElementById(id);

  function make(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  const plural = (number, name) => `${number.toLocaleString("en")} ${name}${number === 1 ? "" : "s"}`;
  const say = (text) => { part("said").textContent = text; };

  // --- Ticks. A place is an index into `items`; a change is the list of places that it flipped. ---

  const KEY = `pokefa review ${location.pathname}`;
  const UNKEPT = "This browser does not keep the selection: it is lost when the page is closed.";
  let kept = true;
  let ticked = new Set();
  const changes = [];

  function restore() {
    const places = new Map(items.map((item, place) => [item.image_id, place]));
    try {
      for (const id of JSON.parse(localStorage.getItem(KEY) ?? "[]")) if (places.has(id)) ticked.add(places.get(id));
    } catch {
      kept = false;
    }
  }

  const tickedPlaces = () => [...ticked].sort((one, other) => one - other);
  const tickedIds = () => tickedPlaces().map((place) => items[place].image_id);

  function keep() {
    try {
      localStorage.setItem(KEY, JSON.stringify(tickedIds()));
    } catch {
      kept = false;
    }
  }

  // Make `after` the ticks, as one step that undo takes back to `before`.
  function change(after, before = ticked) {
    const flipped = [...after].filter((place) => !before.has(place));
    for (const place of before) if (!after.has(place)) flipped.push(place);
    if (flipped.length) changes.push(flipped);
    ticked = after;
    keep();
    refresh();
    return flipped.length > 0;
  }

  function undo() {
    const flipped = changes.pop();
    reach = null;
    if (!flipped) return;
    for (const place of flipped) if (!ticked.delete(place)) ticked.add(place);
    keep();
    refresh();
    say(`Undone: ${plural(flipped.length, "image")}.`);
  }

  // --- Ranges. A spot is an index into `shown`. ---

  let shown = items.map((_, place) => place);
  let current = 0;
  let anchor = { spot: 0, value: true }; // where a range starts, and whether it ticks or unticks
  let reach = null; // the range under way: the ticks before it, and whether it has a step in `changes`

  function toggle(spot) {
    const after = new Set(ticked);
    const place = shown[spot];
    if (!after.delete(place)) after.add(place);
    anchor = { spot, value: after.has(place) };
    reach = null;
    change(after);
  }

  function reachTo(spot) {
    const before = reach ? reach.before : ticked;
    const after = new Set(before);
    for (let each = Math.min(anchor.spot, spot); each <= Math.max(anchor.spot, spot); each += 1) {
      if (anchor.value) after.add(shown[each]);
      else after.delete(shown[each]);
    }
    if (reach?.changed) changes.pop();
    reach = { before, changed: change(after, before) };
  }

  function tickAll() {
    reach = null;
    change(new Set([...ticked, ...shown]));
  }

  // --- The grid: only rows near the window are in the document. ---

  const grid = part("grid");
  const SPARE_ROWS = 2;
  const rows = new Map();
  let columns = 1;
  let rowHeight = 1;

  function layOut() {
    const style = getComputedStyle(grid);
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const size = (name) => parseFloat(style.getPropertyValue(name)) * rem;
    const gap = size("--gap");
    columns = Math.max(1, Math.floor((grid.clientWidth + gap) / (size("--least") + gap)));
    rowHeight = size("--height") + gap;
    const height = Math.ceil(shown.length / columns);
    grid.style.height = `${height * rowHeight}px`;
    grid.setAttribute("aria-rowcount", height);
    grid.setAttribute("aria-colcount", columns);
    const focused = grid.contains(document.activeElement);
    for (const row of rows.values()) row.remove();
    rows.clear();
    draw();
    if (focused && shown.length) cellAt(current).focus({ preventScroll: true });
  }

  function draw() {
    const { top } = grid.getBoundingClientRect();
    const last = Math.ceil(shown.length / columns) - 1;
    const from = Math.max(0, Math.floor(-top / rowHeight) - SPARE_ROWS);
    const to = Math.min(last, Math.ceil((innerHeight - top) / rowHeight) + SPARE_ROWS);
    const wanted = new Set();
    for (let number = from; number <= to; number += 1) wanted.add(number);
    if (shown.length) wanted.add(Math.floor(current / columns)); // it has the focus, or the place in the Tab order
    for (const [number, row] of rows) {
      if (!wanted.has(number)) {
        row.remove();
        rows.delete(number);
      }
    }
    for (const number of [...wanted].sort((one, other) => one - other)) {
      if (rows.has(number)) continue;
      const row = rowOf(number);
      const after = [...rows.keys()].filter((other) => other > number);
      grid.insertBefore(row, after.length ? rows.get(Math.min(...after)) : null);
      rows.set(number, row);
    }
  }

  function rowOf(number) {
    const row = make("div", { role: "row", "aria-rowindex": number + 1 });
    row.style.top = `${number * rowHeight}px`;
    row.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    for (let spot = number * columns; spot < Math.min(shown.length, (number + 1) * columns); spot += 1) {
      row.append(cellOf(spot));
    }
    return row;
  }

  const cellAt = (spot) => grid.querySelector(`[data-spot="${spot}"]`);

  function cellOf(spot) {
    const item = items[shown[spot]];
    const cell = make("div", {
      role: "gridcell", class: "image", "data-spot": spot, "data-id": item.image_id,
      tabindex: spot === current ? 0 : -1, "aria-colindex": (spot % columns) + 1,
    });
    cell.append(
      make("div", { class: "head" }, make("span", { class: "tick", "aria-hidden": "true" }, "✓"),
        make("span", { class: "name" }, `${item.species}, ${item.says}`)),
      picturesOf(item, small),
    );
    if (item.mates.length) cell.append(matesOf(item));
    if (item.text) cell.append(make("div", { class: "text" }, item.text));
    if (item.tags) cell.append(make("div", { class: "tags" }, item.tags.map((words) => words.join(" ").trim()).join(", ")));
    const foot = make("div", { class: "foot" }, make("code", {}, item.image_id.slice(0, 12)));
    // For mouse and touch; the keyboard has B and Enter on the image itself.
    const buttons = isVeiled(item) ? ["show", "open"] : ["open"];
    for (const name of buttons) foot.append(make("button", { type: "button", class: name, tabindex: -1 }, "Open"));
    cell.append(foot);
    mark(cell, shown[spot]);
    return cell;
  }

  function mark(cell, place) {
    cell.setAttribute("aria-selected", ticked.has(place));
    cell.classList.toggle("bare", bare.has(place));
    const button = cell.querySelector(".show");
    if (button) button.textContent = bare.has(place) ? "Blur" : "Unblur";
  }

  function picturesOf(item, source) {
    const box = make("div", { class: "pictures" });
    for (const picture of item.pictures ?? []) {
      const figure = make("figure", {}, frameOf(picture, `${item.species}, ${picture.caption}`, source));
      if (item.pictures.length > 1) figure.append(make("figcaption", {}, picture.caption));
      box.append(figure);
    }
    return box;
  }

  function matesOf(item) {
    const box = make("div", { class: "mates" }, "also");
    for (const mate of item.mates) box.append(frameOf(mate, `of the same group, ${mate.id.slice(0, 12)}`, small));
    if (item.more_mates) box.append(`and ${item.more_mates} more`);
    return box;
  }

  // A picture that could not be read is a text that begins with an exclamation mark, and says why.
  const small = (place) => (pictures[place].startsWith("!") ? null : `data:image/webp;base64,${pictures[place]}`);
  const whole = (place) => `../${paths[place].split("/").map(encodeURIComponent).join("/")}`;

  function frameOf(picture, alt, source) {
    const frame = make("span", { class: picture.veiled ? "frame veil" : "frame" });
    const address = source(picture.place);
    if (address === null) {
      frame.append(`no picture: ${pictures[picture.place].slice(1)}`);
      return frame;
    }
    const image = make("img", { src: address, alt, decoding: "async", draggable: "false" });
    image.addEventListener("error", () => { // the page has been moved out of its dataset, or the file has
      const other = small(picture.place);
      if (other && image.src !== other) image.src = other;
    }, { once: true });
    frame.append(image);
    if (picture.boxes) frame.append(outlinesOf(picture));
    return frame;
  }

  function outlinesOf({ boxes, size }) {
    const space = "http://www.w3.org/2000/svg";
    const drawing = document.createElementNS(space, "svg");
    drawing.setAttribute("viewBox", `0 0 ${size.join(" ")}`);
    drawing.setAttribute("aria-hidden", "true");
    for (const points of boxes) {
      const polygon = document.createElementNS(space, "polygon");
      polygon.setAttribute("points", points.map((point) => point.join(",")).join(" "));
      drawing.append(polygon);
    }
    return drawing;
  }

  function focusOn(spot) {
    cellAt(current)?.setAttribute("tabindex", -1);
    current = spot;
    draw();
    const cell = cellAt(spot);
    cell.setAttribute("tabindex", 0);
    cell.focus({ preventScroll: true });
    cell.scrollIntoView({ block: "nearest" });
  }

  // --- Blurring. ---

  const bare = new Set();
  const isVeiled = (item) => [...(item.pictures ?? []), ...item.mates].some((picture) => picture.veiled);

  function unveil(place) {
    if (!isVeiled(items[place])) return;
    if (!bare.delete(place)) bare.add(place);
    refresh();
  }

  part("veil")?.addEventListener("click", () => {
    const veiled = document.body.classList.toggle("veiled");
    bare.clear();
    part("veil").setAttribute("aria-pressed", !veiled);
    part("veil").textContent = veiled ? "Unblur all" : "Blur all";
    refresh();
  });

  part("boxes")?.addEventListener("click", () => {
    const hidden = document.body.classList.toggle("no-boxes");
    part("boxes").setAttribute("aria-pressed", !hidden);
  });

  // --- Mouse and keyboard. ---

  grid.addEventListener("click", (event) => {
    const cell = event.target.closest(".image");
    if (!cell) return;
    const spot = Number(cell.dataset.spot);
    focusOn(spot);
    if (event.target.closest(".open")) open();
    else if (event.target.closest(".show")) unveil(shown[spot]);
    else if (event.shiftKey) reachTo(spot);
    else toggle(spot);
  });

  function destination(key) {
    const page = Math.max(1, Math.floor(innerHeight / rowHeight) - 1) * columns;
    const moves = {
      ArrowLeft: current - 1, ArrowRight: current + 1, ArrowUp: current - columns, ArrowDown: current + columns,
      PageUp: current - page, PageDown: current + page, Home: 0, End: shown.length - 1,
    };
    if (!(key in moves)) return null;
    if (key === "ArrowUp" && moves[key] < 0) return current;
    return Math.min(shown.length - 1, Math.max(0, moves[key]));
  }

  grid.addEventListener("keydown", (event) => {
    if (!shown.length || event.altKey) return;
    const command = event.ctrlKey || event.metaKey;
    const spot = destination(event.key);
    if (spot !== null) {
      if (event.shiftKey && !reach) anchor = { spot: current, value: true };
      if (!event.shiftKey) reach = null;
      focusOn(spot);
      if (event.shiftKey) reachTo(spot);
    } else if (event.key === " ") {
      if (event.shiftKey) reachTo(current);
      else toggle(current);
    } else if (event.key === "Enter") open();
    else if (command && event.key.toLowerCase() === "a") tickAll();
    else if (!command && event.key.toLowerCase() === "b") unveil(shown[current]);
    else if (!command && event.key.toLowerCase() === "u") undo();
    else return;
    event.preventDefault();
  });

  document.addEventListener("keydown", (event) => {
    const writing = event.target.closest?.("input:not([type=checkbox]), textarea");
    if (!writing && (event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") {
      undo();
      event.preventDefault();
    }
  });

  // --- Filters. ---

  function fillFilter(select, valuesOf) {
    const counts = new Map();
    for (const item of items) for (const value of valuesOf(item)) counts.set(value, (counts.get(value) ?? 0) + 1);
    for (const value of [...counts.keys()].sort()) select.append(make("option", { value }, `${value} (${counts.get(value)})`));
  }

  function filter() {
    const [species, tag] = [part("species").value, part("tag").value];
    const [least, most] = [part("least"), part("most")].map((field) => (field.value === "" ? null : field.valueAsNumber));
    const begins = part("begins").value.trim().toLowerCase();
    const onlyTicked = part("only-ticked").checked;
    const fits = (item, place) => (!species || item.species === species)
      && (!tag || (item.tags ?? []).some(([name]) => name === tag))
      && (least === null || (item.score !== null && item.score >= least))
      && (most === null || (item.score !== null && item.score <= most))
      && (!begins || item.image_id.startsWith(begins))
      && (!onlyTicked || ticked.has(place));
    shown = [...items.keys()].filter((place) => fits(items[place], place));
    current = 0;
    anchor = { spot: 0, value: true };
    reach = null;
    part("none").hidden = shown.length > 0;
    layOut();
    refresh();
  }

  part("filters").addEventListener("input", filter);
  part("filters").addEventListener("reset", () => setTimeout(filter)); // the fields are emptied after this event
  part("filters").addEventListener("submit", (event) => event.preventDefault());

  // --- Commands. ---

  // Return { command, note }: the command of an action for the ticked images; null where there is none.
  function commandFor(action) {
    const chosen = tickedPlaces().map((place) => items[place]);
    if (!chosen.length) return { command: null, note: "" };
    if (action.kind === "threshold") return thresholdFor(action, chosen);
    if (action.kind === "gates") return { command: gatesFor(action, chosen), note: action.note };
    return { command: `${action.start} ${chosen.map((item) => item.image_id).join(" ")}`, note: action.note };
  }

  function thresholdFor(action, chosen) {
    const distances = chosen.flatMap((item) => item.values?.distance ?? []);
    const threshold = Math.min(...distances) - 1;
    if (!distances.length || threshold < 0) {
      return { command: null, note: "One of the selected images has the same hash as the kept one: no threshold keeps them apart." };
    }
    const others = items.filter((item) => item.values?.distance > threshold).length;
    return {
      command: `${action.start} --threshold ${threshold} --dry-run`,
      note: `${action.note} ${plural(others, "image")} on this page ${others === 1 ? "is" : "are"} farther than ${threshold} bits from the kept one.`,
    };
  }

  function gatesFor(action, chosen) {
    const thresholds = action.settings;
    const lowest = (name) => Math.min(thresholds[`min_${name}`] ?? 100, ...chosen.flatMap((item) => item.values?.[name] ?? []));
    const [relevance, aesthetic] = [lowest("relevance"), lowest("aesthetic")];
    // Lower thresholds bring more competitors for the --top-n places.
    const joining = items.filter((item) => item.values && item.values.rank === undefined
      && item.values.relevance >= relevance && item.values.aesthetic >= aesthetic).length;
    const places = Math.max(...chosen.map((item) => (item.values?.rank ?? thresholds.passing) + joining));
    const top = Math.max(thresholds.top_n ?? places, places);
    return `${action.start} --min-relevance ${relevance} --min-aesthetic ${aesthetic} --top-n ${top} --dry-run`;
  }

  const MOST_IDS_SHOWN = 12;

  function shorten(command) {
    const words = command.split(" ");
    const ids = words.filter((word) => /^[0-9a-f]{32}$/.test(word));
    if (ids.length <= MOST_IDS_SHOWN) return command;
    const start = command.slice(0, command.indexOf(ids[0]));
    return `${start}${ids.slice(0, MOST_IDS_SHOWN).join(" ")} … (${ids.length.toLocaleString("en")} ids; the button copies all)`;
  }

  const chosenAction = () => actions[Number(part("action").value)];

  async function copy() {
    const { command } = commandFor(chosenAction());
    if (command === null) return;
    try {
      await navigator.clipboard.writeText(command);
      say("Copied. Run it at the checkout's top.");
    } catch {
      const field = make("textarea", { readonly: "", "aria-label": "Command" });
      field.value = command;
      part("said").replaceChildren("This browser does not let the page copy. Press Ctrl+C: ", field);
      field.select();
    }
  }

  function save() {
    const name = `review-${data.stage}-ids.txt`;
    const link = make("a", { download: name });
    link.href = URL.createObjectURL(new Blob([tickedIds().map((id) => `${id}\n`).join("")], { type: "text/plain" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    const { file } = chosenAction();
    say(`Saved ${plural(ticked.size, "id")} as ${name}.${file ? ` From the repository root, use it as: ${file} ${name}` : ""}`);
  }

  // --- One image at full size, from the dataset's own file. ---

  const large = part("large");

  function open() {
    showLarge();
    large.showModal();
  }

  function showLarge() {
    const place = shown[current];
    const item = items[place];
    part("large-title").textContent = `${item.species}, ${item.says} (${current + 1} of ${shown.length})`;
    const box = make("div", { class: "image" }, picturesOf(item, (each) => (small(each) === null ? null : whole(each))));
    if (item.text) box.append(make("p", { class: "text" }, item.text));
    if (item.mates.length) box.append(matesOf(item));
    const list = make("dl", {});
    const facts = [["id", item.image_id], ...(item.tags ?? []), ...(item.facts ?? [])].filter(([, value]) => value);
    for (const [name, value] of facts) list.append(make("dt", {}, name), make("dd", {}, value));
    box.append(list);
    mark(box, place);
    box.removeAttribute("aria-selected");
    part("large-body").replaceChildren(box);
    refreshLarge();
  }

  function refreshLarge() {
    const place = shown[current];
    part("large-tick").setAttribute("aria-pressed", ticked.has(place));
    part("large-tick").textContent = ticked.has(place) ? "Selected" : "Select";
    part("large-body").firstElementChild?.classList.toggle("bare", bare.has(place));
    if (!part("large-veil")) return;
    part("large-veil").textContent = bare.has(place) ? "Blur" : "Unblur";
    part("large-veil").hidden = !isVeiled(items[place]);
  }

  function step(by) {
    const spot = Math.min(shown.length - 1, Math.max(0, current + by));
    if (spot === current) return;
    cellAt(current)?.setAttribute("tabindex", -1);
    current = spot;
    showLarge();
  }

  large.addEventListener("close", () => {
    part("large-body").replaceChildren();
    focusOn(current);
  });
  large.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key.toLowerCase() === "b") unveil(shown[current]);
    else if (event.key === " " && event.target.tagName !== "BUTTON") toggle(current);
    else return;
    event.preventDefault();
  });
  part("previous").addEventListener("click", () => step(-1));
  part("next").addEventListener("click", () => step(1));
  part("large-tick").addEventListener("click", () => toggle(current));
  part("large-veil")?.addEventListener("click", () => unveil(shown[current]));
  part("close").addEventListener("click", () => large.close());

  // --- What the page says about the ticks. ---

  function refresh() {
    for (const cell of grid.querySelectorAll(".image")) mark(cell, shown[Number(cell.dataset.spot)]);
    const visible = shown.filter((place) => ticked.has(place)).length;
    const hidden = ticked.size - visible;
    part("count").textContent = `${ticked.size.toLocaleString("en")} selected${hidden ? `, ${hidden.toLocaleString("en")} of them filtered out` : ""}`;
    part("shown").textContent = shown.length === items.length ? plural(items.length, "image") : `${shown.length.toLocaleString("en")} of ${plural(items.length, "image")}`;
    const { command, note } = commandFor(chosenAction());
    part("command").textContent = command === null ? "" : shorten(command);
    part("note").textContent = note;
    say(kept ? "" : UNKEPT);
    part("copy").disabled = command === null;
    part("save").disabled = part("clear").disabled = !ticked.size;
    part("undo").disabled = !changes.length;
    if (large.open) refreshLarge();
    document.documentElement.style.setProperty("--footer", `${document.querySelector("footer").offsetHeight}px`);
  }

  for (const [number, action] of actions.entries()) part("action").append(make("option", { value: number }, action.label));
  part("action-label").hidden = actions.length < 2;
  part("action").addEventListener("change", refresh);
  part("undo").addEventListener("click", undo);
  part("clear").addEventListener("click", () => { reach = null; change(new Set()); });
  part("tick-all").addEventListener("click", tickAll);
  part("copy").addEventListener("click", copy);
  part("save").addEventListener("click", save);

  fillFilter(part("species"), (item) => [item.species]);
  fillFilter(part("tag"), (item) => new Set((item.tags ?? []).map(([name]) => name)));
  restore();
  layOut();
  refresh();
  addEventListener("storage", (event) => { // the same page in another window
    if (event.key !== KEY) return;
    ticked = new Set();
    changes.length = 0;
    reach = null;
    restore();
    refresh();
  });
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  }, { passive: true });
  let width = grid.clientWidth;
  new ResizeObserver(() => {
    if (grid.clientWidth === width) return draw(); // its height: the filters have changed it
    width = grid.clientWidth;
    layOut();
  }).observe(grid);
  addEventListener("resize", draw);
}
