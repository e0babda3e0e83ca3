// The board. What the server says is shown as text, never read as markup.

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const SILENCE = 45000; // ms after which the stream, which brings something every few seconds, counts as broken
const SVG = "http://www.w3.org/2000/svg";
const view = { session: null, state: null, source: null, last: 0, page: null, asked: 0, heard: "", search: "", order: "backlog", at: 1 };

// --- Making and changing elements ---------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function setKind(element, base, kind) {
  const name = [base, kind].filter(Boolean).join(" ");
  if (element.className !== name) element.className = name;
}

// A table that is changed row by row and cell by cell, so that focus and selection stay where they are. A column is
// {name, cell(row), kind}; the cell is a text, or {key, make()} for what is not a text.
function showTable(place, { label, columns, rows, key, empty }) {
  if (!rows.length) {
    if (place.firstChild?.tagName !== "P") place.replaceChildren(make("p", { class: "dim" }));
    setText(place.firstChild, empty);
    return;
  }
  const shape = columns.map((column) => column.name).join("|");
  let table = place.querySelector("table");
  if (!table || table.dataset.shape !== shape) {
    // The roles stay when a small screen has the style sheet make blocks of cells.
    const heads = columns.map((column) => make("th", { scope: "col", role: "columnheader", class: column.kind }, column.name));
    table = make("table", { role: "table", "aria-label": label, "data-shape": shape },
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)), make("tbody", { role: "rowgroup" }));
    place.replaceChildren(table);
  }
  const body = table.tBodies[0];
  const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  rows.forEach((data, index) => {
    const name = key(data);
    let row = old.get(name);
    old.delete(name);
    if (!row) {
      row = make("tr", { role: "row", "data-key": name },
        ...columns.map((column) => make("td", { role: "cell", "data-label": column.name, class: column.kind })));
    }
    columns.forEach((column, at) => fillCell(row.cells[at], column.cell(data)));
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  for (const row of old.values()) row.remove();
}

function fillCell(cell, content) {
  const made = content !== null && typeof content === "object";
  const key = made ? content.key : (content ?? "");
  if (cell.dataset.shown === key) return;
  cell.dataset.shown = key;
  cell.classList.toggle("empty", key === "");
  cell.replaceChildren(made ? content.make() : key);
}

// --- Words --------------------------------------------------------------------------------------------------------

const count = (value) => (value === null || value === undefined ? "–" : number.format(value));
const plural = (value, one, many) => `${number.format(value)} ${value === 1 ? one : many}`;

function span(milliseconds) {
  const s = Math.max(milliseconds, 0) / 1000;
  if (s < 1) return s === 0 ? "0 s" : "< 1 s";
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// Ages are by the server's clock, which the reader's may differ from.
const now = () => Date.parse(view.state.now);
const ago = (time) => (time ? `${span(now() - Date.parse(time))} ago` : "");
const clock = (time) => new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function upcoming(row) {
  if (!row.next_attempt_at) return row.attempts ? "given up" : "not tried yet";
  const left = Date.parse(row.next_attempt_at) - now();
  return left > 0 ? `in ${span(left)}` : "due";
}

const databaseName = (row) => row.database || "(endpoint)";
const placeKey = (row) => `${row.tenancy} ${row.database} ${row.mapping ?? ""}`;
const id = (text) => ({ key: text ?? "", make: () => make("span", { class: "id" }, text ?? "all") });

// --- Talking to the server ----------------------------------------------------------------------------------------

async function ask(path, body) {
  const options = { headers: {}, credentials: "same-origin" };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
    if (view.session?.form_token) options.headers["X-Stackctl-Form"] = view.session.form_token;
  }
  const response = await fetch(path, options);
  const document = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(document.error?.message ?? `the server answered ${response.status}`), { status: response.status });
  return document;
}

async function act(button, what, path, body) {
  button.disabled = true;
  try {
    await ask(path, body);
    setText($("say"), `${what}: done`);
  } catch (error) {
    setText($("say"), `${what}: ${error.message}`);
    if (error.status === 401) await begin();
  } finally {
    button.disabled = false;
  }
}

function action(label, description, path, body) {
  if (!view.session?.form_token) return "";
  return {
    key: `${label} ${description}`,
    make: () => {
      const button = make("button", { type: "button", "aria-label": description,
        onclick: () => act(button, description, path, body) }, label);
      return button;
    },
  };
}

