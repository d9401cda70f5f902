// A part of the face in another colour, its structure as it was, as part_colour.py, hair.py and blending.py do it, but
// for what they do against noise, and for pixels at the edge of hair.
import { cellMask, frameMask, widen } from "./area.js";
import { picture, reduce } from "./pictures.js";

// What lays the colour of an edit over the part: { weight, becomes } for `paste`; null where nothing of it is seen.
// frame: the face's surroundings as they are in the photo, of bytes.
export function colourLayer(frame, parsing, { part, beside, skin, colour, hair }, settings) {
  const pixels = picture(frame.width, frame.height, 3);
  pixels.data.forEach((_, index) => {
    pixels.data[index] = frame.data[Math.floor(index / 3) * frame.channels + (index % 3)] / 255;
  });
  let weights = frameMask(parsing, part).data;
  if (hair) weights = refineHair(pixels, parsing, weights, settings.hair);
  const { oklab, surely, leastPart, leastContrast, mostContrast, foreign, leastForeign, gloss, glossy } = settings.colour;
  const space = new Oklab(oklab);
  if (weights.reduce((sum, value) => sum + (value > surely), 0) < leastPart * weights.length) return null;
  const now = measure(pixels, weights, space, surely);
  let { mean } = colour;
  if (beside) {
    const other = measure(pixels, frameMask(parsing, beside).data, space, surely);
    if (!other) return null;
    mean = mean.map((value, index) => value + other.mean[index]);
  } else {
    mean = inLight(mean, measure(pixels, frameMask(parsing, skin).data, space, surely), settings.colour);
  }
  const contrast = colour.deviation.map((value, index) =>
    Math.min(Math.max(value / Math.max(now.deviation[index], 1e-4), leastContrast[index]), mostContrast[index]));
  const becomes = (place, base) => {
    const before = space.fromPixel(base);
    const offset = (before[0] - now.mean[0]) * contrast[0];
    const shining = Math.cbrt(mean[0] ** 3 + (now.mean[0] + Math.max(offset, 0)) ** 3 - now.mean[0] ** 3);
    const light = offset > 0 ? gloss * shining + (1 - gloss) * (mean[0] + offset) : mean[0] + offset;
    const shaded = (of, index, lightness) => of[index] * Math.min(Math.max(lightness / Math.max(of[0], 1e-3), 0), glossy);
    const hue = (index) => shaded(mean, index, light) + contrast[index] * (before[index] - shaded(now.mean, index, before[0]));
    const after = space.toPixel([light, hue(1), hue(2)]);
    // a pixel of another hue shows what is behind the part
    const hues = [1, 2].map((index) => (before[index] - now.mean[index]) / (foreign * now.deviation[index] + leastForeign));
    const own = Math.exp(-((hues[0] ** 2 + hues[1] ** 2) ** 2));
    return base.map((value, channel) => value + own * (after[channel] - value));
  };
  return { weight: picture(frame.width, frame.height, 1, weights), becomes };
}

// A colour in the light of a photo, as far as that tints skin more than people differ.
function inLight(mean, of, { skin, people, tinted }) {
  if (!of) return mean;
  const tint = skin.map((usual, index) => {
    const value = of.mean[index + 1] / Math.max(of.mean[0], 1e-3) - usual;
    return tinted * Math.sign(value) * Math.max(Math.abs(value) - people, 0);
  });
  return mean.map((value, index) => (index ? value + mean[0] * tint[index - 1] : value));
}

class Oklab {
  constructor({ toCones, toOklab, fromCones, fromOklab }) {
    Object.assign(this, { toCones, toOklab, fromCones, fromOklab });
  }

  fromPixel(pixel) {
    const linear = pixel.map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return times(this.toOklab, times(this.toCones, linear).map(Math.cbrt));
  }

  toPixel(colour) {
    const linear = times(this.fromCones, times(this.fromOklab, colour).map((value) => value ** 3));
    return linear
      .map((value) => Math.min(Math.max(value, 0), 1))
      .map((value) => (value <= 0.0031308 ? value * 12.92 : 1.055 * value ** (1 / 2.4) - 0.055));
  }
}

const times = (matrix, vector) => matrix.map((row) => row.reduce((sum, value, index) => sum + value * vector[index], 0));

function measure(pixels, weights, space, surely) {
  const found = [];
  weights.forEach((weight, place) => {
    if (weight > surely) found.push([space.fromPixel(Array.from(pixels.data.subarray(place * 3, place * 3 + 3))), weight]);
  });
  if (!found.length) return null;
  const total = found.reduce((sum, [, weight]) => sum + weight, 0);
  const average = (of) => [0, 1, 2].map((index) => found.reduce((sum, [colour, weight]) => sum + weight * of(colour, index), 0) / total);
  const mean = average((colour, index) => colour[index]);
  const deviation = average((colour, index) => (colour[index] - mean[index]) ** 2).map(Math.sqrt);
  return { mean, deviation };
}

