// Expressions and shapes that move what a photo shows, as warping.py has them.
import { skinLayer } from "./ageing.js";
import { Canvas, blur, clip, smoothstep, solve } from "./canvas.js";
import { MouthCut } from "./mouth.js";
import { apply, compose, inBox, inverse, lanczos, picture, resize, scaleOf, scaling, translation } from "./pictures.js";
import { add, dot, mean } from "./points.js";

const CROP_SIZE = 128;

// Whether a face shows what a `Warp` needs.
export function fits({ moves, corners, smile, close, part, apart }, face) {
  if (!(corners || smile || close || part || apart)) return face.points.has(...Object.keys(moves));
  return face.points.has("corner") && face.lips !== null && wholeMouth(face);
}

// Whether the mouth that is seen of a face, if any, is all in the photo, not in profile and not behind a mask.
export function wholeMouth({ parsing, points, constants }) {
  const { warping: { MOST_TILTED }, signs: { FACE_MASK, SURELY } } = constants;
  if (parsing.worn(FACE_MASK, SURELY)) return false;
  if (!points.has("corner")) return true;
  const [left, right] = points.places.corner;
  const between = add(right, left, -1);
  const tilted = Math.abs(dot(between, points.across)) > MOST_TILTED * dot(between, points.along);
  return !tilted && parsing.shows(["corner", "lip_upper", "lip_lower"].flatMap((name) => points.places[name]));
}

// The face, moved.
export function layers(move, face) {
  const { parsing, points, lips, constants: { warping } } = face;
  const { FINENESS, LEAST, SEEN } = warping;
  const grid = new Canvas(parsing, FINENESS, warping);
  let [close, part] = [move.close, move.part * points.unit];
  if (!lips) [close, part] = [0, 0];
  else if (move.apart) {
    const [upper, lower] = lips.edges((lips.ends[0] + lips.ends[1]) / 2);
    [close, part] = [0, Math.max(0, move.apart * points.unit - (lower - upper))];
  }
  const free = freedom(grid, warping);
  const speed = field(move, points, lips, part, grid, warping);
  speed.data.forEach((value, index) => (speed.data[index] = value * free.data[index >> 1]));
  const movement = flow(speed, warping);
  let cut = null;
  if (lips && (close || part))
    cut = new MouthCut(close, part, move.teeth * points.unit, face);
  const weight = grid.fill((x, y, place) => {
    const [across, down] = movement.data.subarray(2 * place, 2 * place + 2);
    const moving = Math.hypot(across, down);
    return smoothstep(cut ? Math.max(moving, cut.movement(x + across, y + down)) : moving, LEAST, SEEN);
  });
  return [...folds(move, grid, face), movedLayer(movement, weight, grid, cut)];
}

// How all of the grid moves, [across, down] in pixels of the 128-pixel crop, so that the points do, after the lips
// closed by a share of the way to each other, or parted by `part` pixels.
function field(move, points, lips, part, grid, constants) {
  const { BESIDE, MEET, ON_LIPS, REACH, SLACK } = constants;
  const { places, along, across, unit } = points;
  let [corners, middle] = [[[0, 0], [0, 0]], 0];
  let [sunk, thinner] = [[[0, 0], [0, 0], [0, 0]], [0, 0]];
  const [at, shifts] = [[], []];
  // how far (outwards, down) the line of the lips goes there
  const follow = (side, squared) =>
    [corners[side][0] * Math.sqrt(squared), corners[side][1] * squared + (1 - squared) * middle];
  // a place that moves so far (outwards, down), where `outwards` is -1 to the left and 1 to the right
  const push = (place, outwards, [out, down]) => {
    at.push(place);
    shifts.push([0, 1].map((axis) => unit * (outwards * out * along[axis] + down * across[axis])));
  };
  if (lips) {
    thinner = lips.thickness.map((thick, edge) => (move.thin * thick * (edge ? -1 : 1)) / unit);
    if (move.corners) ({ corners, middle } = resting(move, points, lips, constants));
    else if (move.smile) ({ corners, middle } = smiling(move, points, lips, constants));
    const columns = [1 / 4, 1 / 2, 3 / 4].map((share) => lips.ends[0] + share * (lips.ends[1] - lips.ends[0]));
    const edges = columns.map((column) => lips.edges(column).slice(0, 2));
    sunk = edges.map(([upper, lower], index) => {
      const closed = move.close * (lower - upper);
      return [closed * MEET, closed * (MEET - 1) + part * (index === 1 ? 1 : BESIDE)];
    });
    for (const edge of [0, 1])
      columns.forEach((column, index) =>
        push([column, edges[index][edge] + sunk[index][edge]], index - 1, follow(index >> 1, (index - 1) ** 2 / 4)));
  }
  for (const [name, pair] of Object.entries(places)) {
    const inTheMiddle = pair[0].every((value, axis) => Math.abs(value - pair[1][axis]) <= 1e-8 + 1e-5 * Math.abs(pair[1][axis]));
    (inTheMiddle ? pair.slice(0, 1) : pair).forEach((place, side) => {
      let shift = move.moves[name] ?? [0, 0];
      if (name in ON_LIPS) {
        const [squared, edges] = ON_LIPS[name];
        shift = add(shift, follow(side, squared));
        if (edges.length) {
          shift = add(shift, [0, mean(edges.map((edge) => thinner[edge]))]);
          place = add(place, across, mean(edges.map((edge) => sunk[inTheMiddle ? 1 : 2 * side][edge])));
        }
      }
      push(place, inTheMiddle ? 0 : side ? 1 : -1, shift);
    });
  }
  return spread(at, shifts, REACH * unit, SLACK, grid);
}

