// The page: what stands behind the # says what is shown. All text goes in as text nodes, never as HTML.
const main = document.getElementById("main");
const live = document.getElementById("live");
const API = "nbia-api/services/v4/";
let turn = 0;

function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const q = (values) => new URLSearchParams(values).toString();
const to = (...parts) => "#/" + parts.map(encodeURIComponent).join("/");
const number = (n) => (n ?? 0).toLocaleString("en");
const counted = (n, what) => `${number(n)} ${what}${n === 1 ? "" : "s"}`;
function bytes(n) {
  let unit = 0;
  for (n = n ?? 0; n >= 1000 && unit < 5; n /= 1000) unit++;
  return `${unit ? n.toFixed(1) : n} ${["B", "kB", "MB", "GB", "TB", "PB"][unit]}`;
}
const day = (s) => (s ? new Date(s * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC" : "never");

async function get(name, values) {
  const answer = await fetch(`_page/${name}?${q(values || {})}`);
  if (!answer.ok) throw new Error((await answer.text()) || `The server answers ${answer.status}.`);
  return answer.json();
}

// columns: [heading, row => content, numeric]; the first is the row's heading. group: row => what heads those alike
function table(caption, columns, rows, group) {
  const body = el("tbody");
  let headed = null;
  const add = (more) => {
    for (const row of more) {
      const head = group?.(row);
      if (group && head !== headed) {
        body.append(el("tr", { class: "group" }, el("th", { scope: "rowgroup", colspan: columns.length }, head)));
        headed = head;
      }
      body.append(el("tr", {}, ...columns.map(([, show, numeric], i) =>
        el(i ? "td" : "th", { scope: i ? undefined : "row", class: numeric ? "n" : "" }, show(row)))));
    }
  };
  add(rows);
  const head = el("tr", {}, ...columns.map(([name, , numeric]) => el("th", { scope: "col", class: numeric ? "n" : "" }, name)));
  const box = el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 }, el("table", {}, el("thead", {}, head), body));
  return { box, add };
}

// A list that grows by pages: next(last row or null) gives the next rows
async function paged(caption, columns, next, empty, group, size = 50) {
  let rows = await next(null);
  if (!rows.length) return el("p", { class: "soft" }, empty);
  const { box, add } = table(caption, columns, rows, group);
  const more = el("button", { type: "button", onclick: async () => {
    rows = await next(rows[rows.length - 1]);
    add(rows);
    more.hidden = rows.length < size;
  } }, "Show more");
  more.hidden = rows.length < size;
  return el("div", {}, box, more);
}

const link = (text, ...parts) => el("a", { href: to(...parts) }, text);
const crumbs = (...links) => el("nav", { class: "crumbs", "aria-label": "Where you are" },
  ...links.flatMap((node, i) => (i ? [" / ", node] : [node])));

async function collections() {
  const all = await get("collections");
  const shown = el("div");
  const columns = [
    ["Collection", (r) => link(r.collection, "c", r.collection)],
    ["Series", (r) => number(r.series), true],
    ["Complete", (r) => (r.complete === r.series ? "all" : number(r.complete)), true],
    ["Images", (r) => number(r.images), true],
    ["Size", (r) => bytes(r.bytes), true],
    ["Licence", (r) => r.licence],
    ["Last sync", (r) => day(r.synced)],
  ];
  const filter = () => {
    const rows = all.filter((r) => r.collection.toLowerCase().includes(input.value.toLowerCase()));
    shown.replaceChildren(rows.length ? table("Collections", columns, rows).box
      : el("p", { class: "soft" }, all.length ? "No collection has that name." : "Nothing is mirrored yet."));
  };
  const input = el("input", { type: "search", oninput: filter });
  filter();
  return ["Collections", el("label", {}, "Find a collection", input), shown];
}

async function patients(collection, contains = "") {
  const shown = el("div", { "aria-live": "polite" });
  let latest = 0;
  const list = async () => {
    const mine = ++latest;
    const found = await paged("Patients", [["Patient", (id) => link(id, "p", collection, id)]],
      (last) => get("patients", { collection, contains: input.value, after: last ?? "" }), "No patient is found.");
    if (mine === latest) shown.replaceChildren(found);
  };
  const input = el("input", { type: "search", value: contains, oninput: () => {
    history.replaceState(null, "", to("c", collection, input.value));
    list();
  } });
  await list();
  return [collection, crumbs(link("Collections", "")), el("p", { class: "links" },
    el("a", { href: API + "getSeries?" + q({ Collection: collection, format: "csv" }) }, "Series as CSV")),
    el("label", {}, "Find a patient", input), shown];
}

async function patient(collection, id) {
  const list = await paged("Series", [
    ["Series", (r) => link(r.SeriesDescription || "Series " + (r.SeriesNumber || r.uid), "s", r.uid)],
    ["Modality", (r) => r.Modality],
    ["Body part", (r) => r.BodyPartExamined],
    ["Images", (r) => number(r.images), true],
    ["Size", (r) => bytes(r.bytes), true],
    ["State", (r) => el("span", { class: r.state === "complete" ? "" : "bad" }, r.state)],
  ], (last) => get("series", { collection, patient: id, study: last?.study ?? "", id: last?.id ?? 0 }), "No series.",
    (r) => ["Study", r.StudyDate.slice(0, 10), r.StudyDescription, r.study].filter(Boolean).join(" · "));
  return [id, crumbs(link("Collections", ""), link(collection, "c", collection)), list];
}

