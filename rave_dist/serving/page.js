"use strict";
const $ = (id) => document.getElementById(id);
const models = new Map();
let file = null, working = false, urls = [];

const refresh = () => { $("go").disabled = working || !file || !models.size; };
const show = (error) => {
  $("error").hidden = !error;
  $("error").textContent = error ? [error.what, error.fix].filter(Boolean).join(". ") : "";
};

async function list() {
  let found = [];
  try {
    const answer = await fetch("/v1/models");
    const document_ = await answer.json();
    if (!answer.ok) return show(document_.error);
    found = document_.models;
  } catch { return show({ what: "the service does not respond", fix: "is it still running?" }); }
  const before = $("model").value;
  models.clear();
  for (const m of found) models.set(`${m.name}@${m.version}`, m);
  const options = [...models].map(([reference, m]) => {
    const several = found.filter((o) => o.name === m.name).length > 1;
    return new Option(several ? `${m.name} (${m.version})` : m.name, reference);
  });
  $("model").replaceChildren(...options);
  if (models.has(before)) $("model").value = before;
  $("model").disabled = !models.size;
  $("about").textContent = models.size ? `${models.size} model${models.size > 1 ? "s" : ""} in the store. Your recording goes to this service and nowhere else.`
    : "No model is published in this store yet. New models appear here automatically.";
  describe();
}

function describe() {
  const m = models.get($("model").value);
  if (m) {
    const minutes = m.seconds >= 90 ? `${Math.round(m.seconds / 60)} min` : `${Math.round(m.seconds)} s`;
    const credit = ["performer", "source", "licence"].map((key) => m.credit[key]).filter(Boolean).join(", ");
    $("facts").textContent = `${m.config.join(" + ")}, ${m.sample_rate} Hz, ${m.latents} latents, phase ${m.phase}, ` +
      (m.delay === null ? "" : `${m.delay} samples of delay in real time, `) +
      `${m.step.toLocaleString("en")} steps on ${minutes}${m.verdict ? `; ${m.verdict.word}` : ""}${credit ? `; ${credit}` : ""}`;
    $("terms").textContent = m.engine.terms;
  } else $("facts").textContent = $("terms").textContent = "";
  refresh();
}

function choose(chosen) {
  if (!chosen) return;
  file = chosen;
  $("chosen").textContent = file.name;
  $("hint").textContent = `${(file.size / 1e6).toFixed(file.size < 1e5 ? 3 : 1)} MB; drop another to replace it`;
  show(null);
  refresh();
}

function figure(title, blob, name) {
  const url = URL.createObjectURL(blob);
  urls.push(url);
  const box = document.createElement("figure");
  const caption = box.appendChild(document.createElement("figcaption"));
  caption.appendChild(document.createElement("b")).textContent = title;
  if (name) {
    const link = caption.appendChild(document.createElement("a"));
    Object.assign(link, { href: url, download: name, textContent: "Save" });
  }
  const canvas = box.appendChild(document.createElement("canvas"));
  const player = box.appendChild(document.createElement("audio"));
  Object.assign(player, { controls: true, src: url, preload: "metadata" });
  $("sounds").append(box);
  draw(canvas, blob, name ? "--held-out" : "--accent");
}

async function draw(canvas, blob, colour) {
  let sound;
  try { sound = await new OfflineAudioContext(1, 1, 44100).decodeAudioData(await blob.arrayBuffer()); }
  catch { canvas.remove(); return; }   // a format that this browser cannot play
  const scale = devicePixelRatio || 1, width = canvas.width = canvas.clientWidth * scale, height = canvas.height = 84 * scale;
  const samples = sound.getChannelData(0), pen = canvas.getContext("2d");
  pen.fillStyle = getComputedStyle(canvas).getPropertyValue(colour);
  const step = samples.length / width;
  for (let x = 0; x < width; x++) {
    let low = 0, high = 0;
    for (let i = Math.floor(x * step); i < (x + 1) * step && i < samples.length; i++) {
      if (samples[i] < low) low = samples[i];
      if (samples[i] > high) high = samples[i];
    }
    pen.fillRect(x, (1 - high) * height / 2, 1, Math.max(scale, (high - low) * height / 2));
  }
}

async function convert() {
  const reference = $("model").value, format = $("format").value, sound = file;
  working = true; refresh(); show(null);
  $("go").textContent = "Converting …";
  try {
    const query = new URLSearchParams({ model: reference, format });
    const answer = await fetch(`/v1/convert?${query}`, { method: "POST", body: sound, headers: { "content-type": "application/octet-stream" } });
    if (!answer.ok) {
      const text = await answer.text();
      try { show(JSON.parse(text).error); } catch { show({ what: text || `the service responded with status ${answer.status}` }); }
      return;
    }
    const result = await answer.blob();
    urls.forEach((url) => URL.revokeObjectURL(url)); urls = [];
    $("sounds").replaceChildren();
    const model = models.get(reference).name;
    figure(`${sound.name} through ${model}`, result, `${sound.name.replace(/\.[^.]*$/, "")}.${model}.${format}`);
    figure(sound.name, sound, "");
    const remarks = ["salvaged", "silent", "clipped"].map((name) => answer.headers.get(`x-rave-dist-${name}`)).filter(Boolean);
    if (remarks.length) show({ what: remarks.join(". ") });
  } catch { show({ what: "the service does not respond", fix: "is it still running?" }); }
  finally { working = false; $("go").textContent = "Convert"; refresh(); }
}

$("file").addEventListener("change", () => choose($("file").files[0]));
$("model").addEventListener("change", describe);
$("model").addEventListener("pointerdown", list);
$("go").addEventListener("click", convert);
for (const name of ["dragover", "dragleave", "drop"]) addEventListener(name, (event) => {
  event.preventDefault();
  $("drop").classList.toggle("over", name === "dragover");
  if (name === "drop") choose(event.dataTransfer.files[0]);
});
list();