// A smooth movement of a grid by which places are shifted about so far.
function spread(places, shifts, reach, slack, grid) {
  const bell = (distance) => Math.exp(-((distance / reach) ** 2) / 2);
  const near = places.map((one, row) =>
    places.map((other, column) => bell(Math.hypot(...add(one, other, -1))) + (row === column) * slack));
  const heights = solve(near, shifts);
  const bells = [0, 1].map((axis) =>
    places.map((place) => Float64Array.from({ length: grid.size }, (_, index) => bell(grid.place(index) - place[axis]))));
  const result = picture(grid.size, grid.size, 2);
  heights.forEach(([right, down], point) => {
    for (let row = 0, index = 0; row < grid.size; row++)
      for (let column = 0; column < grid.size; column++) {
        const share = bells[0][point][column] * bells[1][point][row];
        result.data[index++] += share * right;
        result.data[index++] += share * down;
      }
  });
  return result;
}

// How far below the middle of the lips, at a share of the way from the upper one to the lower one, their corners are,
// in distances of the eyes.
function heights(points, lips, share) {
  const middle = (lips.ends[0] + lips.ends[1]) / 2;
  const [upper, lower] = lips.edges(middle);
  const line = [middle, upper + share * (lower - upper)];
  return points.places.corner.map((corner) => dot(add(corner, line, -1), points.across) / points.unit);
}

// How far both corners of the mouth go (outwards, down) to be no wider and no higher than they are at rest, and how far
// the middle of the lips goes down.
function resting({ corners, close }, points, lips, { MEET, NARROWER, WITH_CORNERS }) {
  const out = clip(corners[0] - points.mouth[0], -NARROWER, 0);
  const down = heights(points, lips, close ? MEET : 0.5).map((height) => Math.max(0, corners[1] - height));
  const middle = WITH_CORNERS * mean(down);
  return { corners: points.sides.map((side, index) => [out * side, middle + down[index]]), middle };
}

// How far both corners of the mouth go (outwards, down) to smile, and how far the middle of the lips goes down.
function smiling({ close, smile, thin }, points, lips, constants) {
  const { CLOSED_SAG, INTO_THE_SKIN, LEAST_SMILE, MEET, MOST_SMILE, SAG } = constants;
  const { places, across, unit } = points;
  const height = mean(heights(points, lips, MEET * close));
  const [out, up] = [smile[0] - points.mouth[0], smile[1] + height].map((value, axis) =>
    clip(value, LEAST_SMILE[axis], MOST_SMILE[axis]));
  let rise = up - height - (close ? CLOSED_SAG : SAG);
  if (points.has("nose_base")) {
    const skin = dot(add(places.lip_upper[0], places.nose_base[0], -1), across);
    rise = Math.min(rise, (INTO_THE_SKIN * skin + thin * lips.thickness[0]) / unit);
  }
  return { corners: points.sides.map((side) => [out * side, -up]), middle: -Math.max(0, rise) };
}

