// How edits get into the photo, as blending.py lays them. A layer is { weight: how far it counts at each pixel of a square
// frame, matrix: from the photo to the frame, change(base, box, alpha): what full weight would add to the photo's pixels
// `base`, a picture of 0…1, in the rectangle `box`, [height, width, 3]; where `alpha` is 0 nothing is asked for }.
import { apply, bounds, corners, inBox, inverse, picture, reduce, resize } from "./pictures.js";

// Lays layers, one after the other, into a photo of RGBA bytes.
export function paste(photo, layers) {
  for (const { weight, matrix, change } of layers) {
    const faded = edgeFade(weight, matrix, photo);
    const box = boxInPhoto(faded, matrix, photo);
    if (!box) continue;
    const [left, top, right, bottom] = box;
    const base = picture(right - left, bottom - top, 3);
    const alpha = inBox(faded, matrix, box).data;
    const [a, b, c, d, e, f] = matrix;
    for (let row = top, place = 0; row < bottom; row++)
      for (let column = left; column < right; column++, place++) {
        const [x, y] = [column + 0.5, row + 0.5];
        const [across, down] = [a * x + b * y + c, d * x + e * y + f];
        const inside = across >= 0 && down >= 0 && across <= weight.width && down <= weight.width;
        alpha[place] = inside && alpha[place] >= 1 / 512 ? Math.min(alpha[place], 1) : 0;
        const start = (row * photo.width + column) * 4;
        for (let channel = 0; channel < 3; channel++) base.data[3 * place + channel] = photo.data[start + channel] / 255;
      }
    const added = change(base, box, alpha);
    for (let place = 0; place < alpha.length; place++) {
      if (!alpha[place]) continue;
      const start = ((top + Math.floor(place / base.width)) * photo.width + left + (place % base.width)) * 4;
      for (let channel = 0; channel < 3; channel++) {
        const value = base.data[3 * place + channel] + alpha[place] * added[3 * place + channel];
        photo.data[start + channel] = Math.round(Math.min(Math.max(value, 0), 1) * 255);
      }
    }
  }
}

// A layer of pixels of a frame that take the place of the photo's, but for the share `detail` of these.
export function frameLayer(pixels, weight, matrix, detail = null) {
  const change = (base, box) => {
    const added = inBox(pixels, matrix, box).data;
    const kept = detail && inBox(detail, matrix, box).data;
    return added.map((value, index) => value - (1 - (kept ? kept[Math.floor(index / 3)] : 0)) * base.data[index]);
  };
  return { weight, matrix, change };
}

// Where an edit left the decoded face as it was: there the photo's detail stays.
export function likeness(edited, reconstruction, gone, { scale, cell }) {
  const { width: size } = edited;
  const difference = picture(size, size);
  for (let place = 0; place < size * size; place++)
    for (let channel = 0; channel < 3; channel++)
      difference.data[place] += Math.abs(edited.data[place * 3 + channel] - reconstruction.data[place * 3 + channel]) / 3;
  const coarse = reduce(difference, cell, cell);
  coarse.data = coarse.data.map((value) => Math.exp(-((value / scale) ** 2)));
  return resize(coarse, size, size).data.map((value, place) => (gone?.[place] ? 0 : value));
}

// The rectangle of the photo that a mask can reach; null where it is empty.
function boxInPhoto(mask, matrix, photo) {
  const { width: size } = mask;
  let [left, top, right, bottom] = [size, size, -1, -1];
  mask.data.forEach((value, place) => {
    if (!value) return;
    const [column, row] = [place % size, Math.floor(place / size)];
    [left, top, right, bottom] = [Math.min(left, column), Math.min(top, row), Math.max(right, column), Math.max(bottom, row)];
  });
  if (right < 0) return null;
  // bicubic interpolation reaches two pixels
  const reach = [left - 2, right + 3].flatMap((x) => [top - 2, bottom + 3].map((y) => apply(inverse(matrix), [x, y])));
  const [x0, y0, x1, y1] = bounds(reach);
  const box = [
    Math.max(Math.floor(x0) - 2, 0), Math.max(Math.floor(y0) - 2, 0),
    Math.min(Math.ceil(x1) + 2, photo.width), Math.min(Math.ceil(y1) + 2, photo.height),
  ];
  return box[2] > box[0] && box[3] > box[1] ? box : null;
}

// The weight falls to 0 at those edges of the frame that lie inside the photo.
function edgeFade(weight, matrix, photo) {
  const { width: size } = weight;
  const quad = corners(size, size).map((corner) => apply(inverse(matrix), corner));
  const outside = [0, 1, 2, 3].map((index) => {
    const ends = [quad[index], quad[(index + 1) % 4]];
    return [photo.width, photo.height].some((length, axis) =>
      ends.every((end) => end[axis] <= 0.5) || ends.every((end) => end[axis] >= length - 0.5));
  });
  const result = picture(size, size);
  for (let place = 0; place < size * size; place++) {
    const [x, y] = [(place % size) / (size - 1), Math.floor(place / size) / (size - 1)];
    const distances = [y, 1 - x, 1 - y, x];
    result.data[place] = weight.data[place];
    for (let index = 0; index < 4; index++)
      if (!outside[index]) result.data[place] *= Math.min(Math.max(distances[index] * 16, 0), 1);
  }
  return result;
}
