// Older and younger faces, and skin with other lines and folds, as ageing.py has them.
import { Canvas, clip, blur, minimumFilter, weightedBlur } from "./canvas.js";
import { colourLayer, measure } from "./colour.js";
import { refineHair } from "./hair.js";
import { apply, compose, crop, halfToEven, inBox, inverse, picture, scaleOf } from "./pictures.js";
import { add, polynomial } from "./points.js";

const CROP_SIZE = 128;

// Whether there is skin to be seen.
export function fits(ageing, { parsing, constants }) {
  return parsing.share("facial_skin", constants.ageing.SURELY) > 0.1;
}

// Skin, hair and lips of another age; what is left to chance are wrinkles.
export function layers(ageing, face) {
  const { parsing, constants: { ageing: { LIPS_SHARE }, canvas }, chance } = face;
  const skin = parsing.mask("facial_skin");
  const away = blur(parsing.mask(["eyes", "brows", "whole_mouth", "eyeglasses", "hair"]), 1.5).data;
  const weight = { ...skin, data: skin.data.map((value, place) => clip(value - away[place], 0, 1)) };
  const fine = Canvas.of(parsing, canvas);
  const wrinkles = ageing.wrinkles ? lines(fine, ageing.wrinkles, chance, face.constants.ageing) : null;
  const found = [skinLayer(ageing, weight, face, wrinkles, compose(inverse(parsing.matrix), fine.matrix)), ...hair(ageing, face)];
  const lips = parsing.mask("lips");
  const [now, ground] = [lips, skin].map((mask) => measure(mask.data, face));
  if (!now || !ground) return found;
  const becomes = { mean: ground.mean.map((value, index) => value + ageing.lips[index]), deviation: now.deviation };
  const shown = { ...lips, data: lips.data.map((value) => LIPS_SHARE * value) };
  return [...found, colourLayer({ now, becomes, weight: shown }, face)];
}

// Hair of that age.
function hair(ageing, face) {
  const { BLACK, FADED, GREY, PIGMENT, TO_GREY, TO_YOUNG, YOUNG } = face.constants.ageing;
  const now = hairColour(face);
  if (!now) return [];
  let [light, ...chroma] = now.mean;
  if (ageing.mean_face > 0) {
    light += TO_GREY * Math.max(0, GREY - light);
    chroma = chroma.map((value, index) => value * FADED[index]);
  } else {
    const grey = clip(1 - chroma[1] / PIGMENT[1], 0, 1) * clip((light - BLACK[0]) / (BLACK[1] - BLACK[0]), 0, 1);
    light -= grey * TO_YOUNG * Math.max(0, light - YOUNG);
    chroma = chroma.map((value, index) => value + grey * (Math.max(value, PIGMENT[index]) - value));
  }
  const { total } = face.parsing;
  const weights = refineHair(face.frame, face.parsing, face.constants.hair).map((value) => ageing.hair * value);
  const becomes = { mean: [light, ...chroma], deviation: now.deviation };
  return [colourLayer({ now, becomes, weight: picture(total, total, 1, weights) }, face)];
}

// Colour of the hair of a head or, where it has hardly any, of the brows; null where neither is seen.
function hairColour(face) {
  const { EDGE, LEAST_KNOWN, SURE } = face.constants.strands;
  const { total } = face.parsing;
  const side = total / 2;
  for (const [name, edge] of Object.entries(EDGE)) {
    const inside = crop(face.parsing.mask(name), side / 2, side / 2, (3 * side) / 2, (3 * side) / 2);
    const sure = minimumFilter(inside, halfToEven((edge * side) / CROP_SIZE)).data;
    const weights = new Float32Array(total ** 2);
    let count = 0;
    sure.forEach((value, place) => {
      if (value < SURE) return;
      weights[(Math.floor(place / side) + side / 2) * total + (place % side) + side / 2] = value;
      count++;
    });
    if (count > LEAST_KNOWN * side ** 2) return measure(weights, face);
  }
  return null;
}

