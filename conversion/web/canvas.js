// What is needed where things are drawn on a face, as canvas.py has it.
import { compose, halfToEven, picture, reduce, resize, scaleOf, translation } from "./pictures.js";

const CROP_SIZE = 128;

// A square as large as the face crop and a little more, `scale` pixels along one of the 128-pixel crop. Places are told
// in pixels of that crop.
export class Canvas {
  constructor(parsing, scale, { BEYOND }) {
    const { unit, total } = parsing;
    const start = total / 2 - (CROP_SIZE / 2 + BEYOND) * unit;
    const factor = scale / unit;
    this.size = halfToEven((CROP_SIZE + 2 * BEYOND) * scale);
    this.matrix = compose(compose(parsing.matrix, translation(-start, -start)), [factor, 0, 0, 0, factor, 0]);
    this.box = [start, start + (CROP_SIZE + 2 * BEYOND) * unit];
    Object.assign(this, { parsing, scale, beyond: BEYOND });
  }

  // That of a face, as fine as its photo.
  static of(parsing, constants) {
    return new Canvas(parsing, clip(parsing.unit / scaleOf(parsing.matrix), constants.COARSEST, constants.FINEST), constants);
  }

  // Column or row of the crop at which a pixel's centre lies.
  place(index) {
    return (index + 0.5) / this.scale - this.beyond;
  }

  // How much of each pixel shows one of the classes.
  mask(names) {
    return resize(this.parsing.mask(names), this.size, this.size, { square: this.box });
  }

  // See `blur`, with a deviation in pixels of the 128-pixel crop.
  blur(image, deviation) {
    return blur(image, deviation * this.scale);
  }

  // The shadow of what covers so much of each pixel, so far below it, with an edge of that deviation.
  shadow(covered, below, deviation) {
    const shift = halfToEven(below * this.scale) * this.size;
    const { length } = covered.data;
    const moved = { ...covered, data: covered.data.map((_, place) => covered.data[(place - shift + length) % length]) };
    return this.blur(moved, deviation);
  }

  // How much of each pixel lies in one of the polygons, as Pillow draws them.
  polygons(outlines, { OVERSAMPLING }) {
    const side = this.size * OVERSAMPLING;
    const large = picture(side, side, 1, undefined, true);
    const drawn = (value) => Math.trunc((value + this.beyond) * this.scale * OVERSAMPLING - 0.5);
    for (const outline of outlines) fillPolygon(large, outline.map((place) => place.map(drawn)));
    const reduced = reduce(large, OVERSAMPLING, OVERSAMPLING);
    return { ...reduced, bytes: false, data: reduced.data.map((value) => value / 255) };
  }

  // A plane of what `value(x, y, index)` gives at each place.
  fill(value) {
    const plane = picture(this.size, this.size);
    for (let row = 0, index = 0; row < this.size; row++)
      for (let column = 0; column < this.size; column++, index++)
        plane.data[index] = value(this.place(column), this.place(row), index);
    return plane;
  }
}

// Fills a polygon of whole-numbered points with 255, row by row, edges included.
function fillPolygon({ width, height, data }, points) {
  const edges = points.map(([x, y], index) => [x, y, ...points[(index + 1) % points.length]]);
  const rows = points.map(([, y]) => y);
  const last = Math.max(...rows);
  for (let row = Math.max(Math.min(...rows), 0); row <= Math.min(last, height - 1); row++) {
    const fill = (start, end) => data.fill(255, row * width + Math.max(start, 0), row * width + Math.min(end, width - 1) + 1);
    const crossed = [];
    for (const [x0, y0, x1, y1] of edges) {
      if (row < Math.min(y0, y1) || row > Math.max(y0, y1)) continue;
      if (y0 === y1) {
        fill(Math.min(x0, x1), Math.max(x0, x1));
        continue;
      }
      const x = x0 + ((row - y0) * (x1 - x0)) / (y1 - y0);
      crossed.push(x);
      if (row === Math.max(y0, y1) && row < last) crossed.push(x);
    }
    crossed.sort((one, other) => one - other);
    for (let index = 1; index < crossed.length; index += 2)
      fill(Math.floor(crossed[index - 1] + 0.5), Math.ceil(crossed[index] - 0.5));
  }
}