function connect() {
  view.source?.close();
  const source = new EventSource("board/events");
  view.source = source;
  view.last = Date.now();
  source.addEventListener("state", (event) => {
    const state = JSON.parse(event.data);
    view.last = Date.now();
    if (view.state && view.state.version !== state.version) location.reload(); // another version has another page
    view.state = state;
    setText($("connection"), "Live");
    setKind($("connection"), "pill", "good");
    $("banner").hidden = true;
    show();
  });
  source.addEventListener("trouble", (event) => {
    const error = JSON.parse(event.data);
    view.last = Date.now();
    lose("Trouble", `The pipeline can't be read: ${error.message}`);
  });
  source.addEventListener("expired", begin);
  source.addEventListener("error", () => {
    lose("Reconnecting", "The server does not answer. This page goes on when it does.");
    // Where it was refused, the browser does not try again.
    if (source.readyState === EventSource.CLOSED) {
      source.close();
      setTimeout(begin, 3000);
    }
  });
}

function lose(word, text) {
  setText($("connection"), word);
  setKind($("connection"), "pill", "bad");
  const since = view.state ? ` What is shown is of ${clock(view.state.now)}.` : "";
  setText($("banner"), text + since);
  $("banner").hidden = false;
  $("board").classList.add("old");
}

async function begin() {
  if (document.hidden) return;
  view.source?.close();
  view.source = null;
  try {
    view.session = await ask("board/session");
  } catch {
    lose("Reconnecting", "The server does not answer. This page goes on when it does.");
    setTimeout(begin, 3000);
    return;
  }
  const { login, in: loggedIn, form_token: may } = view.session;
  $("login").hidden = loggedIn;
  $("log-out").hidden = !(login && loggedIn);
  $("read-only").hidden = login;
  for (const one of document.querySelectorAll(".writes")) one.hidden = !may;
  if (loggedIn) {
    connect();
  } else {
    view.state = null;
    $("board").hidden = true;
    $("banner").hidden = true;
    setText($("connection"), "Not logged in");
    setKind($("connection"), "pill", "");
    setText($("as-of"), "");
    $("token").focus();
  }
}

// --- Showing ------------------------------------------------------------------------------------------------------

function show() {
  const state = view.state;
  $("board").hidden = false;
  $("board").classList.remove("old");
  setText($("version"), state.version);
  const status = state.status;
  const read = status ? Date.parse(status.generated_at) : null;
  const late = read !== null && now() - read > 10000 ? `, copies as of ${clock(status.generated_at)}` : "";
  setText($("as-of"), `${clock(state.now)}${late}`);
  showTotals(state);
  showTrouble(state);
  showTenancies();
  showStages(state);
  showDead(state.dead);
  showRejected(status?.rejected);
  showFuses(state);
  hear(state);
}

// What a screen reader is told: only what has become better or worse.
function hear(state) {
  const off = Object.entries(state.fuses).filter(([, on]) => !on).map(([name]) => `the ${name} fuse is off`);
  const failing = state.trouble.total + state.dead.total;
  const text = [failing ? `${plural(failing, "database or mapping fails", "databases or mappings fail")}` : "nothing fails", ...off].join("; ");
  if (view.heard && view.heard !== text) setText($("say"), text);
  view.heard = text;
  document.title = `${failing || off.length ? `(${failing + off.length}) ` : ""}stackctl`;
}

function showTotals(state) {
  const totals = state.status?.totals;
  const tiles = [
    ["Failing", state.trouble.total, state.trouble.total ? "bad" : "", "trouble"],
    ["Dead letters", state.dead.total, state.dead.total ? "bad" : "", "dead"],
    ["Rows behind", totals?.backlog, "", "tenancies"],
    ["Longest lag", totals ? span(totals.lag_ms) : null, "", "tenancies"],
    ["Queue", state.queue.pending + state.queue.in_flight, "", "stages"],
    ["Rejected rows", state.status?.rejected.total, state.status?.rejected.total ? "warn" : "", "rejected"],
    ...Object.entries(state.fuses).filter(([, on]) => !on).map(([name]) => [`Fuse of the ${name}`, "off", "warn", "fuses"]),
  ];
  const list = $("totals");
  while (list.children.length > tiles.length) list.lastChild.remove();
  while (list.children.length < tiles.length) list.append(make("div", {}, make("dt", {}, make("a")), make("dd")));
  tiles.forEach(([name, value, kind, section], at) => {
    const tile = list.children[at];
    setKind(tile, "", kind);
    setText(tile.firstChild.firstChild, name);
    tile.firstChild.firstChild.setAttribute("href", `#${section}-title`);
    setText(tile.lastChild, typeof value === "string" ? value : count(value));
  });
}

