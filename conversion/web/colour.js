// A part of the face in another colour, its structure as it was, as part_colour.py has it.
import { blur, clip, minimumFilter, smoothstep } from "./canvas.js";
import { refineHair } from "./hair.js";
import { halfToEven, inBox, picture, resize } from "./pictures.js";

// Whether a face shows the part of a `PartColour`, and the one that its colour is told by.
export function fits({ part, beside }, { parsing, constants: { part_colour: { LEAST_PART, SURELY } } }) {
  const share = (name) => parsing.mask(name).data.reduce((sum, value) => sum + (value > SURELY), 0) / parsing.total ** 2;
  return share(part) >= LEAST_PART && (!beside || share(beside) > 0);
}

// The part in its colour, where it is seen on a closer look, too.
export function layers(wanted, face) {
  const { parsing, frame } = face;
  const constants = { ...face.constants.canvas, ...face.constants.part_colour };
  const { LEAST_PART, SURELY } = constants;
  const { part, beside, colour } = wanted;
  const ofHair = part === "hair";
  const seen = parsing.mask(part).data;
  const weights = ofHair ? refineHair(frame, parsing, face.constants.hair) : seen;
  if (weights.reduce((sum, value) => sum + (value > SURELY), 0) < LEAST_PART * weights.length) return [];
  const measured = (values) => measure(values, face);
  // what is no hair on a closer look is more of the rest
  const rest = (names) => parsing.mask(names).data.map((value, place) =>
    ofHair ? value * clip((1 - weights[place]) / Math.max(1 - seen[place], 1e-6), 0, 1) : value);
  let { mean } = colour;
  if (beside) {
    const other = measured(rest(beside));
    if (!other) return [];
    mean = mean.map((value, index) => value + other.mean[index]);
  } else if (!face.toning) {
    // of a photo without colours skin does not tell the light's
    mean = inLight(mean, measured(rest("facial_skin")), constants);
  }
  const [now, becomes] = [measured(weights), { mean, deviation: colour.deviation }];
  const weight = picture(frame.width, frame.height, 1, weights);
  const strands = ofHair ? withStrands(weight, face, constants, measured) : {};
  return [colourLayer({ now, becomes, weight, ...strands }, face)];
}

// A part that is of the colour `now` and becomes another one, where it has weight in the parser's frame; edge: what it
// lies before, see `unmixed`; without, all of it is taken as it is.
export function colourLayer({ now, becomes, weight, edge }, { parsing: { matrix }, constants, space }) {
  const change = (base, box) =>
    recoloured(base, edge && inBox(edge, matrix, box), { now, becomes }, constants.part_colour, space);
  return { weight, matrix, change };
}

// What a colour adds to the pixels of a photo; to those that have another hue than the part less: they show what is
// behind. Noise stays as it is, and is not made stronger where the part becomes lighter.
function recoloured(base, edge, { now, becomes }, constants, space) {
  const { FOREIGN, GLOSS, GLOSSY, LEAST_CONTRAST, LEAST_FOREIGN, MOST_CONTRAST } = constants;
  const contrast = becomes.deviation.map((value, index) =>
    clip(value / Math.max(now.deviation[index], 1e-4), LEAST_CONTRAST[index], MOST_CONTRAST[index]));
  const shaded = ({ mean }, index, lightness) => mean[index] * clip(lightness / Math.max(mean[0], 1e-3), 0, GLOSSY);
  const clean = withoutNoise(base, constants).data;
  const result = new Float32Array(base.data.length);
  for (let start = 0; start < result.length; start += 3) {
    let [own, share] = [clean.subarray(start, start + 3), 1];
    if (edge) [own, share] = unmixed(own, edge.data.subarray((start / 3) * 7, (start / 3) * 7 + 7), constants);
    const before = space.fromPixel(own);
    const offset = (before[0] - now.mean[0]) * contrast[0];
    const shining = Math.cbrt(becomes.mean[0] ** 3 + (now.mean[0] + Math.max(offset, 0)) ** 3 - now.mean[0] ** 3);
    const light = becomes.mean[0] + offset;
    const lit = offset > 0 ? GLOSS * shining + (1 - GLOSS) * light : light;
    const hue = (index) => shaded(becomes, index, lit) + contrast[index] * (before[index] - shaded(now, index, before[0]));
    const after = space.toPixel([lit, hue(1), hue(2)]);
    const hues = [1, 2].map((index) => (before[index] - now.mean[index]) / (FOREIGN * now.deviation[index] + LEAST_FOREIGN));
    share *= Math.exp(-((hues[0] ** 2 + hues[1] ** 2) ** 2));
    after.forEach((value, channel) => (result[start + channel] = share * (value - own[channel])));
  }
  return result;
}

