// Lips that meet or part, and what is seen between those that part, as mouth.py has it. Lengths are in pixels of the
// 128-pixel crop.
import { blur, clip, interpolate, median, minimumFilter, smoothstep } from "./canvas.js";
import { picture } from "./pictures.js";

const CROP_SIZE = 128;

// The upper row of teeth.
class Teeth {
  // Those that a face would show, so much of them at most; null where it shows its own.
  static of(length, { parsing, frame, points, lips, space, constants: { mouth: constants } }) {
    const { BETWEEN_PUPILS, BY_SKIN, AND_MORE, MOST_ASIDE, OWN_DARKER, OWN_GAP, OWN_SHARE, SURELY } = constants;
    const seen = (names) => {
      const found = [];
      parsing.mask(names).data.forEach((value, place) => value > SURELY && found.push(space.fromPixel(frame.data.subarray(3 * place, 3 * place + 3))));
      return found;
    };
    const skin = seen("facial_skin");
    if (!skin.length) return null;
    const colour = BY_SKIN.map((factor, index) => factor * median(skin.map((each) => each[index])) + AND_MORE[index]);
    const [left, right] = lips.ends;
    const [upper, lower] = lips.edges((left + right) / 2);
    const own = seen("mouth");
    if (own.length && lower - upper > OWN_GAP * points.unit) {
      const lip = seen("lips");
      const red = (colour[1] + (lip.length ? median(lip.map((each) => each[1])) : Infinity)) / 2;
      const teeth = own.filter((each) => each[1] < red && each[0] > colour[0] - OWN_DARKER);
      if (teeth.length > OWN_SHARE * own.length) return null;
    }
    const middle = clip(points.sides[0] - 1, -MOST_ASIDE, MOST_ASIDE);
    const frontal = Array.from({ length: 201 }, (_, index) => index / 100 - 1);
    // the row is an arch, whose near half a turned head shows and whose far half it hides
    let most = -Infinity;
    const turned = frontal.map((place, index) => {
      most = Math.max(most, place + middle * Math.sqrt(Math.max(1 - place ** 2, 0)));
      return most + (index / 200) * 1e-6;
    });
    const millimetre = points.unit / BETWEEN_PUPILS;
    const ends = [0, ...constants.TEETH_END];
    return Object.assign(new Teeth(), {
      length, half: (right - left) / 2, millimetre, colour: space.toPixel(colour), frontal, turned, ends, constants,
    });
  }

  // Colours and how much of a pixel they cover at a place in [-1, 1] between the corners, so far below the upper lip,
  // where the lips are so far apart; `soft` is the width of an edge.
  seen(place, below, room, soft) {
    const { BELOW_TEETH, CHEEK_SHADOW, IN_THE_DARK, LINE, LINE_DEPTH, LIP_SHADOW, LIP_SHADOW_DEPTH } = this.constants;
    const { MOST_SHORTER, ROUND, SHORTER } = this.constants;
    const { ends, millimetre } = this;
    const aside = Math.abs((interpolate(place, this.turned, this.frontal) * this.half) / millimetre);
    let tooth = 0;
    while (tooth < ends.length - 2 && aside >= ends[tooth + 1]) tooth++;
    const across = (2 * (aside - ends[tooth])) / (ends[tooth + 1] - ends[tooth]) - 1;
    const shorter = SHORTER[tooth] + ROUND * Math.abs(across) ** 4;
    const length = Math.min(this.length, (1 - BELOW_TEETH) * room) - Math.min(millimetre * shorter, MOST_SHORTER * this.length);
    const line = Math.max(LINE, (0.5 * soft) / millimetre);
    const between = Math.min(Math.abs(aside - ends[tooth]), Math.abs(aside - ends[tooth + 1]));
    let light = 1 - LINE_DEPTH * (LINE / line) * Math.exp(-((between / line) ** 2));
    light *= 1 - (1 - IN_THE_DARK) * smoothstep(aside, ...CHEEK_SHADOW);
    light *= 1 - (1 - LIP_SHADOW) * Math.exp(-Math.max(below, 0) / (LIP_SHADOW_DEPTH * millimetre));
    const covered = smoothstep(length - below, -soft, soft) * (1 - smoothstep(aside, ends.at(-2), ends.at(-1)));
    return [this.colour.map((value) => light * value), covered];
  }
}

