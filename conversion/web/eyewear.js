// Glasses that are put on a face, as eyewear.py has them, but for lenses that are tinted on glasses that are worn.
import { Canvas, clip } from "./canvas.js";
import { frameLayer } from "./blending.js";
import { picture } from "./pictures.js";
import { add, dot } from "./points.js";

const CROP_SIZE = 128;

// Whether an eye is seen, the other one, too, or a face from the front, and no glasses before it.
export function fits(eyewear, { parsing, constants }) {
  const { signs: { GLASSES }, eyewear: { LEAST_EYE, SURELY }, face_parsing: { MOST_TURNED } } = constants;
  if (parsing.worn(GLASSES, SURELY)) return false;
  const eyes = middles(parsing.cropMask("eye", CROP_SIZE), LEAST_EYE, SURELY).filter(Boolean).length;
  return eyes === 2 || (eyes === 1 && Math.abs(parsing.turn) < MOST_TURNED);
}

// The glasses and their shadow; what is left to chance is the frame.
export function layers({ frames, lens: [upper, lower] }, face) {
  const { parsing, constants, chance } = face;
  const { HIDDEN, SHADOW, SHADOW_BELOW, SHADOW_WIDTH } = constants.eyewear;
  const frame = frames[chance.integer(frames.length)];
  const canvas = Canvas.of(parsing, constants.canvas);
  const seat = new Seat(parsing, constants.eyewear);
  const hidden = canvas.mask(["hair", "hat", "background"]).data;
  const seen = hidden.map((value) => 1 - clip((value - HIDDEN[0]) / (HIDDEN[1] - HIDDEN[0]), 0, 1));
  const lens = canvas.polygons([0, 1].map((side) => seat.outline(frame, side)), constants.canvas);
  const whole = canvas.polygons([0, 1].map((side) => seat.outline(frame, side, frame.rim)), constants.canvas);
  const bars = canvas.polygons([seat.bridge(frame), ...[0, 1].map((side) => seat.arm(frame, side))], constants.canvas);
  const rim = canvas.fill((x, y, place) => Math.max(whole.data[place], bars.data[place]) * (1 - lens.data[place]) * seen[place]);
  const shadow = canvas.shadow(rim, SHADOW_BELOW * seat.unit, SHADOW_WIDTH * seat.unit).data;
  const lit = litFromAbove(canvas, rim);
  const [pixels, detail] = [picture(canvas.size, canvas.size, 3), picture(canvas.size, canvas.size)];
  const middle = add(seat.lenses[0], add(seat.lenses[1], seat.lenses[0], -1), 0.5);
  const weight = canvas.fill((x, y, place) => {
    const glass = lens.data[place] * seen[place];
    const down = clip(dot([x - middle[0], y - middle[1]], seat.across) / (frame.height * seat.unit) + 0.5, 0, 1);
    const through = 1 - glass * (1 - (upper + (lower - upper) * down));
    const light = lit[place];
    const solid = rim.data[place];
    for (let channel = 0; channel < 3; channel++) {
      // glass shows a little of the sky
      const sky = glass * (1 - down) ** 2 * [0.045, 0.0475, 0.05][channel];
      const material = frame.colour[channel] * (0.75 + 0.5 * light) + 0.22 * Math.max(light - 0.55, 0);
      pixels.data[3 * place + channel] = solid * material + (1 - solid) * ((1 - through) * [0.035, 0.035, 0.045][channel] + sky);
    }
    const shade = SHADOW * shadow[place] * seen[place];
    detail.data[place] = (1 - shade) * through * (1 - solid);
    return Number(Math.max(solid, glass, shade) > 1 / 512);
  });
  return [frameLayer(pixels, weight, canvas.matrix, detail)];
}

// How bright a rounded rim is by light from above.
function litFromAbove(canvas, rim) {
  const { size } = canvas;
  const soft = canvas.blur(rim, 0.5).data;
  return Float32Array.from(soft, (_, place) => {
    const row = Math.floor(place / size);
    const [above, below] = [Math.max(row - 1, 0), Math.min(row + 1, size - 1)];
    const slope = (soft[place + (below - row) * size] - soft[place + (above - row) * size]) / (below - above);
    return clip(0.4 + 1.8 * canvas.scale * slope, 0, 1);
  });
}

// Middles of both eyes that surely are seen; null of one that is not.
function middles(mask, least, surely) {
  return [0, 1].map((side) => {
    let [count, sum, middle] = [0, 0, [0, 0]];
    mask.forEach((value, place) => {
      const [column, row] = [place % CROP_SIZE, Math.floor(place / CROP_SIZE)];
      if (!(value > surely) || Number(column >= CROP_SIZE / 2) !== side) return;
      [count, sum, middle] = [count + 1, sum + value, add(middle, [column + 0.5, row + 0.5], value)];
    });
    return count > least * mask.length ? middle.map((value) => value / sum) : null;
  });
}