// A picture without what cannot be told from its noise: a guided filter by its brightness.
function withoutNoise(image, { LUMA, NOISE, NOISE_RANGE, NOISE_REACH, FLATTEST }) {
  const { width, height, data } = image;
  const grey = picture(width, height);
  grey.data.forEach((_, place) => {
    grey.data[place] = LUMA.reduce((sum, share, channel) => sum + share * data[3 * place + channel], 0);
  });
  const square = { ...grey, data: grey.data.map((value) => value ** 2) };
  const [near, nearSquare] = [grey, square].map((each) => blur(each, NOISE_REACH / 2).data);
  const deviations = near.map((mean, place) => Math.sqrt(Math.max(nearSquare[place] - mean ** 2, 0))).filter((_, place) => near[place] > 0.04 && near[place] < 0.96);
  const noise = NOISE * clip(deviations.length ? quantile(deviations, FLATTEST) : 0, ...NOISE_RANGE);
  const weighted = { ...image, data: data.map((value, index) => value * grey.data[Math.floor(index / 3)]) };
  const [mean, centre, centreSquare, product] = [image, grey, square, weighted].map((each) => blur(each, NOISE_REACH));
  const [slope, offset] = [picture(width, height, 3), picture(width, height, 3)];
  slope.data.forEach((_, index) => {
    const [place, value] = [Math.floor(index / 3), mean.data[index]];
    const middle = centre.data[place];
    slope.data[index] = (product.data[index] - middle * value) / (Math.max(centreSquare.data[place] - middle ** 2, 0) + noise ** 2);
    offset.data[index] = value - slope.data[index] * middle;
  });
  const [slopes, offsets] = [slope, offset].map((each) => blur(each, NOISE_REACH).data);
  return { ...image, data: slopes.map((value, index) => clip(value * grey.data[Math.floor(index / 3)] + offsets[index], 0, 1)) };
}

function quantile(values, share) {
  const sorted = Float32Array.from(values).sort();
  const place = share * (sorted.length - 1);
  const [below, above] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
  return below + (above - below) * (place - Math.floor(place));
}

// A pixel at the edge of a part as if it showed the part alone, and how much of it does. edge: colours of the part and of
// what is behind near by, and how near the edge is.
function unmixed(pixel, edge, { ALIKE, BETWEEN }) {
  const [part, behind, near] = [edge.subarray(0, 3), edge.subarray(3, 6), clip(edge[6], 0, 1)];
  const apart = part.map((value, channel) => value - behind[channel]);
  const distance = apart.reduce((sum, value) => sum + value ** 2, 0);
  const along = apart.reduce((sum, value, channel) => sum + value * (pixel[channel] - behind[channel]), 0);
  const known = (near * distance) / (distance + ALIKE ** 2);
  const share = 1 - known * (1 - smoothstep(along / Math.max(distance, 1e-4), ...BETWEEN));
  return [pixel.map((value, channel) => share * value + (1 - share) * part[channel]), share];
}

