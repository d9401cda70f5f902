// The page: a photo in, its faces, an edit, undo, save.
import { withPacket } from "./provenance.js";

const at = (id) => document.getElementById(id);
const canvas = at("photo");
const context = canvas.getContext("2d", { willReadFrequently: true });
const MOST_PIXELS = 16e6; // more do not fit into the memory of a phone

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let [faces, chosen, history, busy, original] = [[], 0, [], true, null];

worker.onmessage = ({ data: { id, result, error, progress } }) => {
  if (progress !== undefined) return void (at("progress").value = progress);
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(new Error(error));
  else resolve(result);
};

function ask(task, given = {}, moved = []) {
  return new Promise((resolve, reject) => {
    const id = crypto.randomUUID?.() ?? String(Math.random());
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, task, ...given }, moved);
  });
}

const say = (text) => (at("status").textContent = text);

// Runs one task at a time; what goes wrong is a message.
async function during(text, task) {
  if (busy) return;
  setBusy(true);
  say(text);
  try {
    say(await task());
  } catch (error) {
    say(error.message);
  }
  setBusy(false);
}

function setBusy(now) {
  busy = now;
  for (const element of document.querySelectorAll("button, select, input")) element.disabled = now;
  at("undo").disabled = at("before").disabled = now || !history.length;
  at("go").disabled = now || !faces.length;
}

function pixels() {
  const { width, height, data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return { width, height, data };
}

const show = (image) => context.putImageData(image, 0, 0);

async function open(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is not a picture that this browser reads`);
  }
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height].map((length) => Math.round(length * scale));
  context.fillStyle = "white"; // below transparent pixels
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  [history, chosen] = [[], 0];
  at("stage").hidden = at("controls").hidden = false;
  faces = [];
  mark();
  faces = await ask("detect", { photo: pixels() });
  mark();
  if (!faces.length) return "No face found. Try a photo in which a face looks at the camera.";
  return faces.length === 1 ? "One face found." : `${faces.length} faces found: choose one in the photo.`;
}

function mark() {
  at("faces").replaceChildren(...faces.map(({ box: [x0, y0, x1, y1], landmarks }, index) => {
    const button = document.createElement("button");
    const percent = (value, whole) => `${(100 * value) / whole}%`;
    Object.assign(button.style, {
      left: percent(x0, canvas.width), top: percent(y0, canvas.height),
      width: percent(x1 - x0, canvas.width), height: percent(y1 - y0, canvas.height),
    });
    button.dataset.landmarks = JSON.stringify(landmarks); // for who wants to repeat the edit with the package
    button.ariaLabel = `face ${index + 1}`;
    button.ariaPressed = String(index === chosen);
    button.hidden = faces.length === 1;
    button.onclick = () => {
      chosen = index;
      mark();
    };
    return button;
  }));
}

async function edit() {
  const photo = pixels();
  const given = { photo, face: faces[chosen], name: at("edit").value, seed: at("seed").valueAsNumber };
  if (!(Number.isInteger(given.seed) && given.seed >= 0 && given.seed < 2 ** 32)) throw new Error("The seed is a whole number from 0 to 4294967295.");
  const before = context.getImageData(0, 0, canvas.width, canvas.height);
  at("progress").value = 0;
  at("progress").hidden = false;
  try {
    const { photo: edited, seconds, packet } = await ask("edit", given, [photo.data.buffer]);
    history.push({ before, packet });
    show(new ImageData(edited.data, edited.width, edited.height));
    return `Done in ${seconds.toFixed(1)} s.`;
  } finally {
    at("progress").hidden = true;
  }
}

async function save() {
  let file = await new Promise((resolve) => canvas.toBlob(resolve));
  const { packet } = history.at(-1) ?? {};
  if (packet) file = withPacket(new Uint8Array(await file.arrayBuffer()), packet);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = packet ? "edited.png" : "photo.png";
  link.click();
  URL.revokeObjectURL(link.href);
}

const take = (file) => file && during("Looking for faces …", () => open(file));
at("file").onchange = () => take(at("file").files[0]);
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  take(event.dataTransfer.files[0]);
};
document.onpaste = (event) => take(event.clipboardData.files[0]);
at("controls").onsubmit = (event) => {
  event.preventDefault();
  during("Drawing …", edit);
};
at("undo").onclick = () => {
  show(history.pop().before);
  setBusy(false);
};
at("save").onclick = save;
at("before").onpointerdown = () => {
  original = context.getImageData(0, 0, canvas.width, canvas.height);
  show(history[0].before);
};
window.onpointerup = () => {
  if (original) show(original);
  original = null;
};

setBusy(true);
try {
  const { edits } = await ask("start");
  at("edit").replaceChildren(...edits.map(({ name, title }) => new Option(title, name)));
  say("Ready.");
} catch (error) {
  say(`This page cannot start: ${error.message}`);
}
setBusy(false);
