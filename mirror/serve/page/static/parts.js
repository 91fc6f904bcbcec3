// What views are made of: elements, tables that grow by pages, numbers in words. All text goes in as text nodes.
export const API = "nbia-api/services/v4/";
export const PAGE = 50;

export function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}
export const q = (values) => new URLSearchParams(values).toString();
export const to = (...parts) => "#/" + parts.map(encodeURIComponent).join("/");
export const link = (text, ...parts) => el("a", { href: to(...parts) }, text);
export const crumbs = (...links) => el("nav", { class: "crumbs", "aria-label": "Where you are" },
  ...links.flatMap((node, i) => (i ? [" / ", node] : [node])));
export const soft = (...text) => el("p", { class: "soft" }, ...text);

export const number = (n) => (n ?? 0).toLocaleString("en");
export const counted = (n, what, many = `${what}s`) => `${number(n)} ${n === 1 ? what : many}`;
export function bytes(n) {
  if (n === null || n === undefined) return "unknown";
  let unit = 0;
  for (; n >= 1000 && unit < 5; n /= 1000) unit++;
  return `${unit ? n.toFixed(1) : n} ${["B", "kB", "MB", "GB", "TB", "PB"][unit]}`;
}
export const day = (s) => (s ? new Date(s * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC" : "never");
export function took(seconds) {
  const s = Math.round(seconds ?? 0);
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min` : `${Math.round(s / 86400)} days`;
}

export async function get(name, values) {
  const answer = await fetch(`_page/${name}?${q(values || {})}`);
  if (!answer.ok) throw new Error((await answer.text()) || `The server answers ${answer.status}.`);
  return answer.json();
}

// columns: [heading, row => content, numeric]; the first is the row's heading. group: row => what heads those alike
export function table(caption, columns, rows, group) {
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
export async function paged(caption, columns, next, empty, group) {
  let rows = await next(null);
  if (!rows.length) return soft(empty);
  const { box, add } = table(caption, columns, rows, group);
  const more = el("button", { type: "button", onclick: async () => {
    rows = await next(rows[rows.length - 1]);
    add(rows);
    more.hidden = rows.length < PAGE;
  } }, "Show more");
  more.hidden = rows.length < PAGE;
  return el("div", {}, box, more);
}

export const state = (text, good) => el("span", { class: good ? "" : "bad" }, text);
// What is held, and the archive's word where that is another
export const held = (r) => bytes(r.bytes) + (r.told !== null && r.told !== undefined && r.told !== r.bytes ? ` of ${bytes(r.told)}` : "");

const title = (r) => r.SeriesDescription || "Series " + (r.SeriesNumber || r.uid);
export const seriesColumns = [
  ["Series", (r) => link(title(r), "s", r.uid)],
  ["Modality", (r) => r.Modality],
  ["Body part", (r) => r.BodyPartExamined],
  ["Images", (r) => number(r.images), true],
  ["Size", held, true],
  ["State", (r) => state(r.state, r.complete && r.state === "complete")],
];