// How freely each place of the grid moves: not beside what is no face, nor at the edge of the crop.
function freedom(grid, { EDGE_FADE, FADE, FRAMES_FADE, STILL }) {
  const still = grid.blur(grid.mask(STILL), FADE).data;
  const frames = grid.blur(grid.mask("eyeglasses"), FRAMES_FADE).data;
  return grid.fill((x, y, place) => {
    const inside = Math.min(x, CROP_SIZE - x, y, CROP_SIZE - y);
    return smoothstep(1 - still[place], 0.3, 1) * (1 - smoothstep(frames[place], 0.02, 0.2)) * smoothstep(inside, 0, EDGE_FADE);
  });
}

// Where what is seen after a movement of this speed comes from, less its own place: a map without folds.
function flow(speed, { FINENESS, STEPS }) {
  const { width: size, data } = speed;
  const result = picture(size, size, 2);
  for (let row = 0, index = 0; row < size; row++)
    for (let column = 0; column < size; column++, index += 2) {
      let [x, y] = [column, row];
      for (let step = 0; step < STEPS; step++) {
        const [left, top] = [Math.floor(x), Math.floor(y)];
        const [across, down] = [x - left, y - top];
        let [right, below] = [0, 0];
        for (let corner = 0; corner < 4; corner++) {
          const [i, j] = [left + (corner & 1), top + (corner >> 1)];
          if (i < 0 || j < 0 || i >= size || j >= size) continue;
          const share = (corner & 1 ? across : 1 - across) * (corner >> 1 ? down : 1 - down);
          right += share * data[2 * (j * size + i)];
          below += share * data[2 * (j * size + i) + 1];
        }
        x -= (right * FINENESS) / STEPS;
        y -= (below * FINENESS) / STEPS;
      }
      result.data[index] = (x - column) / FINENESS;
      result.data[index + 1] = (y - row) / FINENESS;
    }
  return result;
}

// Skin beside the mouth with weaker or deeper folds.
function folds(move, grid, face) {
  const { parsing, points, constants: { warping } } = face;
  if (!(move.smooth || move.fold) || !points.has("corner", "nose_side")) return [];
  const { DEEPER, EVEN, FOLD_HEIGHT, FOLD_OUT, FOLD_WIDTH } = warping;
  const size = parsing.total;
  const skin = parsing.mask("facial_skin").data;
  const away = blur(parsing.mask(["whole_mouth", "nose", "eyes", "hair"]), 2).data;
  const middles = points.places.corner.map((corner, side) => {
    const beside = add(corner, points.along, (side ? 1 : -1) * FOLD_OUT * points.unit);
    return [beside[0], (beside[1] + points.places.nose_side[side][1]) / 2];
  });
  const place = (index) => (index + 0.5 - size / 2) / parsing.unit + CROP_SIZE / 2;
  const weight = picture(size, size);
  for (let row = 0, index = 0; row < size; row++)
    for (let column = 0; column < size; column++, index++) {
      const around = middles.map(([x, y]) => {
        const [across, down] = [(place(column) - x) / FOLD_WIDTH, (place(row) - y) / FOLD_HEIGHT];
        return Math.exp(-(((across ** 2 + down ** 2) / points.unit ** 2) ** 2));
      });
      weight.data[index] = Math.max(move.smooth, move.fold) * Math.max(...around) * clip(skin[index] - away[index], 0, 1);
    }
  if (move.smooth) return [skinLayer(EVEN, weight, face)];
  const toLines = compose(inverse(parsing.matrix), grid.matrix);
  return [skinLayer(DEEPER, weight, face, foldLines(points, grid, warping), toLines)];
}

