"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const memory = "mri_jax qc " + data.fingerprint + " " + data.store;
let saved = {};
try { saved = JSON.parse(localStorage.getItem(memory) || "{}"); } catch { /* storage is off: marks last as long as the page */ }
const marks = Object.assign({}, data.decisions, saved.marks);
byId("rater").value = saved.rater || "";
const keyOf = s => s.subject_id + "\u0000" + s.session_id;
const save = () => { try { localStorage.setItem(memory, JSON.stringify({ marks, rater: byId("rater").value })); } catch { /* see above */ } };
const el = (name, text, cls) => { const e = document.createElement(name); if (text !== undefined) e.textContent = text; if (cls) e.className = cls; return e; };
const seen = new IntersectionObserver(entries => entries.forEach(e => {
  if (e.isIntersecting) { const img = e.target.querySelector("img"); if (!img.src) img.src = "data:image/webp;base64," + e.target.scan.image; }
}), { rootMargin: "900px" });

function paint(row) {
  const mark = marks[keyOf(row.scan)] || {};
  row.className = mark.decision || "";
  row.querySelector(".reason").value = mark.reason || "";
}
function decide(row, decision) {
  const key = keyOf(row.scan), old = marks[key] || {};
  marks[key] = { decision, reason: old.reason || "", rater: byId("rater").value, date: new Date().toISOString().slice(0, 10) };
  paint(row); tally(); save();
}
function build(scan) {
  const row = el("article"); row.scan = scan; row.tabIndex = 0;
  const who = el("div", undefined, "who");
  who.append(el("b", scan.subject_id), el("span", scan.session_id), el("span", scan.cohort));
  if (scan.flags) who.append(el("span", scan.flags, "flags"));
  const img = el("img"); img.alt = "slices of " + scan.subject_id; img.width = data.image_size[0]; img.height = data.image_size[1];
  const side = el("div"), list = el("dl");
  for (const f of data.figures) { const t = el("dt", f.name), limit = data.groups[scan.group].limits[f.name]; t.title = f.meaning + (limit ? "; limit: " + limit : ""); list.append(t, el("dd", scan.figures[f.name] ?? "–")); }
  const buttons = el("div", undefined, "marks"), keep = el("button", "keep", "k"), out = el("button", "exclude", "e"), reason = el("input", undefined, "reason");
  reason.placeholder = "reason"; reason.setAttribute("aria-label", "reason");
  keep.onclick = () => decide(row, "keep"); out.onclick = () => decide(row, "exclude");
  reason.onchange = () => { const k = keyOf(scan); marks[k] = Object.assign({ decision: "" }, marks[k], { reason: reason.value, rater: byId("rater").value, date: new Date().toISOString().slice(0, 10) }); save(); };
  row.onkeydown = e => {
    if (e.target === reason) return;
    const act = { k: () => decide(row, "keep"), e: () => decide(row, "exclude"), u: () => decide(row, ""),
      ArrowDown: () => row.nextElementSibling?.focus(), ArrowUp: () => row.previousElementSibling?.focus() }[e.key];
    if (act && !e.ctrlKey && !e.metaKey) { e.preventDefault(); act(); }
  };
  buttons.append(keep, out, reason); side.append(list, buttons);
  row.append(who, img, side); paint(row); seen.observe(row);
  return row;
}
if (data.rigid) byId("outline").textContent = "the outline of its own mask (registration is rigid: brains keep their size)";
for (const group of data.groups) {
  const limits = data.figures.filter(f => group.limits[f.name]).map(f => f.name + " " + group.limits[f.name]);
  byId("limits").append(el("p", group.text + ". Limits: " + (limits.join("; ") || "none") + "."));
}
const rows = data.scans.map(build);
for (const [value, text] of [["suspicion", "suspicion (all figures)"], ...data.figures.map(f => [f.name, f.name]), ["subject_id", "subject"]]) {
  const o = el("option", text); o.value = value; byId("sort").append(o);
}
let worst = true;
function badness(scan, by) {
  if (by === "suspicion") return scan.suspicion;
  const f = data.figures.find(x => x.name === by), v = scan.figures[by];
  if (v === null || v === undefined) return -Infinity;
  return f.side === "low" ? -v : f.side === "high" ? v : Math.abs(v - (data.groups[scan.group].medians[by] ?? v));
}
function arrange() {
  const by = byId("sort").value, show = byId("show").value, find = byId("find").value.toLowerCase();
  const order = rows.slice().sort((a, b) => {
    const names = a.scan.subject_id < b.scan.subject_id ? -1 : a.scan.subject_id > b.scan.subject_id ? 1 : 0;
    if (by === "subject_id") return worst ? names : -names;
    const x = badness(a.scan, by), y = badness(b.scan, by);
    return (x === y ? 0 : (x < y ? 1 : -1) * (worst ? 1 : -1)) || names;
  });
  const visible = order.filter(r => {
    const d = (marks[keyOf(r.scan)] || {}).decision || "";
    return (show === "all" || (show === "flagged" && r.scan.flags) || (show === "open" && !d) || (show === "exclude" && d === "exclude")) && r.scan.subject_id.toLowerCase().includes(find);
  });
  byId("rows").replaceChildren(...visible); tally();
}
function tally() {
  const n = { keep: 0, exclude: 0 };
  for (const s of data.scans) { const d = (marks[keyOf(s)] || {}).decision; if (d) n[d]++; }
  byId("count").textContent = n.keep + " kept, " + n.exclude + " excluded, " + (data.scans.length - n.keep - n.exclude) + " open";
}
byId("sort").onchange = byId("show").onchange = byId("find").oninput = arrange;
byId("direction").onclick = () => { worst = !worst; byId("direction").textContent = worst ? "worst first" : "best first"; arrange(); };
byId("rater").onchange = save;
byId("export").onclick = () => {
  if (!byId("rater").value.trim()) { byId("rater").focus(); alert("Give your name first: decisions carry the rater's name."); return; }
  const cell = t => /[",\r\n]/.test(t) ? '"' + t.replaceAll('"', '""') + '"' : t;
  const lines = [["subject_id", "session_id", "decision", "reason", "rater", "date"]];
  for (const s of data.scans) { const m = marks[keyOf(s)]; if (m && m.decision) lines.push([s.subject_id, s.session_id, m.decision, m.reason || "", m.rater || byId("rater").value, m.date || ""]); }
  const link = el("a"); link.href = URL.createObjectURL(new Blob([lines.map(l => l.map(cell).join(",")).join("\n") + "\n"], { type: "text/csv" }));
  link.download = "decisions.csv"; link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
arrange();