// ageing: what is done to skin; weight: how much of each pixel of the parser's frame is skin;
// lines: the lightness that lines add in a frame of their own, which `toLines` leads to.
export function skinLayer(ageing, weight, { parsing, constants, space }, lines, toLines) {
  const { AGED_SKIN, AGED_SKIN_MEAN, EVEN, FORM, SCALES } = constants.ageing;
  const { matrix } = parsing;
  const change = (base, box, alpha) => {
    const { width, height } = base;
    const size = width * height;
    const lab = [0, 1, 2].map(() => picture(width, height));
    for (let place = 0; place < size; place++)
      space.fromPixel(base.data.subarray(3 * place, 3 * place + 3)).forEach((value, index) => (lab[index].data[place] = value));
    const skin = inBox(weight, matrix, box);
    skin.data = skin.data.map((value) => clip(value, 0, 1));
    const unit = parsing.unit / scaleOf(matrix);
    const [light] = lab;
    const added = lines ? inBox(lines, compose(matrix, toLines), box).data : new Float32Array(size);
    let fine = light;
    SCALES.slice(1).forEach((scale, index) => {
      const coarse = weightedBlur(light, skin, scale * unit);
      for (let place = 0; place < size; place++) {
        const band = fine.data[place] - coarse.data[place];
        added[place] += (ageing.gains[index] - 1) * band * Math.exp(-((band / FORM) ** 2));
      }
      fine = coarse;
    });
    // the young have fewer spots
    const even = ageing.mean_face < 0 && lab.slice(1).map((plane) => weightedBlur(plane, skin, 3 * unit).data);
    const toCrop = compose(matrix, [1 / parsing.unit, 0, -CROP_SIZE / 2, 0, 1 / parsing.unit, -CROP_SIZE / 2]);
    const result = new Float32Array(base.data.length);
    for (let place = 0; place < size; place++) {
      if (!alpha[place]) continue;
      const [x, y] = apply(toCrop, [box[0] + (place % width) + 0.5, box[1] + Math.floor(place / width) + 0.5]);
      const aged = ageing.mean_face && ageing.mean_face * agedSkin(x, y, AGED_SKIN, AGED_SKIN_MEAN);
      const hues = [1, 2].map((index) => {
        const value = lab[index].data[place];
        return even ? value + EVEN * (even[index - 1][place] - value) : value;
      });
      const after = space.toPixel([light.data[place] + added[place] + aged, ...hues]);
      after.forEach((value, channel) => (result[3 * place + channel] = value - base.data[3 * place + channel]));
    }
    return result;
  };
  return { weight, matrix, change };
}

// What age adds to the lightness of skin at a place of the 128-pixel crop.
function agedSkin(x, y, bells, mean) {
  let found = mean;
  for (const [middle, height, along, across, angle, value] of bells) {
    const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
    for (const place of [x, CROP_SIZE - x]) {
      const u = (cosine * (place - middle) + sine * (y - height)) / along;
      const v = (cosine * (y - height) - sine * (place - middle)) / across;
      found += value * Math.exp(-(u * u + v * v) / 2);
    }
  }
  return found * clip((y - 30) / 12, 0, 1) * clip((118 - y) / 8, 0, 1); // what was measured
}

// Wrinkles where faces have them, so deep: dark with a light edge.
function lines(canvas, wrinkles, chance, { _BESIDE }) {
  const total = picture(canvas.size, canvas.size);
  const steps = Array.from({ length: 24 }, (_, index) => index / 23);
  // a smooth line near these points
  const stroke = (points, depth, width) => {
    const path = points.map((point) => add(point, [chance.normal(0.35), chance.normal(0.35)]));
    const spots = points.map((_, index) => index / (points.length - 1));
    const factors = [0, 1].map((axis) =>
      polynomial(spots, path.map((point) => point[axis]), spots.map(() => 1), Math.min(3, points.length - 1)));
    const places = steps.map((step) => factors.map((line) => line.reduce((sum, factor) => sum * step + factor, 0)));
    draw(places, depth * chance.uniform(0.75, 1.2), width);
  };
  const draw = (places, depth, width) => {
    const [low, high] = [Math.min, Math.max].map((of, end) => [0, 1].map((axis) => {
      const edge = (of(...places.map((place) => place[axis])) + canvas.beyond + (end ? 5 : -5)) * canvas.scale;
      return clip(end ? Math.ceil(edge) : Math.floor(edge), 0, canvas.size);
    }));
    for (let row = low[1]; row < high[1]; row++)
      for (let column = low[0]; column < high[0]; column++) {
        const [x, y] = [canvas.place(column), canvas.place(row)];
        let [nearest, away] = [0, Infinity];
        places.forEach((place, index) => {
          const distance = Math.hypot(x - place[0], y - place[1]);
          if (distance < away) [nearest, away] = [index, distance];
        });
        const distance = away / width;
        const fade = Math.sin(Math.PI * (0.08 + (0.84 * nearest) / 23));
        const fold = -Math.exp(-(distance ** 2) / 2) + 0.45 * Math.exp(-((distance - 2.2) ** 2) / 2);
        total.data[row * canvas.size + column] += wrinkles * depth * fade * fold;
      }
  };
  for (const [row, depth] of [[26, 0.5], [31, 0.8], [36, 0.6]]) {
    const [left, right] = [chance.uniform(36, 44), chance.uniform(84, 92)];
    const lift = chance.uniform(-1.5, 1.5);
    stroke([[left, row + 1], [54, row - 1 + lift], [64, row + 0.6], [74, row - 1 - lift], [right, row + 1]], depth, 0.7);
  }
  for (const sign of [-1, 1])
    for (const [points, depth, width] of _BESIDE)
      stroke(points.map(([x, y]) => [CROP_SIZE / 2 + sign * x, y]), depth, width);
  return total;
}
