// What of a face crop an edit redraws and shows, as edit_plan.py and masks.py tell it. Masks are Float32Arrays of
// `size`² numbers in [0, 1]; cells of the grid are arrays of booleans.
import { halfToEven, picture, reduce } from "./pictures.js";

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
      const part = parsing.cropMask(region.classes, size);
      gone = part.map((value, place) => Math.max(value, gone ? gone[place] : 0));
    }
  }
  return { cells, bound, gone: gone && widen(gone.map((value) => value > settings.some), size, settings.edge) };
}

function seenOf(region, parsing, grid, size, settings) {
  const shape = cellMask(region.cells, size);
  const all = shape.reduce((sum, value) => sum + value, 0);
  for (const classes of [region.classes, settings.instead]) {
    const seen = classes.length ? parsing.cropMask(classes, size) : new Float32Array(size * size).fill(1);
    if (seen.reduce((sum, value, place) => sum + (value > 0.5) * shape[place], 0) < settings.leastSeen * all) continue;
    const near = (mask) => widen(mask.map((value) => value > 0.5), size, region.margin);
    const [wide, beside] = [near(seen), parsing.cropMask(region.beside, size)];
    const spared = near(parsing.cropMask(region.spared, size));
    return seen.map((value, place) => Math.max(value, wide[place] * beside[place]) * (1 - spared[place]));
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
