// Runs: their reports, and the one at work, which the server tells of once a second.
import { bytes, counted, crumbs, el, get, link, number, paged, soft, state, table, took } from "./parts.js";

const line = document.getElementById("live");
// What was told last; who shows it; and the first word of this run, from which a rate is taken.
let told = null;
let redraw = null;
let first = null;
let spoken = 0;
// Seconds between two changes of the line: a screen reader says each of them.
const QUIET = 10;

const done = (t) => t.series.complete + t.series.incomplete + t.series.quarantined;

function words() {
  if (!told) return "";
  const { live, is_there, writing, to_do } = told;
  if (live && is_there) {
    if (live.phase === "crawl") return `A run is at work: ${number(live.collections.crawled)} of ${counted(live.collections.found, "collection")} crawled.`;
    return `A run is at work: ${number(done(live))} of ${counted(live.series.planned, "series", "series")} done.`;
  }
  if (live) return "The last run was cut off; the next one goes on.";
  if (writing) return "The ledger is being written.";
  return to_do ? `${counted(to_do, "series", "series")} to do; no run is at work.` : "";
}

export function watch() {
  new EventSource("_page/events").onmessage = (event) => {
    const before = told;
    told = JSON.parse(event.data);
    const live = told.is_there ? told.live : null;
    if (!live) first = null;
    else if (!first || first.run !== live.run || first.phase !== live.phase) first = live;
    const now = Date.now() / 1000;
    const other = !before || before.is_there !== told.is_there || before.live?.phase !== told.live?.phase;
    const text = words();
    if (text !== line.textContent && (other || text === "" || now - spoken >= QUIET)) {
      line.replaceChildren(text ? el("a", { href: "#/live" }, text) : "");
      spoken = now;
    }
    redraw?.();
  };
}

function left(live) {
  const seconds = live.seconds - first.seconds;
  const fetched = live.bytes.fetched - first.bytes.fetched;
  if (live.phase !== "fetch" || seconds < 3) return [null, null];
  const rate = fetched / seconds;
  const rest = live.bytes.planned === null ? null : Math.max(0, live.bytes.planned - live.bytes.fetched);
  return [rate, rest !== null && rate > 0 ? rest / rate : null];
}

export async function live() {
  const box = el("div");
  const bar = el("progress", { "aria-label": "Series done" });
  const facts = el("dl");
  const last = el("div");
  const found = el("div");
  const draw = () => {
    if (!box.isConnected && box.hasChildNodes()) { redraw = null; return; }
    const is = told?.live;
    if (!is) return box.replaceChildren(soft(told ? words() || "No run is at work." : "Listening…"));
    if (!told.is_there) {
      return box.replaceChildren(el("p", { class: "bad" }, `Run ${is.run} has said nothing since ${new Date(is.at * 1000).toISOString().slice(11, 19)} UTC: it was cut off. What it fetched is kept, and the next run goes on.`));
    }
    bar.max = Math.max(1, is.series.planned);
    if (is.phase === "crawl") bar.removeAttribute("value");
    else bar.value = done(is);
    const [rate, rest] = left(is);
    const of = (have, all, show) => (all === null ? show(have) : `${show(have)} of ${show(all)}`);
    const rows = [
      ["Run", is.run], ["Scope", is.scope], ["Server", is.server], ["At work for", took(is.seconds)],
      ["Doing", { crawl: "asking the archive what there is", fetch: "fetching", stop: "stopping" }[is.phase]],
      ["Collections crawled", of(is.collections.crawled, is.collections.found || null, number)],
      ["Series done", is.phase === "crawl" ? "" : `${number(done(is))} of ${number(is.series.planned)}; ${number(is.series.kept)} need nothing`],
      ["Not right", is.series.incomplete + is.series.quarantined ? `${number(is.series.incomplete)} incomplete, ${number(is.series.quarantined)} quarantined` : "none"],
      ["Instances", is.phase === "crawl" ? "" : of(is.instances.fetched, is.instances.planned, number)],
      ["Bytes", is.phase === "crawl" ? "" : of(is.bytes.fetched, is.bytes.planned, bytes)],
      ["Rate", rate === null ? "" : `${bytes(Math.round(rate))}/s`], ["Time left", rest === null ? "" : `about ${took(rest)}`],
    ];
    facts.replaceChildren(...rows.filter(([, text]) => text !== "").flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]));
    const kinds = Object.entries(is.findings);
    found.replaceChildren(...(kinds.length ? [el("h2", {}, "Findings"), el("ul", { class: "bad" }, kinds.map(([kind, n]) => el("li", {}, `${kind}: ${number(n)}`)))] : []));
    last.replaceChildren(...(is.last.length ? [el("h2", {}, "Judged last"), table("Series judged last", [
      ["Series", (r) => link(r.series_instance_uid, "s", r.series_instance_uid)],
      ["Patient", (r) => link(r.patient_id, "p", r.collection, r.patient_id)],
      ["Collection", (r) => link(r.collection, "c", r.collection)],
      ["State", (r) => state(r.state, r.state === "complete")]], is.last).box] : []));
    if (!bar.isConnected) box.replaceChildren(bar, facts, found, last);
  };
  redraw = draw;
  draw();
  return ["At work", crumbs(link("Runs", "runs")), box];
}

const stateOf = (r) => state(r.state ?? "cannot be read", r.state === "complete");

export async function runs() {
  return ["Runs", el("p", { class: "links" }, link("At work", "live")), await paged("Runs", [
    ["Run", (r) => link(r.run, "run", r.run)],
    ["State", stateOf],
    ["Exit code", (r) => r.exit_code ?? "", true],
    ["Took", (r) => took(r.seconds), true],
    ["Images fetched", (r) => number(r.fetched), true],
    ["Bytes fetched", (r) => bytes(r.bytes), true],
    ["Findings", (r) => number(r.findings), true],
  ], (last) => get("runs", last ? { before: last.run } : {}), "No run has left a report.")];
}

export async function run(name) {
  const report = await get("run", { name });
  const findings = (report.findings || []).map((f) => [f.kind, f.detail, f.series_instance_uid].filter(Boolean).join(" · "));
  return [name, crumbs(link("Runs", "runs")),
    el("p", {}, stateOf(report), `, exit code ${report.exit_code}, in ${took(report.seconds)}`),
    report.error ? el("p", { class: "bad" }, report.error) : null,
    findings.length ? el("h2", {}, "Findings") : null,
    findings.length ? el("ul", {}, findings.slice(0, 200).map((text) => el("li", {}, text))) : null,
    el("h2", {}, "Report"),
    el("pre", { tabindex: 0, role: "region", "aria-label": "Report" }, JSON.stringify(report, null, 2))];
}
