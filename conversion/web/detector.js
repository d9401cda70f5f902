// Faces and their five landmarks with YuNet, as detection.py finds them in upright photos.
import { apply, compose, halfToEven, inverse, picture, planes, reduce, resize, similarity, translation, warp } from "./pictures.js";

const STRIDES = [8, 16, 32];
const OVERLAP = 0.3; // boxes that share more of their union show one face

export class Detector {
  // run(name, inputs) runs a network; settings are `detector` of page.json.
  constructor(run, settings) {
    Object.assign(this, { run, ...settings });
  }

  // Faces, the largest first: { box: [x0, y0, x1, y1], landmarks: [5][2] } in pixels of the photo.
  async detect(photo) {
    const longest = Math.max(photo.width, photo.height);
    const sides = [...new Set([Math.min(this.firstSide, Math.max(this.smallSide, longest)), this.smallSide])];
    let found = [];
    for (const side of sides) if (!found.length) found = await this.look(photo, side / longest);
    const faces = [];
    for (const { box, landmarks } of found) {
      const refined = await this.refine(photo, landmarks);
      if (this.misfit(refined) <= this.largestMisfit) faces.push({ box: clip(box, photo), landmarks: refined });
    }
    const area = ({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0);
    return faces.sort((one, other) => area(other) - area(one));
  }

  cropMatrix(landmarks, size) {
    return similarity(landmarks, this.cropLandmarks.map(([x, y]) => [(x * size) / this.cropSize, (y * size) / this.cropSize]));
  }

  misfit(landmarks) {
    const matrix = this.cropMatrix(landmarks, this.cropSize);
    const squares = landmarks.map((point, index) => {
      const [x, y] = apply(matrix, point);
      return (x - this.cropLandmarks[index][0]) ** 2 + (y - this.cropLandmarks[index][1]) ** 2;
    });
    return Math.sqrt(squares.reduce((sum, value) => sum + value, 0) / landmarks.length);
  }

  async look(photo, scale) {
    const [width, height] = [photo.width, photo.height].map((length) => Math.max(1, halfToEven(length * scale)));
    // as Pillow with a reducing_gap of 2
    const [across, down] = [photo.width / width, photo.height / height].map((ratio) => Math.max(1, Math.floor(ratio / 2)));
    const seen = resize(reduce(photo, across, down), width, height);
    const [byX, byY] = [photo.width / width, photo.height / height];
    return (await this.find(seen)).map(({ box, landmarks, score }) => ({
      score,
      box: [box[0] * byX, box[1] * byY, box[2] * byX, box[3] * byY],
      landmarks: landmarks.map(([x, y]) => [x * byX, y * byY]),
    }));
  }

  // Better landmarks from aligned close-ups and their mirror images.
  async refine(photo, landmarks) {
    const margin = (this.closeUpSide - this.closeUpCrop) / 2;
    for (let look = 0; look < this.closeUpLooks; look++) {
      const matrix = compose(this.cropMatrix(landmarks, this.closeUpCrop), translation(margin, margin));
      const square = warp(photo, matrix, this.closeUpSide, this.closeUpSide);
      const direct = await this.central(square);
      const other = await this.central(mirrored(square));
      if (!direct || !other) break;
      const back = inverse(matrix);
      landmarks = direct.map(([x, y], index) => {
        const [otherX, otherY] = other[this.mirroredOrder[index]];
        const [biasX, biasY] = this.landmarkBias[index].map((value) => (value * this.closeUpCrop) / this.cropSize);
        return apply(back, [(x + this.closeUpSide - otherX) / 2 - biasX, (y + otherY) / 2 - biasY]);
      });
    }
    return landmarks;
  }

  async central(square) {
    const away = ({ box: [x, y, width, height] }) =>
      Math.max(Math.abs(x + width / 2 - square.width / 2), Math.abs(y + height / 2 - square.width / 2));
    const found = await this.find(square);
    return found.sort((one, other) => away(one) - away(other))[0]?.landmarks;
  }

  // { box: [x, y, width, height], landmarks, score } of one picture, the most certain first.
  async find(image) {
    const [width, height] = [image.width, image.height].map((length) => Math.ceil(length / 32) * 32);
    const padded = picture(width, height, 3);
    for (let row = 0; row < image.height; row++)
      for (let column = 0; column < image.width; column++)
        for (let channel = 0; channel < 3; channel++)
          padded.data[(row * width + column) * 3 + channel] = image.data[(row * image.width + column) * image.channels + channel];
    const input = planes(padded, 1, 0, [2, 1, 0]); // blue, green, red
    const outputs = await this.run("face_detector", { input: ["float32", input, [1, 3, height, width]] });
    const faces = [];
    for (const stride of STRIDES) {
      const [classes, objects, boxes, points] = ["cls", "obj", "bbox", "kps"].map((name) => outputs[`${name}_${stride}`].data);
      const columns = width / stride;
      for (let place = 0; place < classes.length; place++) {
        const [sure, there] = [classes[place], objects[place]].map((value) => Math.min(Math.max(value, 0), 1));
        const score = Math.sqrt(sure * there);
        if (score < this.scoreThreshold) continue;
        const [column, row] = [place % columns, Math.floor(place / columns)];
        const [x, y, w, h] = boxes.subarray(place * 4, place * 4 + 4);
        const [boxWidth, boxHeight] = [Math.exp(w) * stride, Math.exp(h) * stride];
        faces.push({
          score,
          box: [(column + x) * stride - boxWidth / 2, (row + y) * stride - boxHeight / 2, boxWidth, boxHeight],
          landmarks: Array.from({ length: 5 }, (_, index) => [
            (points[place * 10 + 2 * index] + column) * stride, (points[place * 10 + 2 * index + 1] + row) * stride,
          ]),
        });
      }
    }
    return distinct(faces);
  }
}

function distinct(faces) {
  const kept = [];
  for (const face of faces.sort((one, other) => other.score - one.score))
    if (!kept.some((other) => shared(face.box, other.box) > OVERLAP)) kept.push(face);
  return kept;
}

function shared(one, other) {
  const [a, b] = [one, other].map((box) => box.map(Math.trunc)); // as OpenCV compares them
  const across = Math.min(a[0] + a[2], b[0] + b[2]) - Math.max(a[0], b[0]);
  const down = Math.min(a[1] + a[3], b[1] + b[3]) - Math.max(a[1], b[1]);
  const both = Math.max(0, across) * Math.max(0, down);
  return both / (a[2] * a[3] + b[2] * b[3] - both);
}

function mirrored(image) {
  const result = { ...image, data: new Float32Array(image.data.length) };
  const { width, channels } = image;
  for (let place = 0; place < image.data.length; place++) {
    const [pixel, channel] = [Math.floor(place / channels), place % channels];
    const [row, column] = [Math.floor(pixel / width), pixel % width];
    result.data[(row * width + width - 1 - column) * channels + channel] = image.data[place];
  }
  return result;
}

function clip([x, y, width, height], photo) {
  const within = (value, most) => Math.min(Math.max(value, 0), most);
  return [within(x, photo.width), within(y, photo.height), within(x + width, photo.width), within(y + height, photo.height)];
}
