// What of a face crop an edit redraws and shows, as edit_plan.py, masks.py and blending.py tell it. Masks are
// Float32Arrays of `size`² numbers in [0, 1]; cells of the grid are arrays of booleans.
import { apply, bounds, compose, corners, crop, halfToEven, inverse, picture, reduce, resize, translation, warp } from "./pictures.js";

// How much of each pixel of the face's surroundings shows one of the classes, as a picture: what the parser sees there
// [L, side, side], and in their middle, faded in, what it sees of the crop alone.
export function frameMask(parsing, classes) {
  const { near, far, side, fade } = parsing;
  const sum = (probabilities) => {
    const plane = picture(side, side);
    for (const index of classes)
      for (let place = 0; place < side * side; place++) plane.data[place] += probabilities[index * side * side + place];
    return plane;
  };
  const closer = sum(near);
  const whole = resize(sum(far), 2 * side, 2 * side);
  const ramp = Float32Array.from({ length: side }, (_, index) => Math.min(index + 0.5, side - 0.5 - index) / (fade * side));
  for (let place = 0; place < side * side; place++) {
    const [row, column] = [Math.floor(place / side), place % side];
    const weight = Math.min(Math.max(Math.min(ramp[row], ramp[column]), 0), 1);
    const middle = (row + side / 2) * 2 * side + column + side / 2;
    whole.data[middle] += weight * (closer.data[place] - whole.data[middle]);
  }
  whole.data = whole.data.map((value) => Math.min(Math.max(value, 0), 1));
  return whole;
}

// As `frameMask`, of the crop at `size` pixels.
export function partMask(parsing, classes, size) {
  const { side } = parsing;
  const inside = crop(frameMask(parsing, classes), side / 2, side / 2, (3 * side) / 2, (3 * side) / 2);
  return (size < side ? reduce(inside, side / size, side / size) : resize(inside, size, size)).data;
}

// The area of named regions: { cells, bound, gone }.
export function namedArea(regions, parsing, grid, size, settings) {
  const cells = new Array(grid * grid).fill(false);
  const bound = new Float32Array(size * size);
  let gone = null;
  for (const region of regions) {
    let seen = seenOf(region, parsing, grid, size, settings);
    const near = touched(seen, grid, size, settings);
    const redrawn = region.cells.map((cell, index) => cell && near[index]);
    redrawn.forEach((cell, index) => (cells[index] ||= cell));
    // an edit fades in from the edge of its bound: a weight that changes no pixel moves that edge outwards
    const faint = widen(seen.map((value) => value > 0.5), size, settings.fade);
    seen = seen.map((value, place) => Math.max(value, settings.nothing * faint[place]));
    const shown = cellMask(redrawn.map((cell, index) => cell && region.shown[index]), size);
    const kept = keptPixels(region.kept, size, settings.keptReach);
    for (let place = 0; place < bound.length; place++)
      bound[place] = Math.max(bound[place], seen[place] * shown[place] * (1 - kept[place]));
    if (region.removed) {
      const part = partMask(parsing, region.classes, size);
      gone = part.map((value, place) => Math.max(value, gone ? gone[place] : 0));
    }
  }
  return { cells, bound, gone: gone && widen(gone.map((value) => value > settings.some), size, settings.edge) };
}

function seenOf(region, parsing, grid, size, settings) {
  const shape = cellMask(region.cells, size);
  const all = shape.reduce((sum, value) => sum + value, 0);
  for (const classes of [region.classes, settings.instead]) {
    const seen = classes.length ? partMask(parsing, classes, size) : new Float32Array(size * size).fill(1);
    if (seen.reduce((sum, value, place) => sum + (value > 0.5) * shape[place], 0) < settings.leastSeen * all) continue;
    if (!region.beside.length) return seen;
    const near = widen(seen.map((value) => value > 0.5), size, region.margin);
    const beside = partMask(parsing, region.beside, size);
    return seen.map((value, place) => Math.max(value, near[place] * beside[place]));
  }
  return shape;
}

// The cells that have a share in an area or lie right beside it.
function touched(area, grid, size, { margin, leastShare }) {
  const wide = picture(size, size, 1, widen(area.map((value) => value > 0.5), size, margin));
  return Array.from(reduce(wide, size / grid, size / grid).data, (share) => share > leastShare);
}