function setCount(name, part, kind) {
  const shown = part && part.rows.length < part.total ? `${count(part.total)}, ${part.rows.length} shown` : count(part?.total);
  setText($(name), part?.total ? shown : "");
  setKind($(name), "count", part?.total ? kind : "");
}

function showTrouble({ trouble, dead }) {
  setCount("trouble-count", trouble, "bad");
  showTable($("trouble"), {
    label: "Failing databases", rows: trouble.rows, key: placeKey, empty: dead.total ? "Only what was given up, below." : "No database fails.",
    columns: [
      { name: "Tenancy", cell: (row) => id(row.tenancy) },
      { name: "Database", cell: (row) => databaseName(row) + (row.mapping ? ` / ${row.mapping}` : "") },
      { name: "Error", kind: "wide", cell: (row) => row.error },
      { name: "Since", kind: "short", cell: (row) => ago(row.failing_since) },
      { name: "Attempts", kind: "number", cell: (row) => count(row.attempts) },
      { name: "Next try", kind: "short", cell: upcoming },
      ...(view.session.form_token ? [{ name: "Action", cell: retry }] : []),
    ],
  });
}

function retry(row) {
  return action("Retry", `Retry ${databaseName(row)} of ${row.tenancy}`, "board/retry", { tenancy: row.tenancy, database: row.database });
}

function showDead(dead) {
  setCount("dead-count", dead, "bad");
  $("retry-all").hidden = !view.session.form_token || !(dead.total || view.state.trouble.total);
  showTable($("dead"), {
    label: "Dead letters", rows: dead.rows, key: placeKey, empty: "Nothing was given up.",
    columns: [
      { name: "Tenancy", cell: (row) => id(row.tenancy) },
      { name: "Database", cell: (row) => databaseName(row) + (row.mapping ? ` / ${row.mapping}` : "") },
      { name: "Error", kind: "wide", cell: (row) => row.error },
      { name: "Since", kind: "short", cell: (row) => ago(row.failing_since) },
      { name: "Attempts", kind: "number", cell: (row) => count(row.attempts) },
      ...(view.session.form_token ? [{ name: "Action", cell: retry }] : []),
    ],
  });
}

function showRejected(rejected) {
  setCount("rejected-count", rejected, "warn");
  showTable($("rejected"), {
    label: "Rejected rows", rows: rejected?.rows ?? [], empty: rejected ? "No row is rejected." : "Being read.",
    key: (row) => `${placeKey(row)} ${JSON.stringify(row.key)}`,
    columns: [
      { name: "Tenancy", cell: (row) => id(row.tenancy) },
      { name: "Database", cell: (row) => `${row.database} / ${row.mapping}` },
      { name: "Row", cell: (row) => id(row.key.map((part) => part ?? "null").join(", ")) },
      { name: "Error", kind: "wide", cell: (row) => row.error },
      { name: "Since", kind: "short", cell: (row) => ago(row.refused_at) },
    ],
  });
}

// The worst are in what the server sends to all; another page, search or order is asked for, once for each status.
async function showTenancies() {
  const status = view.state.status;
  if (!status) return showPage(null);
  if (!view.search && view.order === "backlog" && view.at === 1) {
    view.asked += 1;
    view.page = null;
    return showPage(status.tenancies);
  }
  const wanted = `${status.generated_at} ${view.search} ${view.order} ${view.at}`;
  if (view.page === wanted) return;
  const asked = (view.asked += 1);
  try {
    const query = new URLSearchParams({ search: view.search, order: view.order, page: view.at });
    const page = await ask(`board/tenancies?${query}`);
    if (asked !== view.asked) return;
    view.page = wanted;
    showPage(page);
  } catch (error) {
    if (asked === view.asked && error.status !== 401) setText($("say"), `Tenancies: ${error.message}`);
  }
}