// Hair by its colour, too: what the parser thinks, and the colours of what it takes for hair and for what is behind it.
function refineHair(pixels, parsing, seen, settings) {
  const { certainty, certaintyBeyond, nowhere, any, some, all, halo, classes } = settings;
  const size = pixels.width;
  const inside = Float32Array.from(seen, (_, place) =>
    Number([place % size, Math.floor(place / size)].every((value) => value >= size / 4 && value < (3 * size) / 4)));
  const ofHair = logLikelihood(pixels, seen.map((value, place) => value * inside[place] > 0.5), settings);
  if (!ofHair) return seen;
  const rivals = classes.map(({ index, within }) =>
    logLikelihood(pixels, frameMask(parsing, [index]).data.map((value, place) => value * (within ? inside[place] : 1) > 0.5), settings));
  const anything = logNormal([0.5, 0.5, 0.5], [[any ** 2, 0, 0], [0, any ** 2, 0], [0, 0, any ** 2]]);
  const others = [anything, ...rivals.filter(Boolean)];
  let hair = seen.map((value, place) => {
    if (value <= nowhere) return 0;
    const prior = 0.5 + (value - 0.5) * (2 * (inside[place] ? certainty : certaintyBeyond) - 1);
    const colour = pixels.data.subarray(place * 3, place * 3 + 3);
    const other = Math.max(...others.map((density) => density(colour)));
    const evidence = Math.min(Math.max(Math.log(prior / (1 - prior)) + ofHair(colour) - other, -20), 20);
    return Math.min(Math.max((1 / (1 + Math.exp(-evidence)) - some) / (all - some), 0), 1);
  });
  const together = joined(hair, inside, size, settings.square);
  hair = withEdge(hair.map((value, place) => value * Math.max(inside[place], together[place])), size);
  return hair.map((value, place) => Math.min(value, Math.min(Math.max(2 * seen[place] - halo, 0), 1)));
}

// Log density of a normal distribution of the colours at some pixels; null where these are too few.
function logLikelihood(pixels, known, { leastKnown, spread }) {
  const places = [];
  known.forEach((value, place) => value && places.push(place));
  if (places.length < leastKnown * known.length) return null;
  const colour = (place, channel) => pixels.data[place * 3 + channel];
  const mean = [0, 1, 2].map((channel) => places.reduce((sum, place) => sum + colour(place, channel), 0) / places.length);
  const covariance = [0, 1, 2].map((row) => [0, 1, 2].map((column) => {
    const products = places.reduce((sum, place) => sum + (colour(place, row) - mean[row]) * (colour(place, column) - mean[column]), 0);
    return products / (places.length - 1) + (row === column ? spread ** 2 : 0);
  }));
  return logNormal(mean, covariance);
}

function logNormal(mean, covariance) {
  const [[a, b, c], [, d, e], [, , f]] = covariance; // symmetric
  const adjugate = [
    [d * f - e * e, c * e - b * f, b * e - c * d],
    [c * e - b * f, a * f - c * c, b * c - a * e],
    [b * e - c * d, b * c - a * e, a * d - b * b],
  ];
  const determinant = a * adjugate[0][0] + b * adjugate[0][1] + c * adjugate[0][2];
  return (colour) => {
    const offset = mean.map((value, channel) => colour[channel] - value);
    const distance = times(adjugate, offset).reduce((sum, value, channel) => sum + value * offset[channel], 0) / determinant;
    return -(distance + Math.log(determinant)) / 2;
  };
}

// Where hair hangs together with hair inside of the crop, seen in squares of pixels.
function joined(hair, inside, size, square) {
  const side = size / square;
  const [coarse, within] = [hair, inside].map((mask) => Array.from(reduce(picture(size, size, 1, mask), square, square).data, (share) => share > 0.5));
  let found = coarse.map((value, place) => value && within[place]);
  for (let before = -1, count = 0; count !== before; ) {
    before = found.filter(Boolean).length;
    found = Array.from(widen(found, side, 1 / side), (value, place) => value > 0 && coarse[place]);
    count = found.filter(Boolean).length;
  }
  return cellMask(Array.from(widen(found, side, 1 / side), Boolean), size);
}

// Hair and, softly, the pixels beside it: the largest of 5×5, then the mean of 3×3, in whole steps of 255.
function withEdge(hair, size) {
  const line = (values, step, across, reach, of) => {
    const result = new Float32Array(size * size);
    for (let row = 0; row < size; row++)
      for (let place = 0; place < size; place++) {
        const near = [];
        for (let offset = -reach; offset <= reach; offset++)
          near.push(values[row * across + Math.min(Math.max(place + offset, 0), size - 1) * step]);
        result[row * across + place * step] = of(near);
      }
    return result;
  };
  const both = (values, reach, of) => line(line(values, 1, size, reach, of), size, 1, reach, of);
  const largest = both(hair.map((value) => Math.round(value * 255)), 2, (near) => Math.max(...near));
  return both(largest, 1, (near) => Math.round(near.reduce((sum, value) => sum + value, 0) / 3)).map((value) => value / 255);
}
