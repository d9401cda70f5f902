// What is laid over a photo and not drawn: a `Transfer` of the package, by its kind. fits(transfer, face) tells whether a
// face shows what it takes, layers(transfer, face) gives what `paste` lays. A face is { parsing, frame: the photo's pixels
// where the parser's masks are, constants: the package's numbers by module, space: of colours }.
import * as colour from "./colour.js";
import { picture, warp } from "./pictures.js";
import * as warping from "./warping.js";

export const TRANSFERS = { PartColour: colour, Warp: warping };

// The photo's pixels in 0…1 where the parser's masks are.
export function framed(image, { matrix, total }) {
  const { data, channels } = warp(image, matrix, total, total);
  return picture(total, total, 3, Float32Array.from({ length: 3 * total ** 2 }, (_, index) =>
    data[Math.floor(index / 3) * channels + (index % 3)] / 255));
}