// Of a layer of hair what makes it reach to the strands beyond its edge and know what they lie before.
function withStrands(hair, { parsing, frame }, constants, measured) {
  const { COVERS, INSIDE, NEAR, REACH, SURE } = constants;
  const { unit, total } = parsing;
  const inside = minimumFilter(hair, halfToEven(INSIDE * unit)).data.map((value) => Number(value > SURE));
  const reaches = blur(hair, REACH * unit).data;
  const none = minimumFilter({ ...hair, data: hair.data.map((value) => 1 - value) }, halfToEven(unit)).data;
  const outside = reaches.map((value, place) => Number(value < 0.03 || (value < 0.35 && none[place] > SURE)));
  const now = measured(hair.data.map((value, place) => value * inside[place]));
  if (!now || !outside.some(Boolean)) return {};
  const [part, behind] = [inside, outside].map((known) => nearestColours(frame, known, unit, constants).data);
  const near = blur({ ...hair, data: hair.data.map((value) => Number(value < 0.5)) }, NEAR * unit).data;
  const edge = picture(total, total, 7);
  const covers = parsing.mask(COVERS).data;
  const weight = picture(total, total);
  for (let place = 0; place < total ** 2; place++) {
    edge.data.set([...part.subarray(3 * place, 3 * place + 3), ...behind.subarray(3 * place, 3 * place + 3), smoothstep(near[place], 0.02, 0.2)], 7 * place);
    weight.data[place] = Math.max(hair.data[place], smoothstep(reaches[place], 0.08, 0.4) * (1 - covers[place]));
  }
  return { now, weight, edge };
}

// Colours of a picture that are known at some pixels, elsewhere those of near by; nothing finer than `scale` pixels.
function nearestColours(pixels, known, scale, { NOTHING_NEAR, ROUNDED }) {
  const { width, height } = pixels;
  const planes = picture(width, height, 4);
  const sums = [0, 0, 0, 0];
  planes.data.forEach((_, index) => {
    const [place, channel] = [Math.floor(index / 4), index % 4];
    planes.data[index] = known[place] * (channel < 3 ? pixels.data[3 * place + channel] : 1);
    sums[channel] += planes.data[index];
  });
  const small = resize(planes, ...[width, height].map((length) => Math.max(1, halfToEven(length / scale))));
  const total = Float64Array.from(small.data, (_, index) => (NOTHING_NEAR * sums[index % 4]) / sums[3]);
  [1.2, 3, 8, 24].forEach((deviation, power) => {
    const found = blur(small, deviation).data;
    // rounding errors of a blur are no colours, where nothing is near
    found.forEach((value, index) => {
      if (found[index - (index % 4) + 3] > ROUNDED) total[index] += 50 ** -power * value;
    });
  });
  const colours = picture(small.width, small.height, 3);
  colours.data.forEach((_, index) => {
    const place = Math.floor(index / 3);
    colours.data[index] = total[4 * place + (index % 3)] / total[4 * place + 3];
  });
  return resize(colours, width, height);
}

// A colour in the light of a photo, as far as that tints skin more than people differ.
function inLight(mean, of, { SKIN, PEOPLE, TINTED }) {
  if (!of) return mean;
  const tint = SKIN.map((usual, index) => {
    const value = of.mean[index + 1] / Math.max(of.mean[0], 1e-3) - usual;
    return TINTED * Math.sign(value) * Math.max(Math.abs(value) - PEOPLE, 0);
  });
  return mean.map((value, index) => (index ? value + mean[0] * tint[index - 1] : value));
}

// Mean and deviation in Oklab of the pixels of a face that surely are of a part; null without any.
export function measure(weights, { frame, space, constants }) {
  const found = [];
  weights.forEach((weight, place) => {
    if (weight > constants.part_colour.SURELY) found.push([space.fromPixel(frame.data.subarray(place * 3, place * 3 + 3)), weight]);
  });
  if (!found.length) return null;
  const total = found.reduce((sum, [, weight]) => sum + weight, 0);
  const average = (of) => [0, 1, 2].map((index) => found.reduce((sum, [colour, weight]) => sum + weight * of(colour, index), 0) / total);
  const mean = average((colour, index) => colour[index]);
  const deviation = average((colour, index) => (colour[index] - mean[index]) ** 2).map(Math.sqrt);
  return { mean, deviation };
}
