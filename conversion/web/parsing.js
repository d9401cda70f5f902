// What each part of a face and of its surroundings shows, as face_parsing.py has it.
import { clip, median } from "./canvas.js";
import { apply, crop, inverse, picture, reduce, resize } from "./pictures.js";

const CROP_SIZE = 128; // places of a face are told in pixels of such a crop

export class FaceParsing {
  // probabilities: [C, total, total] of a square frame twice the crop, which lies in its middle; classes: names of classes
  // and of groups of them → their places; matrix: from the photo, of { width, height }, to the frame.
  constructor(probabilities, total, classes, matrix, photo) {
    Object.assign(this, { probabilities, total, classes, matrix, photo, masks: {} });
  }

  // How much of each pixel of the frame shows one of the classes; of those that the parser knows.
  mask(names) {
    const indices = [...new Set([names].flat().flatMap((name) => this.classes[name] ?? []))];
    const key = indices.join();
    if (this.masks[key]) return this.masks[key];
    const whole = picture(this.total, this.total);
    const size = this.total ** 2;
    for (const index of indices)
      for (let place = 0; place < size; place++) whole.data[place] += this.probabilities[index * size + place];
    for (let place = 0; place < size; place++) whole.data[place] = Math.min(Math.max(whole.data[place], 0), 1);
    return (this.masks[key] = whole);
  }

  // As `mask`, of the crop at `size` pixels.
  cropMask(names, size) {
    const side = this.total / 2;
    const inside = crop(this.mask(names), side / 2, side / 2, (3 * side) / 2, (3 * side) / 2);
    return (size < side ? reduce(inside, side / size, side / size) : resize(inside, size, size)).data;
  }

  // Share of the crop that surely shows one of the classes.
  share(names, surely) {
    return this.cropMask(names, CROP_SIZE).reduce((sum, value) => sum + (value > surely), 0) / CROP_SIZE ** 2;
  }

  // Whether a thing is worn: enough of it is surely seen in the photo, beyond whose edge are streaks.
  worn({ name, least }, surely) {
    const seen = (value, place) =>
      value > surely && this.shows([[(place % CROP_SIZE) + 0.5, Math.floor(place / CROP_SIZE) + 0.5]]);
    return this.cropMask(name, CROP_SIZE).filter(seen).length >= least * CROP_SIZE ** 2;
  }

  // Pixels of the frame along one of the 128-pixel crop.
  get unit() {
    return this.total / 2 / CROP_SIZE;
  }

  // How far the head is turned: the place of the nose between the edges of the face, from −1 (the left one, as seen) over 0
  // (the middle) to 1; 0 where no nose is seen.
  get turn() {
    const [face, nose] = ["face", "nose"].map((names) => this.cropMask(names, CROP_SIZE));
    let [count, sum] = [0, 0];
    const edges = [[], []];
    for (let row = 0; row < CROP_SIZE; row++) {
      const columns = (mask) => Array.from({ length: CROP_SIZE }, (_, column) => column).filter((column) => mask[row * CROP_SIZE + column] > 0.5);
      const seen = columns(nose);
      if (!seen.length) continue;
      for (const column of seen) [count, sum] = [count + 1, sum + column];
      const beside = columns(face);
      if (beside.length) [beside[0], beside.at(-1)].forEach((column, side) => edges[side].push(column));
    }
    if (!edges[0].length) return 0;
    const [left, right] = edges.map(median);
    return clip(((2 * sum) / count - left - right) / Math.max(right - left, 1), -1, 1);
  }

  // Whether the photo reaches as far as all of some places of the crop.
  shows(places) {
    const back = inverse(this.matrix);
    return places.every((place) => {
      const [x, y] = apply(back, place.map((value) => this.total / 2 + (value - CROP_SIZE / 2) * this.unit));
      return x >= 0 && y >= 0 && x <= this.photo.width && y <= this.photo.height;
    });
  }
}

// Probabilities [C, side, side] of the crop and of its surroundings → of both at the crop's scale.
export function joined(near, far, side, fade) {
  const [size, total] = [side ** 2, 2 * side];
  const whole = new Float32Array(near.length * 4);
  const ramp = Float32Array.from({ length: side }, (_, index) => Math.min(index + 0.5, side - 0.5 - index) / (fade * side));
  for (let start = 0; start < near.length; start += size) {
    const plane = resize(picture(side, side, 1, far.subarray(start, start + size)), total, total).data;
    for (let row = 0; row < side; row++)
      for (let column = 0; column < side; column++) {
        const weight = Math.min(Math.max(Math.min(ramp[row], ramp[column]), 0), 1);
        const middle = (row + side / 2) * total + column + side / 2;
        plane[middle] += weight * (near[start + row * side + column] - plane[middle]);
      }
    whole.set(plane, start * 4);
  }
  return whole;
}
