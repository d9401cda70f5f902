// Where the parts of a face are, as face_points.py finds them. Places are [x, y] in pixels of the 128-pixel crop.
import { clip, smoothstep, solve } from "./canvas.js";

const CROP_SIZE = 128;
export const add = (point, other, factor = 1) => [point[0] + factor * other[0], point[1] + factor * other[1]];
export const dot = (point, other) => point[0] * other[0] + point[1] * other[1];
export const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const middleOf = (one, other) => [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
const twice = (point) => [point, point];

export class FacePoints {
  // places: of a point's name that of the left side of the picture and that of the right.
  constructor(parsing, constants) {
    const { CROP_LANDMARKS, FORESHORTENED } = constants;
    const pair = (name) => {
      const found = [0, 1].map((half) => Part.of(parsing, name, constants, half));
      return found.includes(null) ? null : found;
    };
    const [brows, eyes] = [pair("brow"), pair("eye")];
    const [mouth, nose] = ["whole_mouth", "nose"].map((name) => Part.of(parsing, name, constants));
    const pupils = eyes ? eyes.map((eye) => eye.middle) : CROP_LANDMARKS.slice(0, 2);
    const apart = add(pupils[1], pupils[0], -1);
    const unit = Math.hypot(...apart);
    const along = apart.map((value) => value / unit);
    const across = [-along[1], along[0]];
    const places = {
      pupil: pupils,
      nose_root: twice(add(middleOf(...pupils), across, 0.08 * unit)),
      cheek: pupils.map((pupil, side) => add(add(pupil, along, (side ? 0.1 : -0.1) * unit), across, 0.62 * unit)),
    };
    const beside = (parts, share) => [parts[0].spine(1 - share), parts.at(-1).spine(share)];
    if (brows) {
      for (const [name, share] of [["inner", 0.06], ["middle", 0.55], ["outer", 0.94]]) places[`brow_${name}`] = beside(brows, share);
      ["upper", "lower"].forEach((name, end) => (places[`brow_${name}`] = brows.map((brow) => brow.edge(0.5, end))));
      places.forehead = brows.map((brow) => add(brow.middle, across, -0.5 * unit));
    }
    if (eyes) {
      for (const [name, share] of [["inner", 0.02], ["outer", 0.98]]) places[`eye_${name}`] = beside(eyes, share);
      ["upper", "lower"].forEach((name, end) => (places[`lid_${name}`] = eyes.map((eye) => eye.edge(0.5, end))));
    }
    if (nose) {
      places.nose_side = beside([nose], 0.97);
      places.nose_base = twice(nose.edge(0.5, 1));
    }
    if (mouth) {
      places.corner = beside([mouth], 0.99);
      ["upper", "lower"].forEach((name, end) => {
        places[`lip_${name}`] = twice(mouth.edge(0.5, end));
        places[`lip_side_${name}`] = [0.25, 0.75].map((share) => mouth.edge(share, end));
      });
      places.lip_middle = twice(middleOf(places.lip_upper[0], places.lip_lower[0]));
      places.chin = twice(add(places.lip_lower[0], across, 0.42 * unit));
    }
    Object.assign(this, { places, along, across, unit, foreshortened: FORESHORTENED });
  }

  has(...names) {
    return names.every((name) => name in this.places);
  }

  // How wide either side of the mouth is seen, of the mean of both.
  get sides() {
    if (!this.has("corner", "nose_base")) return [1, 1];
    const [left, right] = this.places.corner.map((corner, side) => dot(add(corner, this.places.nose_base[side], -1), this.along));
    return [-left, right].map((value) => clip((2 * value) / (right - left), ...this.foreshortened));
  }

  // How far the corners of the mouth are from its middle, and how far below that, in distances of the eyes.
  get mouth() {
    const [left, right] = this.places.corner;
    const below = mean(this.places.corner.map((corner, side) => dot(add(corner, this.places.lip_middle[side], -1), this.across)));
    return [dot(add(right, left, -1), this.along) / 2 / this.unit, below / this.unit];
  }
}

// A part of a face by its mask: the columns that show it, where it begins and ends in each, and its middle.
class Part {
  static of(parsing, name, { FINENESS, LEAST, SURELY }, half = null) {
    const size = FINENESS * CROP_SIZE;
    const mask = parsing.cropMask(name, size);
    const part = Object.assign(new Part(), { columns: [], upper: [], lower: [], middle: [0, 0] });
    let count = 0;
    const [start, end] = half === null ? [0, size] : [(half * size) / 2, ((half + 1) * size) / 2];
    for (let column = start; column < end; column++) {
      let [first, last] = [-1, -1];
      for (let row = 0; row < size; row++) {
        if (!(mask[row * size + column] > SURELY)) continue;
        if (first < 0) first = row;
        last = row;
        count++;
        part.middle = add(part.middle, [column + 0.5, row + 0.5]);
      }
      if (first < 0) continue;
      part.columns.push((column + 0.5) / FINENESS);
      part.upper.push(first / FINENESS);
      part.lower.push((last + 1) / FINENESS);
    }
    if (count / size ** 2 < LEAST[name]) return null;
    part.middle = part.middle.map((value) => value / count / FINENESS);
    return part;
  }

  // What rows are at so much of its width from the left, of some columns the mean.
  at(rows, share) {
    const column = this.columns[0] + share * (this.columns.at(-1) - this.columns[0]);
    let [sum, total] = [0, 0];
    this.columns.forEach((each, index) => {
      const weight = Math.exp(-((each - column) ** 2) / 2);
      sum += weight * rows[index];
      total += weight;
    });
    return [column, sum / total];
  }

  spine(share) {
    return this.at(this.upper.map((upper, index) => (upper + this.lower[index]) / 2), share);
  }

  edge(share, end) {
    return this.at(end ? this.lower : this.upper, share);
  }
}

// The line at which lips meet, or both lines where they are parted.
export class Lips {
  // Those of a face; null where it does not show both.
  static of(parsing, { FINENESS, LEAST, LEAST_COLUMNS, MIDDLE, SURELY }) {
    const size = FINENESS * CROP_SIZE;
    const [above, below, between] = ["upper_lip", "lower_lip", "mouth"].map((name) => parsing.cropMask(name, size));
    const least = (LEAST.whole_mouth / 8) * size ** 2;
    if ([above, below].some((mask) => mask.reduce((sum, value) => sum + (value > SURELY), 0) < least)) return null;
    const columns = [];
    for (let column = 0; column < size; column++) {
      let [top, bottom, total, upper, lower] = [-1, -1, 0, 0, 0];
      for (let row = 0, place = column; row < size; row++, place += size) {
        const sum = above[place] + below[place] + between[place];
        [total, upper, lower] = [total + sum, upper + above[place], lower + below[place]];
        if (!(sum > SURELY)) continue;
        if (top < 0) top = row;
        bottom = row + 1;
      }
      if (top < 0) continue;
      const thick = [upper, lower].map((share) => ((share / total) * (bottom - top)) / FINENESS);
      columns.push({ column, total, thick, edges: [top / FINENESS + thick[0], bottom / FINENESS - thick[1]] });
    }
    if (columns.length < LEAST_COLUMNS) return null;
    const ends = [columns[0].column / FINENESS, (columns.at(-1).column + 1) / FINENESS];
    const places = columns.map(({ column }) => (2 * ((column + 0.5) / FINENESS - ends[0])) / (ends[1] - ends[0]) - 1);
    const weights = columns.map(({ total }) => total);
    const lines = [0, 1].map((lip) => polynomial(places, columns.map(({ edges }) => edges[lip]), weights, 4));
    const middle = columns.filter((_, index) => Math.abs(places[index]) < MIDDLE);
    const thickness = [0, 1].map((lip) => mean(middle.map(({ thick }) => thick[lip])));
    return Object.assign(new Lips(), { ends, lines, thickness });
  }

  // Rows of the lower edge of the upper lip and of the upper edge of the lower one at a column, and how far from the
  // corners that is: 0 at them and beyond, 1 in the middle.
  edges(x) {
    const [left, right] = this.ends;
    const place = clip((2 * (x - left)) / (right - left) - 1, -1, 1);
    const inside = 1 - place ** 2;
    const [upper, lower] = this.lines.map((line) => line.reduce((sum, factor) => sum * place + factor, 0));
    const half = (Math.max(lower - upper, 0) / 2) * smoothstep(inside, 0, 0.25);
    const middle = (upper + lower) / 2;
    return [middle - half, middle + half, inside];
  }
}

// Factors, the highest power first, of the polynomial that is nearest to points, each of so much weight.
export function polynomial(xs, ys, weights, degree) {
  const powers = Array.from({ length: degree + 1 }, (_, index) => degree - index);
  const sum = (of) => xs.reduce((total, x, index) => total + weights[index] * of(x, ys[index]), 0);
  const matrix = powers.map((row) => powers.map((column) => sum((x) => x ** (row + column))));
  return solve(matrix, powers.map((power) => [sum((x, y) => y * x ** power)])).map(([factor]) => factor);
}
