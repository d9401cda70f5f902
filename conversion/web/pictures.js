// Pictures and how they are resampled, with the numbers of Pillow, so that the page edits as the package does.
// A picture is { width, height, channels, data, bytes }: rows of pixels of `channels` numbers each; `bytes` where these
// are whole numbers of 0…255 and are to stay so. Coordinates: the centre of pixel i lies at i + 0.5. A matrix
// [a, b, c, d, e, f] takes (x, y) to (a x + b y + c, d x + e y + f).

export function picture(width, height, channels = 1, data = new Float32Array(width * height * channels), bytes = false) {
  return { width, height, channels, data, bytes };
}

export const compose = (first, then) => [
  then[0] * first[0] + then[1] * first[3], then[0] * first[1] + then[1] * first[4],
  then[0] * first[2] + then[1] * first[5] + then[2],
  then[3] * first[0] + then[4] * first[3], then[3] * first[1] + then[4] * first[4],
  then[3] * first[2] + then[4] * first[5] + then[5],
];

export const scaling = (factor) => [factor, 0, 0, 0, factor, 0];
export const translation = (x, y) => [1, 0, x, 0, 1, y];
export const scaleOf = (matrix) => Math.sqrt(Math.abs(matrix[0] * matrix[4] - matrix[1] * matrix[3]));
export const apply = (matrix, [x, y]) => [
  matrix[0] * x + matrix[1] * y + matrix[2], matrix[3] * x + matrix[4] * y + matrix[5],
];

export function inverse([a, b, c, d, e, f]) {
  const determinant = a * e - b * d;
  const [p, q, r, s] = [e / determinant, -b / determinant, -d / determinant, a / determinant];
  return [p, q, -(p * c + q * f), r, s, -(r * c + s * f)];
}

export const corners = (width, height) => [[0, 0], [width, 0], [width, height], [0, height]];

export function bounds(points) {
  const [x, y] = [0, 1].map((axis) => points.map((point) => point[axis]));
  return [Math.min(...x), Math.min(...y), Math.max(...x), Math.max(...y)];
}

// The nearest whole number, as Python has it.
export function halfToEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 ? below + 1 : below;
}

// Least-squares rotation, uniform scale and shift that take points to others (Umeyama 1991).
export function similarity(source, target) {
  const mean = (points) => [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
  const [from, to] = [mean(source), mean(target)];
  let [real, imaginary, spread] = [0, 0, 0];
  source.forEach(([sourceX, sourceY], index) => {
    const [x, y, u, v] = [sourceX - from[0], sourceY - from[1], target[index][0] - to[0], target[index][1] - to[1]];
    real += x * u + y * v;
    imaginary += x * v - y * u;
    spread += x * x + y * y;
  });
  const [a, b] = [real / spread, imaginary / spread];
  return [a, -b, to[0] - a * from[0] + b * from[1], b, a, to[1] - b * from[0] - a * from[1]];
}

// `align` of the package: a picture through a matrix, bicubic, averaged down first where that is coarser.
export function warp(image, matrix, width, height) {
  const back = inverse(matrix);
  const [x0, y0, x1, y1] = bounds(corners(width, height).map((corner) => apply(back, corner)));
  const shrink = scaleOf(back);
  const factor = Math.max(1, Math.floor(shrink / 2));
  const margin = 3; // the bicubic kernel reaches two pixels
  const [left, top] = [x0, y0].map((value) => Math.floor(value / factor) - margin);
  const [right, bottom] = [x1, y1].map((value) => Math.ceil(value / factor) + margin);
  const part = reducedPart(image, factor, left, top, right, bottom);
  const oversample = Math.max(1, Math.ceil(shrink / factor - 0.25));
  const lookup = compose(compose(scaling(1 / oversample), back), [1 / factor, 0, -left, 0, 1 / factor, -top]);
  const sampled = transform(part, lookup, width * oversample, height * oversample, oversample === 1 ? bicubic : bilinear);
  const result = reduce(sampled, oversample, oversample);
  return image.bytes ? rounded(result) : result;
}

// A frame, to which the matrix leads from the photo, in the rectangle [left, top, right, bottom] of that.
export function inBox(frame, matrix, [left, top, right, bottom]) {
  return warp(frame, compose(inverse(matrix), translation(-left, -top)), right - left, bottom - top);
}

// A rectangle, in pixels of the picture averaged down by `factor`, edges repeated.
function reducedPart(image, factor, left, top, right, bottom) {
  const columns = clipped(left, right, Math.ceil(image.width / factor));
  const rows = clipped(top, bottom, Math.ceil(image.height / factor));
  const [x0, y0] = [columns[0], rows[0]];
  const inside = crop(
    image, x0 * factor, y0 * factor,
    Math.min((columns.at(-1) + 1) * factor, image.width), Math.min((rows.at(-1) + 1) * factor, image.height),
  );
  const small = reduce(inside, factor, factor);
  const part = picture(columns.length, rows.length, image.channels);
  let place = 0;
  for (const row of rows)
    for (const column of columns)
      for (let channel = 0; channel < image.channels; channel++)
        part.data[place++] = small.data[((row - y0) * small.width + column - x0) * image.channels + channel];
  return part;
}

function clipped(start, end, length) {
  return Array.from({ length: end - start }, (_, index) => Math.min(Math.max(start + index, 0), length - 1));
}

export function crop(image, left, top, right, bottom) {
  const result = picture(right - left, bottom - top, image.channels, undefined, image.bytes);
  for (let row = top; row < bottom; row++) {
    const start = (row * image.width + left) * image.channels;
    const pixels = image.data.subarray(start, start + result.width * image.channels);
    result.data.set(pixels, (row - top) * result.width * image.channels);
  }
  return result;
}

// Means of blocks of pixels; those at the edge may be smaller.
export function reduce(image, across, down) {
  if (across === 1 && down === 1) return image;
  const { width, height, channels, data } = image;
  const result = picture(Math.ceil(width / across), Math.ceil(height / down), channels, undefined, image.bytes);
  let place = 0;
  for (let y = 0; y < height; y += down)
    for (let x = 0; x < width; x += across) {
      const [right, bottom] = [Math.min(x + across, width), Math.min(y + down, height)];
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let row = y; row < bottom; row++)
          for (let column = x; column < right; column++) sum += data[(row * width + column) * channels + channel];
        const mean = sum / ((right - x) * (bottom - y));
        result.data[place++] = image.bytes ? Math.floor(mean + 0.5) : mean;
      }
    }
  return result;
}

