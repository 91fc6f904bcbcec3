// One series: its instances one after the other, as pictures and as headers.
import { API, PAGE, bytes, counted, crumbs, el, get, held, link, q, soft, state, table } from "./parts.js";

// Pictures that were fetched, the next one before it is asked for; the server draws each anew.
const KEPT = 12;
const pictures = new Map();
function picture(values) {
  const key = q(values);
  if (!pictures.has(key)) {
    if (pictures.size >= KEPT) pictures.delete(pictures.keys().next().value);
    pictures.set(key, fetch("_page/preview?" + key).then(async (answer) => (answer.ok
      ? { ...JSON.parse(answer.headers.get("X-Preview")), blob: await answer.blob() }
      : { words: await answer.text() })));
  }
  return pictures.get(key);
}

export async function series(uid, wanted) {
  const row = await get("one", { uid });
  const instances = await get("instances", { uid });
  const top = [row.SeriesDescription || "Series " + (row.SeriesNumber || ""),
    crumbs(link("Collections", ""), link(row.collection, "c", row.collection), link(row.patient, "p", row.collection, row.patient)),
    el("p", { class: "soft" }, `${row.Modality} · ${counted(row.images, "image")} · ${held(row)} · `, state(row.state, row.state === "complete"), ` · ${uid}`),
    row.findings.length ? el("ul", { class: "bad", "aria-label": "Findings" },
      row.findings.map((f) => el("li", {}, f))) : null,
    el("p", { class: "links" }, row.complete ? el("a", { href: API + "getImage?" + q({ SeriesInstanceUID: uid }) }, "Zip") : "",
      el("a", { href: "_page/manifest?" + q({ uid }), download: uid + ".tcia" }, ".tcia"),
      el("a", { href: API + "getSeries?" + q({ SeriesInstanceUID: uid, format: "csv" }) }, "CSV"))];
  if (!instances.length) return [...top, soft("Its images are shown once the series is complete.")];
  return [...top, ...viewer(uid, instances, wanted)];
}

function viewer(uid, instances, wanted) {
  const view = el("div", { class: "view", tabindex: 0, role: "group", "aria-label": "Picture; the arrow keys step through the series" });
  const tags = el("div");
  const where = el("span", { class: "soft", role: "status" });
  const frame = el("input", { type: "range", min: 0, max: 0, value: 0 });
  const frames = el("label", { hidden: "" }, "Frame", frame);
  const center = el("input", { type: "number", step: "any" });
  const width = el("input", { type: "number", step: "any", min: 0 });
  const presets = el("select");
  const windows = el("fieldset", { hidden: "" }, el("legend", {}, "Window"), el("label", {}, "Preset", presets),
    el("label", {}, "Center", center), el("label", {}, "Width", width));
  const option = (i) => el("option", { value: i.uid }, `${i.number ?? "–"} · ${bytes(i.bytes)} · ${i.uid}`);
  const select = el("select", {}, ...instances.map(option));
  let whole = instances.length < PAGE;
  let shown = 0;

  async function grow() {
    if (whole) return;
    const last = instances[instances.length - 1];
    const more = await get("instances", { uid, after: last.uid, number: last.number ?? "" });
    instances.push(...more);
    select.append(...more.map(option));
    whole = more.length < PAGE;
  }
  const asked = (instance, at = frame.value) => ({ uid, instance, frame: at,
    ...(center.value !== "" && width.value > 0 ? { center: center.value, width: width.value } : {}) });

  function offer(told) {
    frame.max = told.frames - 1;
    frames.hidden = told.frames < 2;
    windows.hidden = !told.window && !told.windows.length;
    presets.replaceChildren(el("option", { value: "" }, "As the file says"),
      ...told.windows.map((w) => el("option", { value: `${w.center}/${w.width}` }, w.name || `${w.center} / ${w.width}`)));
    center.placeholder = told.window ? told.window.center : "";
    width.placeholder = told.window ? told.window.width : "";
    presets.value = [...presets.options].some((o) => o.value === `${center.value}/${width.value}`) ? `${center.value}/${width.value}` : "";
  }
  async function draw() {
    const mine = ++shown;
    const at = select.selectedIndex;
    where.textContent = `${at + 1} of ${instances.length}${whole ? "" : "+"}`;
    const told = await picture(asked(select.value));
    if (mine !== shown) return;
    if (told.words !== undefined) return view.replaceChildren(el("p", {}, told.words));
    offer(told);
    const image = el("img", { alt: `Instance ${instances[at].number ?? select.value}, frame ${Number(frame.value) + 1} of ${told.frames}` });
    image.onload = () => URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(told.blob);
    view.replaceChildren(image);
    if (instances[at + 1]) picture(asked(instances[at + 1].uid, 0));
  }
  async function pick() {
    frame.value = 0;
    draw();
    if (select.selectedIndex >= instances.length - 2) grow();
    const mine = select.value;
    try {
      const rows = await get("tags", { uid, instance: mine });
      if (mine === select.value) tags.replaceChildren(table("Header", [["Element", (t) => t.element], ["Name", (t) => t.name], ["Value", (t) => el("span", { class: "value" }, t.data)]], rows).box);
    } catch (error) { tags.replaceChildren(el("p", {}, error.message)); }
  }
  async function step(by) {
    const at = select.selectedIndex + by;
    if (at >= instances.length) await grow();
    if (at < 0 || at >= instances.length) return;
    select.selectedIndex = at;
    pick();
  }

  view.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    step(by);
  });
  select.addEventListener("change", pick);
  frame.addEventListener("input", draw);
  for (const input of [center, width]) input.addEventListener("change", draw);
  presets.addEventListener("change", () => {
    [center.value, width.value] = presets.value ? presets.value.split("/") : ["", ""];
    draw();
  });
  if (wanted && !instances.some((i) => i.uid === wanted)) {
    instances.unshift({ uid: wanted, number: null, bytes: null });
    select.prepend(el("option", { value: wanted }, wanted));
  }
  if (wanted) select.value = wanted;
  pick();
  const button = (text, by) => el("button", { type: "button", onclick: () => step(by) }, text);
  return [el("label", {}, "Instance", select), el("p", { class: "steps" }, button("Previous", -1), button("Next", 1), where),
    view, frames, windows, el("h2", {}, "Header"), tags];
}
