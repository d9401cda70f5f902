// sRGB in [0, 1] and Oklab (lightness, green–red, blue–yellow), as part_colour.py has them.
import { solve } from "./canvas.js";

const IDENTITY = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
export const times = (matrix, vector) => matrix.map((row) => row[0] * vector[0] + row[1] * vector[1] + row[2] * vector[2]);

export class Oklab {
  constructor({ TO_CONES, TO_OKLAB }) {
    const [fromCones, fromOklab] = [TO_CONES, TO_OKLAB].map((matrix) => solve(matrix, IDENTITY));
    Object.assign(this, { toCones: TO_CONES, toOklab: TO_OKLAB, fromCones, fromOklab });
  }

  fromPixel(pixel) {
    return times(this.toOklab, times(this.toCones, Array.from(pixel, linear)).map(Math.cbrt));
  }

  toPixel(colour) {
    const light = times(this.fromCones, times(this.fromOklab, colour).map((value) => value ** 3));
    return light.map((value) => {
      const within = Math.min(Math.max(value, 0), 1);
      return within <= 0.0031308 ? within * 12.92 : 1.055 * within ** (1 / 2.4) - 0.055;
    });
  }
}

const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