// Where glasses sit on a face, in pixels of the 128-pixel crop: the middles of the lenses, the left one of the picture
// first; factors of the width of each; `unit` is a millimetre.
class Seat {
  constructor(parsing, { BETWEEN_PUPILS, BRIDGE, CROP_LANDMARKS, LEAST_EYE, MOST_TURNED, NARROWER, SURELY }) {
    const seen = middles(parsing.cropMask("eye", CROP_SIZE), LEAST_EYE, SURELY);
    const centres = seen.map((middle, side) => middle ?? CROP_LANDMARKS[side]);
    const between = add(centres[0], add(centres[1], centres[0], -1), 0.5);
    const apart = Math.hypot(...add(centres[1], centres[0], -1));
    const along = add(centres[1], centres[0], -1).map((value) => value / apart);
    const across = [-along[1], along[0]];
    let [sum, nose] = [0, [0, 0]];
    parsing.cropMask("nose", CROP_SIZE).forEach((value, place) => {
      if (!(value > SURELY)) return;
      [sum, nose] = [sum + value, add(nose, [(place % CROP_SIZE) + 0.5, Math.floor(place / CROP_SIZE) + 0.5], value)];
    });
    const off = sum ? dot(add(nose.map((value) => value / sum), between, -1), along) / apart : 0;
    const turned = clip(BRIDGE * off, -MOST_TURNED, MOST_TURNED);
    const unit = apart / BETWEEN_PUPILS;
    const widths = [1 + NARROWER * turned, 1 - NARROWER * turned];
    const bridge = add(add(between, along, turned * apart), across, 4.4 * unit);
    const lenses = widths.map((width, side) => add(bridge, along, (side ? 1 : -1) * width * (BETWEEN_PUPILS / 2 + 3) * unit));
    Object.assign(this, { lenses, widths, along, across, unit });
  }

  // The place so many millimetres to the right of the middle of a lens, and below it.
  at(side, [right, down]) {
    return add(add(this.lenses[side], this.along, right * this.unit), this.across, down * this.unit);
  }

  // Edge of a lens or, with `rim`, of the rim around it.
  outline(frame, side, rim = 0) {
    const nasal = side ? -1 : 1;
    const half = (frame.width / 2) * this.widths[side];
    return Array.from({ length: 160 }, (_, index) => {
      const angle = (index / 160) * 2 * Math.PI;
      const [x, y] = [Math.cos(angle), Math.sin(angle)].map((turn) => Math.sign(turn) * Math.abs(turn) ** (2 / frame.roundness));
      // room for the nose
      const right = half * x * (1 - (frame.taper * (y + 1)) / 2) + rim * x - nasal * 0.12 * half * Math.max(y, 0) * Math.max(nasal * x, 0);
      return this.at(side, [right, (frame.height / 2) * y + rim * y * (y < 0 ? frame.brow : 1)]);
    });
  }

  // The arch between both lenses.
  bridge(frame) {
    const ends = [1, -1].map((nasal, side) => this.at(side, [nasal * 0.485 * frame.width * this.widths[side], -0.16 * frame.height]));
    const arch = Array.from({ length: 24 }, (_, index) => {
      const step = index / 23;
      return add(add(ends[0], add(ends[1], ends[0], -1), step), this.across, -7.2 * this.unit * step * (1 - step));
    });
    const half = 0.55 * Math.max(frame.rim, 1.6) * this.unit;
    return [...arch.map((place) => add(place, this.across, -half)), ...arch.map((place) => add(place, this.across, half)).reverse()];
  }

  // The arm at one side, as it is seen from before: to the ear, getting thinner.
  arm(frame, side) {
    const [hinge, height] = [(frame.width / 2) * this.widths[side] + 0.4 * frame.rim, -0.22 * frame.height];
    const [thick, thin] = [0.95 * Math.max(frame.rim, 1.6), 0.5 * Math.max(frame.rim, 1.4)];
    const upper = [[hinge - frame.rim, height - thick], [hinge, height - thick], [hinge + 16, height + 0.5 - thin]];
    const lower = [[hinge + 16, height + 0.5 + thin], [hinge, height + thick], [hinge - frame.rim, height + thick]];
    return [...upper, ...lower].map(([right, down]) => this.at(side, [side ? right : -right, down]));
  }
}