function transform(image, lookup, width, height, kernel) {
  const result = picture(width, height, image.channels);
  let place = 0;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const [u, v] = apply(lookup, [x + 0.5, y + 0.5]);
      kernel(image, u - 0.5, v - 0.5, result.data, place);
      place += image.channels;
    }
  return result;
}

function bilinear({ width, channels, data }, x, y, target, place) {
  const [column, row] = [Math.floor(x), Math.floor(y)];
  const [across, down] = [x - column, y - row];
  for (let channel = 0; channel < channels; channel++) {
    const start = (row * width + column) * channels + channel;
    const below = start + width * channels;
    const upper = data[start] + across * (data[start + channels] - data[start]);
    const lower = data[below] + across * (data[below + channels] - data[below]);
    target[place + channel] = upper + down * (lower - upper);
  }
}

// Pillow's: the cubic with a = −1.
function cubic(before, here, next, after, t) {
  const second = 2 * (before - here) + next - after;
  return here + t * (next - before + t * (second + t * (here - before + after - next)));
}

function bicubic({ width, channels, data }, x, y, target, place) {
  const [column, row] = [Math.floor(x), Math.floor(y)];
  const [across, down] = [x - column, y - row];
  const line = new Float64Array(4);
  for (let channel = 0; channel < channels; channel++) {
    for (let offset = -1; offset < 3; offset++) {
      const start = ((row + offset) * width + column) * channels + channel;
      line[offset + 1] = cubic(
        data[start - channels], data[start], data[start + channels], data[start + 2 * channels], across,
      );
    }
    target[place + channel] = cubic(line[0], line[1], line[2], line[3], down);
  }
}

function rounded(image) {
  return { ...image, bytes: true, data: image.data.map((value) => Math.min(Math.max(Math.round(value), 0), 255)) };
}

// Pillow's filters: how far one reaches, and the weight at a distance.
const triangle = { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) };
const sinc = (x) => (x ? Math.sin(Math.PI * x) / (Math.PI * x) : 1);
export const lanczos = { reach: 3, weight: (x) => (Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0) };

// Resizes as Pillow does, with means where the result is smaller; of a square [start, end] of the picture, or all of it.
export function resize(image, width, height, { square, filter = triangle } = {}) {
  return resized(resized(image, width, false, square, filter), height, true, square, filter);
}

function resized(image, length, down, square, filter) {
  const from = down ? image.height : image.width;
  const [width, height] = down ? [image.width, length] : [length, image.height];
  const { channels } = image;
  const result = picture(width, height, channels, undefined, image.bytes);
  const [step, across] = down ? [image.width * channels, channels] : [channels, image.width * channels];
  const [resultStep, resultAcross] = down ? [width * channels, channels] : [channels, width * channels];
  const lines = down ? image.width : image.height;
  taps(from, length, filter, ...(square ?? [0, from])).forEach(([start, weights], index) => {
    for (let line = 0; line < lines; line++)
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        let place = start * step + line * across + channel;
        for (let tap = 0; tap < weights.length; tap++, place += step) sum += weights[tap] * image.data[place];
        result.data[index * resultStep + line * resultAcross + channel] = image.bytes ? Math.round(sum) : sum;
      }
  });
  return result;
}

function taps(from, to, filter, begin, stop) {
  const scale = (stop - begin) / to;
  const stretch = Math.max(scale, 1);
  const reach = filter.reach * stretch;
  return Array.from({ length: to }, (_, index) => {
    const centre = begin + (index + 0.5) * scale;
    const start = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const end = Math.min(Math.trunc(centre + reach + 0.5), from);
    const weights = Array.from({ length: end - start }, (_, tap) =>
      filter.weight((start + tap - centre + 0.5) / stretch));
    const sum = weights.reduce((one, other) => one + other, 0);
    return [start, weights.map((weight) => weight / sum)];
  });
}

// Pixels of 0…255 → a network's input [1, 3, height, width] in [-1, 1].
export function planes(image, scale = 1 / 127.5, offset = -1, order = [0, 1, 2]) {
  const size = image.width * image.height;
  const result = new Float32Array(3 * size);
  order.forEach((channel, plane) => {
    for (let place = 0; place < size; place++)
      result[plane * size + place] = image.data[place * image.channels + channel] * scale + offset;
  });
  return result;
}

// A network's output [1, 3, size, size] in [-1, 1] → a picture of 0…1.
export function fromPlanes(data, size) {
  const result = picture(size, size, 3);
  for (let place = 0; place < size * size; place++)
    for (let channel = 0; channel < 3; channel++)
      result.data[place * 3 + channel] = (data[channel * size * size + place] + 1) / 2;
  return result;
}