export class MouthCut {
  // close: share of the way to lips that meet; part: how far the lower one sinks; teeth: how much of them is seen at most.
  constructor(close, part, teeth, face) {
    const { parsing, frame, points, lips, constants: { mouth: constants } } = face;
    const { JAW, SURELY } = constants;
    const [, lower] = lips.edges((lips.ends[0] + lips.ends[1]) / 2);
    // the first row below the lips in which a column of the crop shows no face
    const shows = parsing.cropMask(["facial_skin", "whole_mouth"], CROP_SIZE);
    const start = Math.trunc(clip(lower, 0, CROP_SIZE - 1));
    const jaw = picture(CROP_SIZE, 1);
    for (let column = 0; column < CROP_SIZE; column++) {
      let row = start;
      while (row < CROP_SIZE && shows[row * CROP_SIZE + column] > SURELY) row++;
      jaw.data[column] = Math.min(row, CROP_SIZE - JAW);
    }
    this.jaw = blur(minimumFilter(jaw, 1), JAW).data.map((row) => row - JAW);
    this.columns = Array.from({ length: CROP_SIZE }, (_, index) => index + 0.5);
    const shown = parsing.mask("lips").data;
    const all = Math.max(shown.reduce((sum, value) => sum + value, 0), 1e-6);
    this.colour = [0, 1, 2].map((channel) => shown.reduce((sum, value, place) => sum + value * frame.data[3 * place + channel], 0) / all);
    this.nose = points.has("nose_base") ? points.places.nose_base[0][1] : 0;
    this.teeth = part && teeth ? Teeth.of(teeth, face) : null;
    Object.assign(this, { lips, close, part, constants });
  }

  // The rows that a pixel shows if it is of the upper part of the face, and of the lower one; the rows at which the
  // upper part ends there, and the lower one begins.
  rows(x, y) {
    const { CHIN, HEM, MEET, STRETCH } = this.constants;
    const { lips, close, part } = this;
    const [upper, lower, inside] = lips.edges(x);
    let [up, low] = [upper, lower];
    if (!this.teeth && part) up = lower; // teeth stay where they are
    else if (!this.teeth) {
      const hem = HEM * smoothstep(inside, 0, 0.3);
      [up, low] = [upper - hem, lower + hem];
    }
    const [above, below] = lips.thickness;
    let chin = interpolate(x, this.columns, this.jaw) - low - below;
    chin = Math.max(Math.min(chin, CHIN * (lips.ends[1] - lips.ends[0])), 1e-3);
    const seam = up + MEET * (low - up);
    const down = close * (seam - up);
    const sink = clip(close * (seam - low) + part * inside ** 0.75, -chin / STRETCH, chin / STRETCH);
    const fade = clip(Math.max(up - above - this.nose, STRETCH * down), 1, CROP_SIZE);
    const nearUp = 1 - smoothstep(up + down - above - y, 0, fade);
    // it ends where it began, however far the lip goes
    const nearLow = 1 - smoothstep(y - low - sink - below, 0, chin - sink);
    return [y - down * nearUp, y - sink * nearLow, up + down, low + sink];
  }

  // How far what a pixel shows has moved; between lips that part it is new.
  movement(x, y) {
    const [above, below, end, start] = this.rows(x, y);
    return y <= end ? Math.abs(above - y) : y >= start ? Math.abs(below - y) : 1;
  }

  // What is seen between lips that part.
  inside(x, y, end, start, soft) {
    const { DARKEST, TONGUE } = this.constants;
    const room = Math.max(start - end, 1e-3);
    const brightness = DARKEST + (TONGUE - DARKEST) * smoothstep(clip((y - end) / room, 0, 1), 0.3, 1.1);
    const pixel = this.colour.map((value) => brightness * value);
    if (!this.teeth) return pixel;
    const [left, right] = this.lips.ends;
    const [colours, covered] = this.teeth.seen((2 * (x - left)) / (right - left) - 1, y - end, room, soft);
    return pixel.map((value, channel) => value + covered * (colours[channel] - value));
  }
}
