// The page's own random numbers: each is a hash of the seed, of how often noise was drawn before, and of its place.
// So a number depends on nothing else, and other programs can make the same ones (all arithmetic is modulo 2^32):
//
//   hash(x): x ^= x >> 16; x *= 0x7feb352d; x ^= x >> 15; x *= 0x846ca68b; x ^= x >> 16   ("lowbias32", C. Wellons)
//   key(seed, draw) = hash(hash(seed) + draw)
//   uniform(key, index) = ((hash(hash(index + key) ^ key) >> 9) + 0.5) / 2^23               in (0, 1), exact in float32

export function hash(x) {
  x ^= x >>> 16;
  x = Math.imul(x, 0x7feb352d);
  x ^= x >>> 15;
  x = Math.imul(x, 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

export class Noise {
  constructor(seed) {
    this.seed = seed >>> 0;
    this.draws = 0;
  }

  // The next array of standard Gumbel noise, as a function of the place in it.
  gumbel() {
    const key = hash((hash(this.seed) + this.draws++) >>> 0);
    return (index) => {
      const uniform = ((hash(hash((index + key) >>> 0) ^ key) >>> 9) + 0.5) / 8388608;
      return Math.fround(-Math.log(Math.fround(-Math.fround(Math.log(uniform)))));
    };
  }
}

// Numbers one after the other, for what is left to chance when something is laid over a photo.
export class Chance {
  constructor(seed) {
    this.key = hash(seed >>> 0);
    this.count = 0;
  }

  uniform(low = 0, high = 1) {
    const share = ((hash(hash((this.count++ + this.key) >>> 0) ^ this.key) >>> 9) + 0.5) / 8388608;
    return low + share * (high - low);
  }

  normal(deviation = 1) {
    const length = Math.sqrt(-2 * Math.log(this.uniform()));
    return deviation * length * Math.cos(2 * Math.PI * this.uniform());
  }

  // A whole number below `count`.
  integer(count) {
    return Math.floor(this.uniform(0, count));
  }
}
