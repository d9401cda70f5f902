// Runs the networks beside the page, so that it stays responsive.
import * as ort from "./ort.wasm.bundle.min.mjs";
import { Editor } from "./editor.js";

let editor;

async function load(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} is missing (${response.status})`);
  return new Uint8Array(await response.arrayBuffer());
}

async function start() {
  const settings = await (await fetch(new URL("page.json", import.meta.url))).json();
  const packed = new Blob([await load("ort-wasm-simd-threaded.wasm.gz")]).stream();
  ort.env.wasm.wasmBinary = await new Response(packed.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  // threads need a page that is isolated from others (headers COOP and COEP)
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 4) : 1;
  editor = new Editor(ort, load, settings);
  await editor.start();
  return { edits: settings.edits.map(({ name, title }) => ({ name, title })) };
}

async function edit({ photo, face, name, seed }) {
  const row = editor.settings.edits.find((each) => each.name === name);
  const steps = editor.settings.plan.steps + editor.settings.fill.steps;
  let done = 0;
  const began = performance.now();
  await editor.edit(photo, face, row, seed, () => self.postMessage({ progress: ++done / steps }));
  const packet = row.packet.replace("{seed}", seed);
  return { photo, packet, seconds: (performance.now() - began) / 1000 };
}

const tasks = {
  start,
  edit,
  detect: ({ photo }) => editor.detector.detect({ ...photo, channels: 4, bytes: true }),
};

self.onmessage = async ({ data: { id, task, ...given } }) => {
  try {
    self.postMessage({ id, result: await tasks[task](given) });
  } catch (error) {
    self.postMessage({ id, error: error.message ?? String(error) });
  }
};
