// What is laid over a photo and not drawn: a `Transfer` of the package, by its kind. fits(transfer, face) tells whether a
// face shows what it takes, layers(transfer, face) gives what `paste` lays.
import * as ageing from "./ageing.js";
import * as colour from "./colour.js";
import * as eyewear from "./eyewear.js";
import { picture, warp } from "./pictures.js";
import { FacePoints, Lips } from "./points.js";
import * as warping from "./warping.js";

export const TRANSFERS = { Ageing: ageing, Eyewear: eyewear, PartColour: colour, Warp: warping };

// What transfers must know of a face in a photo. constants: the package's numbers, by module; more: `space` of colours,
// the `chance` that what is left to it comes from, and the `toning` of a photo without colours, else null.
export function faceOf(image, parsing, constants, more) {
  const { matrix, total } = parsing;
  const { data, channels } = warp(image, matrix, total, total);
  const frame = picture(total, total, 3); // the photo's pixels in 0…1 where the parser's masks are
  for (let index = 0; index < frame.data.length; index++)
    frame.data[index] = data[Math.floor(index / 3) * channels + (index % 3)] / 255;
  const [points, lips] = [new FacePoints(parsing, constants.face_points), Lips.of(parsing, constants.face_points)];
  return { parsing, frame, constants, points, lips, ...more };
}
