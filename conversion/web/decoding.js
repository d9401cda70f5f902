// Decoding of masked cells by confidence (MaskGIT), as decoding.py has it: certain cells first, more with each step.

export const MASKED = -1;

// codes: numbers, `MASKED` where a cell is to be drawn. predict(codes, positions) gives the logits of the cells at
// `positions`, one row after the other. Gives all codes; those that were known stay as they were.
export async function fillMasked(codes, predict, { steps, temperature, confidenceTemperature }, noise, onStep = () => {}) {
  const drawn = [...codes];
  let masked = places(codes);
  const total = masked.length;
  for (let step = 0; step < steps && masked.length; step++) {
    const logits = await predict(codes.map((code, cell) => (masked.includes(cell) ? MASKED : drawn[cell])), masked);
    const size = logits.length / masked.length;
    const forCodes = noise.gumbel();
    const forConfidence = noise.gumbel();
    const spread = confidenceTemperature * (1 - (step + 1) / steps);
    const confidence = masked.map((cell, row) => {
      const ofCell = logits.subarray(row * size, (row + 1) * size);
      const best = sample(ofCell, temperature, (code) => forCodes(cell * size + code));
      drawn[cell] = best;
      return { cell, value: logProbability(ofCell, best) + spread * forConfidence(cell) };
    });
    const left = Math.min(maskedAfter(step, steps, total), masked.length);
    confidence.sort((one, other) => one.value - other.value);
    masked = confidence.slice(0, left).map(({ cell }) => cell).sort((one, other) => one - other);
    onStep(step);
  }
  return drawn;
}

function places(codes) {
  return codes.map((code, cell) => (code < 0 ? cell : -1)).filter((cell) => cell >= 0);
}

function maskedAfter(step, steps, total) {
  if (step + 1 === steps) return 0;
  const share = Math.cos((Math.PI / 2) * (step + 1) / steps);
  return Math.min(Math.floor(total * share), Math.max(0, total - step - 1));
}

function sample(logits, temperature, gumbel) {
  let best = 0;
  let most = -Infinity;
  for (let code = 0; code < logits.length; code++) {
    const value = Math.fround(logits[code] + Math.fround(temperature * gumbel(code)));
    if (value > most) [best, most] = [code, value];
  }
  return best;
}

function logProbability(logits, code) {
  const most = logits.reduce((one, other) => Math.max(one, other), -Infinity);
  return logits[code] - most - Math.log(logits.reduce((sum, value) => sum + Math.exp(value - most), 0));
}

// Guidance by matching, one step: the logits [rows, size] less the gradient of the loss, both in standard deviations.
export function guided(logits, gradient, rows, { stepSize, gradientPower, fusion }) {
  const size = logits.length / rows;
  const norm = Math.sqrt(gradient.reduce((sum, value) => sum + value * value, 0) / rows);
  const scale = Math.max(norm ** gradientPower, 1e-12);
  const result = new Float32Array(logits.length);
  for (let row = 0; row < rows; row++) {
    const ofCell = logits.subarray(row * size, (row + 1) * size);
    const mean = ofCell.reduce((sum, value) => sum + value, 0) / size;
    const deviation = Math.sqrt(ofCell.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (size - 1));
    for (let code = row * size; code < (row + 1) * size; code++)
      result[code] = logits[code] - fusion * stepSize * deviation * (gradient[code] / scale);
  }
  return result;
}
