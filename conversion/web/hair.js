// Where exactly hair is, as hair.py finds it.
import { cellMask, widen } from "./area.js";
import { times } from "./oklab.js";
import { picture, reduce } from "./pictures.js";

// How much of each pixel of the parser's frame is hair: what the parser thinks, and the colours of what it takes for hair
// and for what is behind it.
export function refineHair(pixels, parsing, constants) {
  const { ALL, ANY, CERTAINTY, CERTAINTY_BEYOND, HALO, NOWHERE, RIVALS, SOME, SQUARE } = constants;
  const size = pixels.width;
  const seen = parsing.mask("hair").data;
  const inside = Float32Array.from(seen, (_, place) =>
    Number([place % size, Math.floor(place / size)].every((value) => value >= size / 4 && value < (3 * size) / 4)));
  const ofHair = logLikelihood(pixels, seen.map((value, place) => value * inside[place] > 0.5), constants);
  if (!ofHair) return seen;
  const rivals = Object.entries(RIVALS).map(([name, within]) =>
    logLikelihood(pixels, parsing.mask(name).data.map((value, place) => value * (within ? inside[place] : 1) > 0.5), constants));
  const anything = logNormal([0.5, 0.5, 0.5], [[ANY ** 2, 0, 0], [0, ANY ** 2, 0], [0, 0, ANY ** 2]]);
  const others = [anything, ...rivals.filter(Boolean)];
  let hair = seen.map((value, place) => {
    if (value <= NOWHERE) return 0;
    const prior = 0.5 + (value - 0.5) * (2 * (inside[place] ? CERTAINTY : CERTAINTY_BEYOND) - 1);
    const colour = pixels.data.subarray(place * 3, place * 3 + 3);
    const other = Math.max(...others.map((density) => density(colour)));
    const evidence = Math.min(Math.max(Math.log(prior / (1 - prior)) + ofHair(colour) - other, -20), 20);
    return Math.min(Math.max((1 / (1 + Math.exp(-evidence)) - SOME) / (ALL - SOME), 0), 1);
  });
  const together = joined(hair, inside, size, SQUARE);
  hair = withEdge(hair.map((value, place) => value * Math.max(inside[place], together[place])), size);
  return hair.map((value, place) => Math.min(value, Math.min(Math.max(2 * seen[place] - HALO, 0), 1)));
}

// Log density of a normal distribution of the colours at some pixels; null where these are too few.
function logLikelihood(pixels, known, { LEAST_KNOWN, SPREAD, SURROUNDINGS }) {
  const places = [];
  known.forEach((value, place) => value && places.push(place));
  if (places.length < (LEAST_KNOWN / SURROUNDINGS ** 2) * known.length) return null;
  const colour = (place, channel) => pixels.data[place * 3 + channel];
  const mean = [0, 1, 2].map((channel) => places.reduce((sum, place) => sum + colour(place, channel), 0) / places.length);
  const covariance = [0, 1, 2].map((row) => [0, 1, 2].map((column) => {
    const products = places.reduce((sum, place) => sum + (colour(place, row) - mean[row]) * (colour(place, column) - mean[column]), 0);
    return products / (places.length - 1) + (row === column ? SPREAD ** 2 : 0);
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
