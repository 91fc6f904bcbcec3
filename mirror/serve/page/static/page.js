// The page: what stands behind the # says what is shown.
import { API, PAGE, bytes, counted, crumbs, day, el, get, held, link, number, paged, q, seriesColumns, soft, state, table, to } from "./parts.js";
import { live, run, runs, watch } from "./runs.js";
import { series } from "./series.js";

const main = document.getElementById("main");
let turn = 0;

function completeness(r) {
  if (r.complete === r.series && !r.missing) return "all";
  return link(`${number(r.complete)} of ${number(r.series)}`, "u", r.collection);
}

async function collections() {
  const all = await get("collections");
  const shown = el("div");
  const columns = [
    ["Collection", (r) => link(r.collection, "c", r.collection)],
    ["Series", (r) => number(r.series), true],
    ["Complete", completeness, true],
    ["Images", (r) => number(r.images), true],
    ["Size", held, true],
    ["Licence", (r) => el("span", { class: "wide" }, r.licence)],
    ["Last sync", (r) => el("span", { class: "line" }, day(r.synced))],
  ];
  const filter = () => {
    const rows = all.filter((r) => r.collection.toLowerCase().includes(input.value.toLowerCase()));
    shown.replaceChildren(rows.length ? table("Collections", columns, rows).box
      : soft(all.length ? "No collection has that name." : "Nothing is mirrored yet."));
  };
  const input = el("input", { type: "search", oninput: filter });
  filter();
  const sum = (name) => all.reduce((n, r) => n + (r[name] ?? 0), 0);
  return ["Collections", soft(`${counted(all.length, "collection")}, ${counted(sum("series"), "series", "series")}, `
    + `${counted(sum("images"), "image")}, ${bytes(sum("bytes"))}`), el("label", {}, "Find a collection", input), shown];
}

// An input whose text stands in the address, and a list that is made anew as it changes
function searched(label, text, address, list) {
  const shown = el("div", { "aria-live": "polite" });
  let latest = 0;
  const draw = async () => {
    const mine = ++latest;
    await list(input.value, (...found) => mine === latest && shown.replaceChildren(...found), () => mine === latest);
  };
  const input = el("input", { type: "search", value: text, oninput: () => {
    history.replaceState(null, "", address(input.value));
    draw();
  } });
  return { parts: [el("label", {}, label, input), shown], draw };
}

async function patients(collection, contains = "") {
  const { parts, draw } = searched("Find a patient", contains, (text) => to("c", collection, text), async (text, put) => {
    put(await paged("Patients", [["Patient", (id) => link(id, "p", collection, id)]],
      (last) => get("patients", { collection, contains: text, after: last ?? "" }), "No patient is found."));
  });
  await draw();
  return [collection, crumbs(link("Collections", "")), el("p", { class: "links" }, link("Search its series", "q", collection, ""),
    link("Not complete", "u", collection), el("a", { href: API + "getSeries?" + q({ Collection: collection, format: "csv" }) }, "Series as CSV"),
    el("button", { type: "button", onclick: () => manifest(collection) }, ".tcia")), ...parts];
}

// The call takes a form, which a link cannot send
async function manifest(collection) {
  const answer = await fetch(API + "getManifestForCollection", { method: "POST", body: new URLSearchParams({ Collection: collection }) });
  const address = URL.createObjectURL(await answer.blob());
  el("a", { href: address, download: collection + ".tcia" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

const PATIENT = ["Patient", (r) => link(r.patient, "p", r.collection, r.patient)];

// Found step by step, each of which looks at some thousands of series, so that no question takes long
async function search(collection, words = "") {
  const { parts, draw } = searched("Words, all of which must occur: modality, body part, description, UID, patient", words,
    (text) => to("q", collection, text), async (text, put, current) => {
      if (!text.trim()) return put(soft("Series are searched as you type."));
      let after = 0;
      const some = async () => {
        const rows = [];
        while (after !== null && rows.length < PAGE && current()) {
          const step = await get("search", { collection, words: text, id: after });
          rows.push(...step.rows);
          after = step.after;
        }
        return rows;
      };
      put(soft("Searching…"));
      const rows = await some();
      if (!rows.length) return put(soft("No series is found."));
      const { box, add } = table("Series", [...seriesColumns.slice(0, 1), PATIENT, ...seriesColumns.slice(1)], rows);
      const more = el("button", { type: "button", onclick: async () => {
        add(await some());
        more.hidden = after === null;
      } }, "Search on");
      more.hidden = after === null;
      put(box, more);
    });
  draw();
  return [`Series of ${collection}`, crumbs(link("Collections", ""), link(collection, "c", collection)), ...parts];
}

async function unfinished(collection) {
  const columns = [...seriesColumns.slice(0, 1), PATIENT, ...seriesColumns.slice(3),
    ["Findings", (r) => el("span", { class: "value" }, r.findings.join("; "))]];
  return [`Not complete in ${collection}`, crumbs(link("Collections", ""), link(collection, "c", collection)),
    await paged("Series", columns, (last) => get("unfinished", { collection, id: last?.id ?? 0 }), "Every series of it is complete.")];
}

async function patient(collection, id) {
  const list = await paged("Series", seriesColumns,
    (last) => get("series", { collection, patient: id, study: last?.study ?? "", id: last?.id ?? 0 }), "No series.",
    (r) => ["Study", r.StudyDate.slice(0, 10), r.StudyDescription, r.study].filter(Boolean).join(" · "));
  return [id, crumbs(link("Collections", ""), link(collection, "c", collection)), list];
}

const KINDS = [
  ["Instance", (p) => p.instance && link(p.instance, "s", p.series, p.instance)],
  ["Series", (p) => p.series && link(p.series, "s", p.series)],
  ["Study", (p) => p.study && link(p.study, "p", p.collection, p.patient)],
  ["Patient", (p) => p.patient && link(p.patient, "p", p.collection, p.patient)],
  ["Collection", (p) => link(p.collection, "c", p.collection)],
];
async function find(text = "") {
  const places = text.trim() ? await get("find", { text }) : [];
  const rows = places.map((p) => {
    const [kind, show] = KINDS.find(([, made]) => made(p));
    return { kind, place: show(p), of: [p.series || p.study ? p.patient : null, p.collection].filter((x) => x).join(" · ") };
  });
  return [`Found for ${text}`, crumbs(link("Collections", "")), rows.length
    ? table("Found", [["What", (r) => r.place], ["Kind", (r) => r.kind], ["Where", (r) => (r.kind === "Collection" ? "" : r.of)]], rows).box
    : soft("Nothing begins with that: a UID, a PatientID or a collection is looked for.")];
}

const VIEWS = { "": collections, c: patients, p: patient, q: search, u: unfinished, s: series, find, runs, run, live };
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
document.getElementById("find").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = to("find", new FormData(event.target).get("text").trim());
});
show();
// Runs are for who may see everything.
get("rights").then(({ everything, sign_in }) => {
  document.getElementById("sign-in").hidden = !sign_in;
  if (!everything) return;
  document.getElementById("operation").hidden = false;
  watch();
});
