/** A pseudo-random permutation of [0, size) that needs no table: a Feistel network (Luby and Rackoff 1988) on the next even
 * number of bits, walked until it lands inside (Black and Rogaway 2002, "cycle walking"; fewer than 4 steps on average).
 * The same (size, seed, epoch) gives the same permutation on every machine. */
const ROUNDS = 6;

/** The finalizer of MurmurHash3: every input bit changes half of the output bits. */
function mix(value: number): number {
  let h = value >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

export class Permutation {
  readonly #half: number;
  readonly #keys: number[] = [];

  /** All three are non-negative safe integers, `size` from 1 to 2^50. */
  constructor(
    readonly size: number,
    seed: number,
    epoch: number,
  ) {
    let bits = 0;
    while (4 ** bits < size) bits++;
    this.#half = 2 ** bits;
    let key = 0x9e3779b9;
    for (const word of [seed, Math.floor(seed / 2 ** 32), epoch, Math.floor(epoch / 2 ** 32)])
      key = mix(key ^ (word >>> 0)) + 0x9e3779b9;
    for (let round = 0; round < ROUNDS; round++) this.#keys.push(mix(key + Math.imul(round, 0x9e3779b9)));
  }

  /** Where `index` goes; both in [0, size). */
  at(index: number): number {
    let value = index;
    do value = this.#network(value);
    while (value >= this.size);
    return value;
  }

  #network(value: number): number {
    let left = Math.floor(value / this.#half);
    let right = value % this.#half;
    for (const key of this.#keys) {
      const next = (left ^ mix(right ^ key)) & (this.#half - 1);
      left = right;
      right = next;
    }
    return left * this.#half + right;
  }
}
