// An edit of one face: its pixels are moved or take another colour, or what it becomes is drawn: photo → crop → codes →
// plan under guidance → codes below what changed → pixels → photo.
import { cellMask, feather, namedArea } from "./area.js";
import { frameLayer, likeness, paste } from "./blending.js";
import { MASKED, fillMasked, guided } from "./decoding.js";
import { Detector } from "./detector.js";
import { Chance, Noise } from "./noise.js";
import { Oklab } from "./oklab.js";
import { FaceParsing, joined } from "./parsing.js";
import { compose, fromPlanes, picture, planes, scaling, translation, warp } from "./pictures.js";
import { findToning, keepToning } from "./toning.js";
import { TRANSFERS, faceOf } from "./transfers.js";
import { wholeMouth } from "./warping.js";

export class Editor {
  // ort: onnxruntime-web; load(name) gives the bytes of a file of the page; settings: page.json.
  constructor(ort, load, settings) {
    Object.assign(this, { ort, load, settings, sessions: {} });
    this.space = new Oklab(settings.constants.part_colour);
    this.run = this.run.bind(this);
    this.detector = new Detector(this.run, settings.detector);
  }

  async start() {
    [this.weights, this.captions] = await Promise.all(["weights.bin", "captions.bin"].map(this.load));
    // one after the other: sessions that are made at once take each other's weights away
    for (const name of Object.keys(this.settings.networks)) await this.session(name);
  }

  session(name) {
    this.sessions[name] ??= this.load(`${name}.onnx`).then((network) =>
      this.ort.InferenceSession.create(network, {
        externalData: this.settings.networks[name] ? [{ path: "weights.bin", data: this.weights }] : [],
      }));
    return this.sessions[name];
  }

  // inputs: name → [type, numbers, shape].
  async run(name, inputs) {
    const tensors = Object.entries(inputs).map(([key, [type, data, shape]]) => [key, new this.ort.Tensor(type, data, shape)]);
    return (await this.session(name)).run(Object.fromEntries(tensors));
  }

  // Edits `photo` in place: { width, height, data } of RGBA bytes. `face` is one of `detector.detect`, `edit` a row of
  // the settings' `edits`.
  async edit(photo, face, edit, seed, onStep = () => {}) {
    const { blending } = this.settings.constants;
    const before = picture(photo.width, photo.height, 4, photo.data.slice(), true);
    const toning = findToning(before, blending);
    await this.change(photo, before, this.detector.cropMatrix(face.landmarks, this.settings.cropSize), edit, seed, toning, onStep);
    if (toning) keepToning(before.data, photo.data, toning, blending);
  }

  async change(photo, image, matrix, edit, seed, toning, onStep) {
    const { transfer } = edit;
    const parsing = await this.parse(image, matrix);
    if (transfer) {
      const { fits, layers } = TRANSFERS[transfer.kind];
      const face = faceOf(image, parsing, this.settings.constants, { space: this.space, chance: new Chance(seed), toning });
      if (fits(transfer, face)) return paste(photo, layers(transfer, face));
      // what is drawn of a mouth that is cut off, or seen from the side, looks bad
      if (!edit.caption || !wholeMouth(face)) throw new Error(`The face does not show what “${edit.title}” needs.`);
    }
    return this.draw(photo, image, matrix, parsing, edit, seed, onStep);
  }

  // Gives the codes that were drawn.
  async draw(photo, image, matrix, parsing, edit, seed, onStep) {
    const { cropSize: size, grid, planGrid, regions } = this.settings;
    const own = await this.encode(warp(image, matrix, size, size));
    const area = namedArea(edit.regions.map((name) => regions[name]), parsing, grid, size, this.settings.area);
    const noise = new Noise(seed);
    const coarse = own.plan.map((code, token) => (below(token, planGrid).some((cell) => area.cells[cell]) ? MASKED : code));
    const plan = await this.drawPlan(coarse, edit, noise, onStep);
    const changed = plan.map((code, token) => around(token, planGrid).some((near) => plan[near] !== own.plan[near]));
    const fill = own.codes.map((code, cell) => (area.cells[cell] && changed[above(cell, grid)] ? MASKED : code));
    const codes = await this.fill(fill, plan, edit, noise, onStep);
    const [before, after] = await this.decode([own.codes, codes]);
    const filled = cellMask(fill.map((code) => code < 0), size);
    const [cells, bound] = [filled, area.bound].map((mask) => feather(mask, size, this.settings.feather));
    const alpha = cells.map((value, place) => Math.min(value, bound[place]));
    const alike = likeness(after, before, area.gone, this.settings.likeness);
    paste(photo, [await this.refine(image, matrix, after, alpha, alike, edit.keepsTone)]);
    return { plan, codes };
  }

  async encode(crop) {
    const { cropSize: size } = this.settings;
    const { image_codes: codes, latents } = await this.run("image_tokenizer_encoder", {
      pixel_values: ["float32", planes(crop), [1, 3, size, size]],
    });
    const { plan_codes: plan } = await this.run("plan_encoder", { image_latents: ["float32", latents.data, latents.dims] });
    return { codes: Array.from(codes.data, Number), plan: Array.from(plan.data, Number) };
  }

  // What the face and its surroundings show.
  async parse(image, matrix) {
    const { size: side, fade, classes } = this.settings.parser;
    const near = compose(matrix, scaling(side / this.settings.cropSize));
    const frame = compose(near, translation(side / 2, side / 2));
    const views = [near, compose(frame, scaling(0.5))].map((view) => planes(warp(image, view, side, side)));
    const { probabilities } = await this.run("face_parser", {
      pixel_values: ["float32", Float32Array.from([...views[0], ...views[1]]), [2, 3, side, side]],
    });
    const half = probabilities.data.length / 2;
    const seen = joined(probabilities.data.subarray(0, half), probabilities.data.subarray(half), side, fade);
    return new FaceParsing(seen, 2 * side, classes, frame, image);
  }

