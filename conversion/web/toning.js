// Photos without colours, black and white or toned, stay as they are toned, as blending.py has it.
import { interpolate } from "./canvas.js";
import { reduce } from "./pictures.js";

const luma = (data, start, shares) => shares[0] * data[start] + shares[1] * data[start + 1] + shares[2] * data[start + 2];

// What red, green and blue of a photo, a picture of bytes, have more or less than the luma, by luma; null of a photo
// with colours.
export function findToning(photo, { LUMA, _BINS, _MOST_STRAY, _SIDE }) {
  const factor = Math.max(1, Math.floor(Math.max(photo.width, photo.height) / _SIDE));
  const { data, channels } = reduce(photo, factor, factor);
  const pixels = Array.from({ length: data.length / channels }, (_, place) => {
    const light = luma(data, place * channels, LUMA);
    return { light, offsets: [0, 1, 2].map((channel) => data[place * channels + channel] - light) };
  });
  const bins = Array.from({ length: _BINS }, () => ({ count: 0, sums: [0, 0, 0] }));
  for (const { light, offsets } of pixels) {
    const bin = bins[Math.min(Math.floor((light * _BINS) / 256), _BINS - 1)];
    bin.count++;
    offsets.forEach((value, channel) => (bin.sums[channel] += value));
  }
  const seen = bins.map((bin, index) => ({ ...bin, centre: ((index + 0.5) * 256) / _BINS })).filter(({ count }) => count);
  const centres = seen.map(({ centre }) => centre);
  let table = [0, 1, 2].map((channel) => {
    const means = seen.map(({ count, sums }) => sums[channel] / count);
    return Float32Array.from({ length: 256 }, (_, light) => interpolate(light, centres, means));
  });
  // or a grey value between two whole ones would be rounded otherwise in one channel than in another
  if (table.every((line) => line.every((value) => Math.abs(value) < 0.5))) table = table.map((line) => line.fill(0));
  let [sum, total] = [0, 0];
  for (const { light, offsets } of pixels) {
    // black and white have no room for colour: they say little
    const room = Math.min(light, 255 - light) + 1;
    const stray = Math.max(...offsets.map((value, channel) => Math.abs(value - lookUp(table[channel], light))));
    [sum, total] = [sum + room * stray ** 2, total + room];
  }
  return Math.sqrt(sum / total) <= _MOST_STRAY ? table : null;
}

// Gives an edit of a toned photo, in place, the photo's own colours for its change of brightness; both are RGBA bytes.
export function keepToning(before, after, toning, { LUMA }) {
  for (let start = 0; start < after.length; start += 4) {
    if ([0, 1, 2].every((channel) => before[start + channel] === after[start + channel])) continue;
    const [was, becomes] = [before, after].map((data) => luma(data, start, LUMA));
    for (let channel = 0; channel < 3; channel++) {
      const [from, to] = [was, becomes].map((light) => light + lookUp(toning[channel], light));
      after[start + channel] = Math.round(before[start + channel] + to - from);
    }
  }
}

// What a table of 256 has at a luma between its entries.
function lookUp(line, light) {
  const below = Math.min(Math.max(Math.floor(light), 0), 254);
  return line[below] + (light - below) * (line[below + 1] - line[below]);
}