// Means of neighbours by a normal distribution of so many pixels; the edge is repeated.
export function blur(image, deviation) {
  const reach = Math.max(1, halfToEven(3 * deviation));
  let kernel = Float64Array.from({ length: 2 * reach + 1 }, (_, index) => Math.exp(-((index - reach) ** 2) / (2 * deviation ** 2)));
  const sum = kernel.reduce((one, other) => one + other, 0);
  kernel = kernel.map((value) => value / sum);
  const { width, height, channels } = image;
  const [rows, result] = [picture(width, height, channels), picture(width, height, channels)];
  const length = width * channels;
  const line = new Float64Array(length + 2 * reach * channels);
  const total = new Float64Array(length);
  for (let row = 0; row < height; row++) {
    for (let index = 0; index < line.length; index++) {
      const column = Math.min(Math.max(Math.floor(index / channels) - reach, 0), width - 1);
      line[index] = image.data[row * length + column * channels + (index % channels)];
    }
    total.fill(0);
    for (let tap = 0; tap < kernel.length; tap++)
      for (let index = 0, from = tap * channels; index < length; index++, from++) total[index] += kernel[tap] * line[from];
    rows.data.set(total, row * length);
  }
  for (let row = 0; row < height; row++) {
    total.fill(0);
    for (let tap = 0; tap < kernel.length; tap++) {
      const from = Math.min(Math.max(row + tap - reach, 0), height - 1) * length;
      for (let index = 0; index < length; index++) total[index] += kernel[tap] * rows.data[from + index];
    }
    result.data.set(total, row * length);
  }
  return result;
}

// See `blur`, of those neighbours that count by their weights; where none does the values stay.
export function weightedBlur(image, weights, deviation) {
  const { channels } = image;
  const weighted = { ...image, data: image.data.map((value, index) => value * weights.data[Math.floor(index / channels)]) };
  const [total, sum] = [blur(weights, deviation).data, blur(weighted, deviation)];
  sum.data.forEach((value, index) => {
    const known = total[Math.floor(index / channels)];
    sum.data[index] = known > 1e-3 ? value / Math.max(known, 1e-4) : image.data[index];
  });
  return sum;
}

// The least of the values at most `reach` rows and columns away.
export function minimumFilter(image, reach) {
  const { width, height, data } = image;
  const [rows, result] = [picture(width, height), picture(width, height)];
  const least = (values, start, step, place, length) => {
    let found = Infinity;
    for (let near = Math.max(place - reach, 0); near <= Math.min(place + reach, length - 1); near++)
      found = Math.min(found, values[start + near * step]);
    return found;
  };
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++)
      rows.data[row * width + column] = least(data, row * width, 1, column, width);
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++)
      result.data[row * width + column] = least(rows.data, column, width, row, height);
  return result;
}

export const clip = (value, least, most) => Math.min(Math.max(value, least), most);

export function median(values) {
  const sorted = Float64Array.from(values).sort();
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

// 0 below `start`, 1 above `end`, smooth between.
export function smoothstep(value, start, end) {
  const share = clip((value - start) / (end - start), 0, 1);
  return share * share * (3 - 2 * share);
}

// Where the line through points with rising `xs` is at x; beyond its ends it is level.
export function interpolate(x, xs, ys) {
  let [low, high] = [0, xs.length - 1];
  if (x <= xs[low]) return ys[low];
  if (x >= xs[high]) return ys[high];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle;
    else high = middle;
  }
  return ys[low] + ((ys[high] - ys[low]) * (x - xs[low])) / (xs[high] - xs[low]);
}

// The rows that a square matrix takes to the `wanted` ones (elimination with pivots).
export function solve(matrix, wanted) {
  const rows = matrix.map((row, index) => [...row, ...wanted[index]]);
  const count = rows.length;
  for (let step = 0; step < count; step++) {
    let pivot = step;
    for (let row = step; row < count; row++) if (Math.abs(rows[row][step]) > Math.abs(rows[pivot][step])) pivot = row;
    [rows[step], rows[pivot]] = [rows[pivot], rows[step]];
    for (let row = 0; row < count; row++) {
      if (row === step) continue;
      const factor = rows[row][step] / rows[step][step];
      for (let column = step; column < rows[row].length; column++) rows[row][column] -= factor * rows[step][column];
    }
  }
  return rows.map((row, index) => row.slice(count).map((value) => value / row[index]));
}