function showPage(page) {
  setText($("tenancies-count"), page ? count(page.total) : "");
  showTable($("tenancies"), {
    label: "Tenancies, worst first", rows: page?.rows ?? [], key: (row) => row.tenancy,
    empty: page ? (view.search ? "None is found." : "No tenancy has an external database.") : "Being read.",
    columns: [
      { name: "Tenancy", cell: (row) => id(row.tenancy) },
      { name: "Databases", kind: "wide", cell: databaseList },
      { name: "Rows behind", kind: "number", cell: (row) => count(row.backlog) },
      { name: "Lag", kind: "short", cell: (row) => span(row.lag_ms) },
      ...(view.session.form_token ? [{ name: "Action", cell: (row) => action("Queue", `Queue ${row.tenancy}`, "board/enqueue", { tenancy: row.tenancy }) }] : []),
    ],
  });
  $("pages").hidden = !page || page.pages === 1;
  if (page) {
    view.at = page.page;
    setText($("page-text"), `Page ${page.page} of ${number.format(page.pages)}`);
    $("previous").disabled = page.page === 1;
    $("next").disabled = page.page === page.pages;
  }
}

const STATES = { ok: ["ok", "good"], error: ["fails", "bad"], paused: ["paused", "warn"] };

function databaseList(row) {
  const lines = row.databases.map((one) => {
    const behind = row.databases.length > 1 && one.backlog ? `, ${plural(one.backlog, "row", "rows")} behind` : "";
    const synced = one.updated_at ? `, moved ${ago(one.updated_at)}` : "";
    const [word, kind] = one.busy ? ["busy", "warn"] : STATES[one.status];
    return { text: `${one.database} (${one.type}${behind}${synced}) `, word, kind, title: one.connection };
  });
  return {
    key: JSON.stringify(lines),
    make: () => make("ul", {}, ...lines.map((one) => make("li", { title: one.title }, one.text, make("span", { class: `pill ${one.kind}` }, one.word)))),
  };
}

function showStages(state) {
  const tables = Object.entries(state.status?.sequencer.tables ?? {});
  const queue = state.queue;
  const stages = [
    { name: "Sequencer", kind: "stamped", unit: "rows stamped", facts: [
      ["Rows to stamp", state.status ? count(tables.reduce((sum, [, one]) => sum + one.pending, 0)) : "–"],
      ["Fuse", state.fuses.sequencer ? "on" : "off"]] },
    { name: "Queue", kind: "synced", unit: "databases synced", facts: [
      ["Pending", count(queue.pending)], ["In flight", count(queue.in_flight)], ["Stale", count(queue.stale)],
      ["Oldest", queue.oldest_age_ms === null ? "–" : span(queue.oldest_age_ms)]] },
    { name: "Engine", kind: "sent", unit: "rows sent", facts: [
      ["Failed attempts in 15 min", count(state.points.errors.reduce((sum, one) => sum + one, 0))],
      ["Fuse (poller)", state.fuses.poller ? "on" : "off"]] },
    { name: "Backlog", kind: "backlog", unit: "rows behind", facts: [["Longest lag", state.status ? span(state.status.totals.lag_ms) : "–"]] },
  ];
  const place = $("stages");
  if (!place.children.length) place.append(...stages.map((stage) => makeStage(stage.name)));
  stages.forEach((stage, at) => fillStage(place.children[at], stage, state));
  showTable($("tables"), {
    label: "Tables of the sequencer", rows: tables, key: ([name]) => name, empty: "Being read.",
    columns: [
      { name: "Table", cell: ([name]) => name },
      { name: "Rows", kind: "number", cell: ([, one]) => count(one.total) },
      { name: "To stamp", kind: "number", cell: ([, one]) => count(one.pending) },
      { name: "Last sequence id", kind: "number", cell: ([, one]) => count(one.max_sequence_id) },
    ],
  });
}

function makeStage(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [attribute, value] of [["viewBox", "0 0 179 40"], ["preserveAspectRatio", "none"], ["role", "img"]]) svg.setAttribute(attribute, value);
  for (const [kind, path] of [["base", "M0 39.5H179"], ["spark", ""]]) {
    const drawn = document.createElementNS(SVG, "path");
    drawn.setAttribute("class", kind);
    drawn.setAttribute("d", path);
    svg.append(drawn);
  }
  return make("div", { class: "stage" }, make("h3", {}, name), make("p", { class: "rate" }, make("span"), " ", make("small")), svg, make("dl"));
}