  async drawPlan(codes, edit, noise, onStep) {
    const { plan, guidance } = this.settings;
    const predict = async (known, positions) => {
      const logits = await this.logits("plan_step", known, positions, edit, edit.guidanceScale);
      const gradient = await this.gradient(logits, known, positions, edit);
      return guided(logits, gradient, positions.length, { ...guidance, stepSize: edit.stepSize });
    };
    return fillMasked(codes, predict, plan, noise, onStep);
  }

  async fill(codes, plan, edit, noise, onStep) {
    const { fill } = this.settings;
    const above = { plan_codes: ["int64", bigInts(plan), [1, plan.length]] };
    const predict = (known, positions) => this.logits("fill_step", known, positions, edit, fill.guidanceScale, above);
    return fillMasked(codes, predict, fill, noise, onStep);
  }

  async logits(name, codes, positions, edit, scale, more = {}) {
    const rows = scale === 1 ? [edit.caption] : [edit.caption, 0]; // the first caption is the empty one
    const { words, hidden, ids } = this.settings.captions;
    const inputs = {
      image_codes: ["int64", bigInts(codes), [1, codes.length]],
      positions: ["int64", bigInts(positions), [1, positions.length]],
      input_ids: ["int64", bigInts(rows.flatMap((row) => ids[row])), [rows.length, words]],
      attention_mask: ["int64", bigInts(rows.flatMap((row) => this.mask(row))), [rows.length, words]],
      caption_states: ["float32", this.states(rows), [rows.length, words, hidden]],
      guidance_scale: ["float32", [scale], []],
      ...more,
    };
    return (await this.run(name, inputs)).logits.data;
  }

  // Of the loss of matching, with respect to the logits of the cells at `positions`, row after row.
  async gradient(logits, codes, positions, edit) {
    const { words, hidden } = this.settings.captions;
    const size = logits.length / positions.length;
    const all = new Float32Array(codes.length * size);
    positions.forEach((cell, row) => all.set(logits.subarray(row * size, (row + 1) * size), cell * size));
    const shape = [1, codes.length, size];
    const { gradient } = await this.run("match_gradient", {
      delta: ["float32", new Float32Array(all.length), shape],
      logits: ["float32", all, shape],
      plan_codes: ["int64", bigInts(codes), [1, codes.length]],
      caption_states: ["float32", this.states([edit.caption]), [1, words, hidden]],
      attention_mask: ["int64", bigInts(this.mask(edit.caption)), [1, words]],
    });
    const found = new Float32Array(logits.length);
    positions.forEach((cell, row) => found.set(gradient.data.subarray(cell * size, (cell + 1) * size), row * size));
    return found;
  }

  mask(row) {
    const { lengths, words } = this.settings.captions;
    return Array.from({ length: words }, (_, word) => Number(word < lengths[row]));
  }

  states(rows) {
    const { words, hidden } = this.settings.captions;
    const all = new Float32Array(this.captions.buffer, this.captions.byteOffset, this.captions.byteLength / 4);
    const size = words * hidden;
    return Float32Array.from(rows.flatMap((row) => Array.from(all.subarray(row * size, (row + 1) * size))));
  }

  async decode(grids) {
    const { cropSize: size } = this.settings;
    const { pixel_values: pixels } = await this.run("image_tokenizer_decoder", {
      image_codes: ["int64", bigInts(grids.flat()), [grids.length, grids[0].length]],
    });
    const length = 3 * size * size;
    return grids.map((_, index) => fromPlanes(pixels.data.subarray(index * length, (index + 1) * length), size));
  }

  async refine(image, matrix, after, alpha, alike, keepsTone) {
    const { cropSize: size, refinerSize } = this.settings;
    const larger = compose(matrix, scaling(refinerSize / size));
    const { pixel_values: pixels, weight } = await this.run("refiner", {
      decoded: ["float32", planes(after, 2, -1), [1, 3, size, size]],
      photo: ["float32", planes(warp(image, larger, refinerSize, refinerSize)), [1, 3, refinerSize, refinerSize]],
      alpha: ["float32", alpha, [1, 1, size, size]],
      likeness: ["float32", alike, [1, 1, size, size]],
      tone: ["float32", [Number(keepsTone)], [1, 1]],
    });
    return frameLayer(fromPlanes(pixels.data, refinerSize), picture(refinerSize, refinerSize, 1, weight.data), larger);
  }
}

const bigInts = (numbers) => BigInt64Array.from(numbers, BigInt);

// The four cells below a token of the plan, and the token above a cell.
function below(token, planGrid) {
  const [row, column] = [2 * Math.floor(token / planGrid), 2 * (token % planGrid)];
  return [0, 1].flatMap((down) => [0, 1].map((across) => (row + down) * 2 * planGrid + column + across));
}

// A token of the plan and those that touch it.
function around(token, planGrid) {
  const [row, column] = [Math.floor(token / planGrid), token % planGrid];
  const near = [-1, 0, 1].flatMap((down) => [-1, 0, 1].map((across) => [row + down, column + across]));
  return near.filter((place) => Math.min(...place) >= 0 && Math.max(...place) < planGrid).map(([y, x]) => y * planGrid + x);
}

const above = (cell, grid) => Math.floor(cell / grid / 2) * (grid / 2) + Math.floor((cell % grid) / 2);