async function series(uid) {
  const row = await get("one", { uid });
  const page = await get("instances", { uid });
  const view = el("div", { class: "view" });
  const tags = el("div");
  const frame = el("input", { type: "range", min: 0, max: 0, value: 0 });
  const frames = el("label", {}, "Frame", frame);
  frames.hidden = true;
  let shown = 0;
  const draw = async () => {
    const mine = ++shown;
    const answer = await fetch("_page/preview?" + q({ uid, instance: select.value, frame: frame.value }));
    if (mine !== shown) return;
    if (!answer.ok) return view.replaceChildren(el("p", {}, await answer.text()));
    frame.max = Number(answer.headers.get("X-Frames")) - 1;
    frames.hidden = frame.max === "0";
    const image = el("img", { alt: `Preview of ${select.value}, frame ${Number(frame.value) + 1}` });
    image.onload = () => URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(await answer.blob());
    view.replaceChildren(image);
  };
  const pick = async () => {
    frame.value = 0;
    draw();
    try {
      tags.replaceChildren(table("Header", [["Element", (t) => t.element], ["Name", (t) => t.name], ["Value", (t) => el("span", { class: "value" }, t.data)]],
        await get("tags", { uid, instance: select.value })).box);
    } catch (error) { tags.replaceChildren(el("p", {}, error.message)); }
  };
  frame.addEventListener("input", draw);
  const option = (i) => el("option", { value: i.uid }, `${i.number ?? "–"} · ${bytes(i.bytes)} · ${i.uid}`);
  const select = el("select", { onchange: pick }, ...page.map(option));
  let last = page;
  const more = el("button", { type: "button", onclick: async () => {
    last = await get("instances", { uid, after: last[last.length - 1].uid });
    select.append(...last.map(option));
    more.hidden = last.length < 50;
  } }, "Load more instances");
  more.hidden = page.length < 50;
  if (page.length) pick();
  return [row.SeriesDescription || "Series " + (row.SeriesNumber || ""),
    crumbs(link("Collections", ""), link(row.collection, "c", row.collection), link(row.patient, "p", row.collection, row.patient)),
    el("p", { class: "soft" }, `${row.Modality} · ${counted(row.images, "image")} · ${bytes(row.bytes)} · ${row.state} · ${uid}`),
    row.findings.length ? el("ul", { class: "bad", "aria-label": "Findings" }, ...row.findings.map((f) => el("li", {}, f))) : null,
    el("p", { class: "links" }, row.state === "complete" ? el("a", { href: API + "getImage?" + q({ SeriesInstanceUID: uid }) }, "Zip") : "",
      el("a", { href: "_page/manifest?" + q({ uid }), download: uid + ".tcia" }, ".tcia"),
      el("a", { href: API + "getSeries?" + q({ SeriesInstanceUID: uid, format: "csv" }) }, "CSV")),
    ...(page.length ? [el("label", {}, "Instance", select), more, view, frames, el("h2", {}, "Header"), tags]
      : [el("p", { class: "soft" }, "Its images are shown once the series is complete.")])];
}

const took = (seconds) => (seconds >= 90 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds ?? 0)} s`);
const state = (r) => el("span", { class: r.state === "complete" ? "" : "bad" }, r.state ?? "cannot be read");

async function runs() {
  return ["Runs", await paged("Runs", [
    ["Run", (r) => link(r.run, "run", r.run)],
    ["State", state],
    ["Exit code", (r) => r.exit_code ?? "", true],
    ["Took", (r) => took(r.seconds), true],
    ["Images fetched", (r) => number(r.fetched), true],
    ["Bytes fetched", (r) => bytes(r.bytes), true],
    ["Findings", (r) => number(r.findings), true],
  ], (last) => get("runs", last ? { before: last.run } : {}), "No run has left a report.")];
}
async function run(name) {
  const report = await get("run", { name });
  const findings = (report.findings || []).map((f) => [f.kind, f.detail, f.series_instance_uid].filter(Boolean).join(" · "));
  return [name, crumbs(link("Runs", "runs")),
    el("p", {}, state(report), `, exit code ${report.exit_code}, in ${took(report.seconds)}`),
    report.error ? el("p", { class: "bad" }, report.error) : null,
    findings.length ? el("h2", {}, "Findings") : null,
    findings.length ? el("ul", {}, ...findings.slice(0, 200).map((text) => el("li", {}, text))) : null,
    el("h2", {}, "Report"),
    el("pre", { tabindex: 0, role: "region", "aria-label": "Report" }, JSON.stringify(report, null, 2))];
}

const VIEWS = { "": collections, c: patients, p: patient, s: series, runs, run };
async function show() {
  if (location.hash === "#main") return main.focus();
  const mine = ++turn;
  let title, parts;
  try {
    const [view, ...args] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
    [title, ...parts] = await (VIEWS[view] || collections)(...args);
  } catch (error) { [title, parts] = ["Not shown", [el("p", {}, error.message)]]; }
  if (mine !== turn) return;
  document.title = `${title} · tcia-mirror`;
  main.replaceChildren(el("h1", {}, title), ...parts.filter((part) => part !== null));
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}
addEventListener("hashchange", show);
show();
let said = "";
new EventSource("_page/events").onmessage = (event) => {
  const { writing, to_do } = JSON.parse(event.data);
  const words = writing ? `A run is at work: ${number(to_do)}${to_do >= 10000 ? " or more" : ""} series to do.`
    : to_do ? `Quiet; ${number(to_do)} series are unfinished.` : "";
  if (words !== said) live.textContent = said = words;
};
