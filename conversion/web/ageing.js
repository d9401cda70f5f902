// Skin with other lines and folds, as ageing.py has it.
import { clip, weightedBlur } from "./canvas.js";
import { compose, inBox, picture, scaleOf } from "./pictures.js";

// ageing: what is done to skin; weight: how much of each pixel of the parser's frame is skin;
// lines: the lightness that lines add in a frame of their own, which `toLines` leads to.
export function skinLayer(ageing, weight, { parsing, constants, space }, lines, toLines) {
  const { FORM, SCALES } = constants.ageing;
  const { matrix } = parsing;
  const change = (base, box, alpha) => {
    const { width, height } = base;
    const size = width * height;
    const colour = (place) => space.fromPixel(base.data.subarray(3 * place, 3 * place + 3));
    const skin = inBox(weight, matrix, box);
    skin.data = skin.data.map((value) => clip(value, 0, 1));
    const unit = parsing.unit / scaleOf(matrix);
    const light = picture(width, height, 1, Float32Array.from({ length: size }, (_, place) => colour(place)[0]));
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
    const result = new Float32Array(base.data.length);
    for (let place = 0; place < size; place++) {
      if (!alpha[place]) continue;
      const [lightness, ...hue] = colour(place);
      const after = space.toPixel([lightness + added[place], ...hue]);
      after.forEach((value, channel) => (result[3 * place + channel] = value - base.data[3 * place + channel]));
    }
    return result;
  };
  return { weight, matrix, change };
}
