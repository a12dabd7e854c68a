// Draws what /events sends, and asks /user and /item. All text is put in as text, never as markup.
"use strict";

const KEPT = 150; // samples, five minutes
const samples = [];
const at = (id) => document.getElementById(id);

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = String(text);
  if (parent) parent.append(made);
  return made;
}

function number(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

function line(svg, name, top, className) {
  const points = [];
  samples.forEach((sample, index) => {
    const value = sample[name];
    if (value === null || value === undefined) return;
    const x = 100 - ((samples.length - 1 - index) * 100) / (KEPT - 1);
    points.push(`${x.toFixed(2)},${(39 - (38 * value) / top).toFixed(2)}`);
  });
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  drawn.setAttribute("points", points.join(" "));
  if (className) drawn.setAttribute("class", className);
  svg.append(drawn);
}

function plot(id, names, digits) {
  const place = at(id);
  place.querySelectorAll("svg, .now").forEach((old) => old.remove());
  const known = (name) => samples.map((s) => s[name]).filter((v) => v !== null && v !== undefined);
  const values = names.flatMap(known);
  const last = samples.at(-1) || {};
  const now = element("p", names.map((name) => number(last[name], digits)).join(" / "), place);
  now.className = "now";
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  names.forEach((name, n) => line(svg, name, Math.max(...values, 1e-9), n ? "second" : ""));
  place.append(svg);
}

function rows(body, cells) {
  body.replaceChildren();
  for (const row of cells) {
    const made = element("tr", null, body);
    row.forEach((cell) => element("td", cell, made));
  }
}

function show(state) {
  samples.push(...state.samples);
  samples.splice(0, Math.max(0, samples.length - KEPT));
  at("connection").textContent = `As of ${new Date().toLocaleTimeString()}`;
  at("troubles").replaceChildren();
  for (const [name, why] of Object.entries(state.troubles)) {
    element("li", `${name}: ${why}`, at("troubles"));
  }
  plot("rate", ["rate"], 0);
  plot("rows", ["rows"], 0);
  plot("lag", ["lag", "serving_lag"], 0);
  plot("fresh", ["fresh", "late"], 3);
  training(state);
  versions(state);
}

function training(state) {
  at("trainer").textContent = `The trainer: ${state.trainer}.`;
  at("stages").replaceChildren();
  state.stages.forEach((stage) => {
    const runs = state.training && stage === state.training.stage && state.training.steps;
    const step = runs ? ` (step ${state.training.step} of ${state.training.steps})` : "";
    element("li", stage + step, at("stages"));
  });
  if (state.training && samples.some((s) => s.loss !== null)) plot("loss", ["loss"], 4);
  else at("loss").replaceChildren();
}

function versions(state) {
  const metric = (model, name) => number(model && model.metrics && model.metrics[name], 4);
  rows(at("versions").querySelector("tbody"), state.versions.map((model) => [
    model.live ? "live" : "", model.version, number(model.edges), number(model.users),
    number(model.items), number(model.seconds, 1), metric(model, "recall@20"),
    metric(model, "ndcg@20"), model.verdict,
  ]));
  const newest = state.versions[0];
  const live = state.versions.find((model) => model.live);
  const names = Object.keys((newest && newest.metrics) || {});
  rows(at("compare").querySelector("tbody"),
    names.map((name) => [name, metric(newest, name), metric(live, name)]));
}

function table(title, heads, cells, trouble) {
  const place = element("div", null, at("found"));
  element("h2", title, place);
  if (trouble) { element("p", trouble, place); return; }
  const made = element("table", null, place);
  const head = element("tr", null, element("thead", null, made));
  heads.forEach((name) => element("th", name, head));
  rows(element("tbody", null, made), cells);
}

async function ask(event) {
  event.preventDefault();
  const kind = event.submitter ? event.submitter.value : "user";
  const answer = await fetch(`/${kind}?id=${encodeURIComponent(at("id").value)}`);
  const found = await answer.json();
  at("found").replaceChildren();
  if (found.trouble) { element("p", found.trouble, at("found")); return; }
  if (kind === "user") {
    table(`Edges of ${found.id}`, ["item", "type", "interaction", "time"], found.edges || [],
      found.edges_trouble);
  }
  const title = kind === "user" ? `List of ${found.id}` : `Neighbours of ${found.id}`;
  const made = found.source ? ` (${found.source}, ${found.model})` : "";
  table(title + made, ["item", "score", "because"], found.list || [], found.list_trouble);
}

at("ask").addEventListener("submit", ask);
const stream = new EventSource("/events");
stream.onmessage = (message) => show(JSON.parse(message.data));
stream.onerror = () => { at("connection").textContent = "The page's server does not answer."; };