// What folds from the nose to beside the mouth, and cheeks that rise above them, add to the lightness.
function foldLines(points, grid, { CHEEK_OUT, CHEEK_WIDE, FOLD_BRIGHT, FOLD_DARK, FOLD_LINE }) {
  const { places, along, across, unit } = points;
  const lines = picture(grid.size, grid.size);
  [-1, 1].forEach((outwards, side) => {
    const wide = along.map((value) => outwards * points.sides[side] * unit * value);
    const start = add(add(places.nose_side[side], across, -0.05 * unit), wide, 0.03);
    const end = add(add(places.corner[side], wide, 0.13), across, 0.02 * unit);
    const bend = add(add([(start[0] + end[0]) / 2, (start[1] + end[1]) / 2], wide, 0.06), across, -0.02 * unit);
    const path = Array.from({ length: 24 }, (_, index) => {
      const step = index / 23;
      return [0, 1].map((axis) => (1 - step) ** 2 * start[axis] + 2 * step * (1 - step) * bend[axis] + step ** 2 * end[axis]);
    });
    for (const [away, height, width] of [[0, -FOLD_DARK, FOLD_LINE], [CHEEK_OUT, FOLD_BRIGHT, CHEEK_WIDE]]) {
      const line = path.map((place) => add(add(place, wide, away), across, (-away / 2) * unit));
      const [low, high] = [Math.min, Math.max].map((of, end) =>
        [0, 1].map((axis) => of(...line.map((place) => place[axis])) + (end ? 3 : -3) * width * unit));
      const near = (axis) => Array.from({ length: grid.size }, (_, index) => index)
        .filter((index) => grid.place(index) > low[axis] && grid.place(index) < high[axis]);
      const columns = near(0);
      for (const row of near(1))
        for (const column of columns) {
          const [x, y] = [grid.place(column), grid.place(row)];
          const distances = line.map((place) => Math.hypot(x - place[0], y - place[1]));
          const nearest = Math.min(...distances);
          const fade = Math.sin(Math.PI * (0.1 + (0.85 * distances.indexOf(nearest)) / 23));
          lines.data[row * grid.size + column] += height * fade * Math.exp(-((nearest / (width * unit)) ** 2) / 2);
        }
    }
  });
  return lines;
}

// The photo's own pixels in another place. movement: where each pixel of a grid is taken from, less its own place;
// weight: 0 where nothing moves; cut: what the lips do before that.
function movedLayer(movement, weight, grid, cut) {
  const { matrix, scale, beyond } = grid;
  const toCrop = compose(matrix, [1 / scale, 0, -beyond, 0, 1 / scale, -beyond]);
  const pixel = scaleOf(toCrop); // edges are as soft as one
  const change = (base, box, alpha) => {
    const moved = inBox(movement, matrix, box);
    // from its own pixels the photo would lose more of its grain
    const finer = resize(base, 2 * base.width, 2 * base.height, { filter: lanczos });
    const toFiner = compose(compose(inverse(toCrop), translation(-box[0], -box[1])), scaling(2));
    const shown = (x, y) => sample(finer, ...apply(toFiner, [x, y]));
    const result = new Float32Array(base.data.length);
    for (let place = 0; place < alpha.length; place++) {
      if (!alpha[place]) continue;
      const own = [box[0] + (place % base.width) + 0.5, box[1] + Math.floor(place / base.width) + 0.5];
      const [x, y] = add(apply(toCrop, own), moved.data.subarray(2 * place, 2 * place + 2));
      const parts = [];
      if (cut) {
        const [above, below, end, start] = cut.rows(x, y);
        const upper = clip(0.5 + (end - y) / pixel, 0, 1);
        const between = cut.part ? Math.max(1 - upper - clip(0.5 + (y - start) / pixel, 0, 1), 0) : 0;
        if (upper) parts.push([upper, shown(x, above)]);
        if (upper + between < 1) parts.push([1 - upper - between, shown(x, below)]);
        if (between) parts.push([between, cut.inside(x, y, end, start, pixel)]);
      } else parts.push([1, shown(x, y)]);
      for (let channel = 0; channel < 3; channel++) {
        const after = parts.reduce((sum, [share, colour]) => sum + share * colour[channel], 0);
        result[3 * place + channel] = after - base.data[3 * place + channel];
      }
    }
    return result;
  };
  return { weight, matrix, change };
}

// A picture of 0…1 at a place of it, as torch's grid_sample has it (bicubic, a = −0.75); its edge is repeated.
function sample({ width, height, data }, x, y) {
  [x, y] = [x - 0.5, y - 0.5];
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [across, down] = [cubic(x - left), cubic(y - top)];
  const colour = [0, 0, 0];
  for (let j = 0; j < 4; j++) {
    const row = clip(top + j - 1, 0, height - 1) * width;
    for (let i = 0; i < 4; i++) {
      const start = 3 * (row + clip(left + i - 1, 0, width - 1));
      const share = across[i] * down[j];
      for (let channel = 0; channel < 3; channel++) colour[channel] += share * data[start + channel];
    }
  }
  return colour.map((value) => clip(value, 0, 1));
}

// Shares of the four neighbours of a place so far behind the second.
function cubic(t) {
  const a = -0.75;
  const near = (x) => ((a + 2) * x - (a + 3)) * x * x + 1;
  const far = (x) => ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return [far(t + 1), near(t), near(1 - t), far(2 - t)];
}