function fillStage(place, stage, state) {
  const [, rate, svg, list] = place.children;
  const points = state.points[stage.kind];
  const isRate = stage.kind !== "backlog";
  const value = isRate ? state.per_second[stage.kind] : state.status?.totals.backlog;
  setText(rate.firstChild, count(value));
  setText(rate.lastChild, isRate ? `${stage.unit} / s` : stage.unit);
  const known = points.filter((one) => one !== null);
  const most = Math.max(...known, 1);
  const peak = isRate ? `${number.format(most / state.step_s)} per second` : number.format(most);
  svg.setAttribute("aria-label", known.some(Boolean) ? `${stage.unit}, last 15 minutes, at most ${peak}` : `${stage.unit}: none in the last 15 minutes`);
  svg.lastChild.setAttribute("d", draw(points, most));
  while (list.children.length < stage.facts.length * 2) list.append(make("dt"), make("dd"));
  stage.facts.forEach(([name, text], at) => {
    setText(list.children[at * 2], name);
    setText(list.children[at * 2 + 1], text);
  });
}

// A line with gaps where nobody looked; a point alone is a short stroke. A gap of a point or two is a slow look.
function draw(points, most) {
  let path = "";
  let last = -9;
  points.forEach((value, x) => {
    if (value === null) return;
    const y = (38.5 - (value / most) * 36).toFixed(1);
    path += x - last <= 3 ? `L${x} ${y}` : `M${Math.max(x - 0.5, 0)} ${y}L${x} ${y}`;
    last = x;
  });
  return path;
}

function showFuses(state) {
  const place = $("fuses");
  if (!place.children.length) {
    for (const name of Object.keys(state.fuses)) {
      const button = make("button", { type: "button", onclick: () => {
        const on = !view.state.fuses[name];
        return act(button, `${on ? "Switch on" : "Switch off"} the ${name}`, "board/fuse", { name, on });
      } });
      place.append(make("div", { class: "fuse", id: `fuse-${name}` }, make("strong", {}, name[0].toUpperCase() + name.slice(1)), make("span"), button));
    }
  }
  for (const [name, on] of Object.entries(state.fuses)) {
    const [, word, button] = $(`fuse-${name}`).children;
    setText(word, on ? "on" : "off");
    setKind(word, "pill", on ? "good" : "warn");
    button.hidden = !view.session.form_token;
    setText(button, on ? "Switch off" : "Switch on");
    button.setAttribute("aria-label", `${on ? "Switch off" : "Switch on"} the ${name}`);
  }
  setText($("switched"), state.switched_at ? `Last switched ${ago(state.switched_at)}. A switch made here is in the server's log.` : "");
  showTable($("pauses"), {
    label: "What is paused", rows: state.pauses.rows, key: placeKey, empty: "Nothing is paused.",
    columns: [
      { name: "Tenancy", cell: (row) => id(row.tenancy) },
      { name: "Database", cell: (row) => row.database ?? "all" },
      { name: "Mapping", cell: (row) => row.mapping ?? "all" },
      { name: "By", cell: (row) => row.paused_by },
      { name: "Since", kind: "short", cell: (row) => ago(row.paused_at) },
      { name: "Reason", kind: "wide", cell: (row) => row.reason ?? "" },
    ],
  });
}

// --- What the reader does -----------------------------------------------------------------------------------------

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  setText($("login-error"), "");
  try {
    await ask("board/login", { token: $("token").value });
    $("token").value = "";
    await begin();
    $("main").focus();
  } catch (error) {
    setText($("login-error"), error.message);
    $("token").focus();
  }
});
$("log-out").addEventListener("click", async () => {
  await act($("log-out"), "Log out", "board/logout", {});
  await begin();
});
$("retry-all").addEventListener("click", () => act($("retry-all"), "Retry everything that fails", "board/retry", { all: true }));
$("enqueue-all").addEventListener("click", () => act($("enqueue-all"), "Queue all tenancies", "board/enqueue", { all: true }));

let typing;
function find() {
  view.search = $("search").value.trim();
  view.order = $("order").value;
  view.at = 1;
  view.page = null;
  if (view.state) showTenancies();
}
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(find, 200);
});
$("order").addEventListener("change", find);
$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  find();
});
for (const [name, step] of [["previous", -1], ["next", 1]]) {
  $(name).addEventListener("click", () => {
    view.at = Math.max(view.at + step, 1);
    showTenancies();
  });
}

// A connection that broke without a word, as when the machine slept, looks like one on which nothing happens.
setInterval(() => {
  if (view.source && Date.now() - view.last > SILENCE) begin();
}, 10000);

// A page that nobody sees asks for nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    view.source?.close();
    view.source = null;
  } else if (!view.source) begin();
});
begin();