export function cellMask(cells, size) {
  const grid = Math.sqrt(cells.length);
  const cell = (place) => Math.floor((place * grid) / size);
  return Float32Array.from({ length: size * size }, (_, place) =>
    Number(cells[cell(Math.floor(place / size)) * grid + cell(place % size)]));
}

function keptPixels(ellipses, size, reach) {
  return Float32Array.from({ length: size * size }, (_, place) => {
    const [x, y] = [((place % size) + 0.5) / size, (Math.floor(place / size) + 0.5) / size];
    return ellipses.reduce((kept, [centreX, centreY, halfWidth, halfHeight]) => {
      const distance = Math.hypot((x - centreX) / halfWidth, (y - centreY) / halfHeight);
      return Math.max(kept, Math.min(Math.max((reach - distance) / (reach - 1), 0), 1));
    }, 0);
  });
}

// Pixels and what is at most `margin` sides away along rows and columns.
export function widen(mask, size, margin) {
  const reach = halfToEven(margin * size);
  const along = (values, step, across) => {
    const result = new Float32Array(size * size);
    for (let line = 0; line < size; line++)
      for (let place = 0; place < size; place++)
        for (let near = Math.max(0, place - reach); near <= Math.min(size - 1, place + reach); near++)
          if (values[line * across + near * step]) result[line * across + place * step] = 1;
    return result;
  };
  return along(along(mask, 1, size), size, 1);
}

// Softens the edge of a mask inwards over `radius` pixels.
export function feather(mask, size, radius) {
  if (radius <= 0 || !mask.some((value) => value) || mask.every((value) => value)) return mask;
  const limit = Math.ceil(radius) + 1;
  const depth = new Float32Array(size * size).fill(limit);
  for (let row = 0; row < size; row++)
    for (let column = 0; column < size; column++) {
      const place = row * size + column;
      if (!(mask[place] > 0)) {
        depth[place] = 0;
        continue;
      }
      for (let y = Math.max(0, row - limit); y <= Math.min(size - 1, row + limit); y++)
        for (let x = Math.max(0, column - limit); x <= Math.min(size - 1, column + limit); x++)
          if (!(mask[y * size + x] > 0)) depth[place] = Math.min(depth[place], Math.hypot(y - row, x - column));
    }
  const deepest = depth.reduce((one, other) => Math.max(one, other), 0);
  return mask.map((value, place) => {
    const weight = Math.min(depth[place] / Math.min(radius + 1, deepest), 1);
    return value * weight * weight * (3 - 2 * weight);
  });
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

// Lays a square frame { weight: picture, matrix from the photo } into a photo of RGBA bytes: there are its `pixels`, a
// picture of 0…1, or what a pixel of the photo `becomes`.
export function paste(photo, { pixels, becomes, weight, matrix }) {
  const { width: size } = weight;
  const faded = edgeFade(weight, matrix, photo);
  const box = boxInPhoto(faded, matrix, photo);
  if (!box) return;
  const [left, top, right, bottom] = box;
  const toBox = compose(inverse(matrix), translation(-left, -top));
  const [width, height] = [right - left, bottom - top];
  const alpha = warp(faded, toBox, width, height);
  const frame = pixels && warp(pixels, toBox, width, height);
  becomes ??= (place) => frame.data.subarray(place * 3, place * 3 + 3);
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++) {
      const place = row * width + column;
      const inside = apply(matrix, [left + column + 0.5, top + row + 0.5]).every((value) => value >= 0 && value <= size);
      const share = Math.min(Math.max(alpha.data[place], 0), 1);
      if (!inside || share < 1 / 512) continue;
      const start = ((top + row) * photo.width + left + column) * 4;
      const base = [0, 1, 2].map((channel) => photo.data[start + channel] / 255);
      const wanted = becomes(place, base);
      base.forEach((was, channel) => {
        const value = was + share * (wanted[channel] - was);
        photo.data[start + channel] = Math.round(Math.min(Math.max(value, 0), 1) * 255);
      });
    }
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
    result.data[place] = [y, 1 - x, 1 - y, x].reduce(
      (fade, distance, index) => (outside[index] ? fade : fade * Math.min(Math.max(distance * 16, 0), 1)),
      weight.data[place],
    );
  }
  return result;
}
