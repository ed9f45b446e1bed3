/** Learning byte-level BPE merges (Sennrich et al. 2016, arXiv 1508.07909, algorithm 1; bytes as in GPT-2): the most frequent
 * pair of neighbouring tokens inside words becomes a token, again and again. */

/** The words of GPT-2's pre-tokenizer, as the `ByteLevel` pre-tokenizer of `tokenizers` cuts them. \p{White_Space}
 * instead of \s, because JavaScript's \s counts U+FEFF and leaves out U+0085. */
const WORD =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** Runs without a word boundary are counted in pieces of this length: a merge costs the length of the words that it
 * touches, and nothing worth learning is that long. */
const MAX_WORD = 512;

/** Adds the words of a text to `counts`. */
export function countWords(text: string, counts: Map<string, number>): void {
  for (const [match] of text.matchAll(WORD)) {
    for (let start = 0; start < match.length; start += MAX_WORD) {
      const word = match.length > MAX_WORD ? match.slice(start, start + MAX_WORD) : match;
      const count = counts.get(word);
      // A key that is a slice would keep its whole text alive.
      if (count === undefined) counts.set(Buffer.from(word, 'utf16le').toString('utf16le'), 1);
      else counts.set(word, count + 1);
    }
  }
}

/** The 256 bytes as the printable characters that byte-level vocabularies spell them with (GPT-2's bytes_to_unicode):
 * printable Latin-1 stands for itself, the rest for U+0100 on. */
export const BYTE_CHARACTERS: readonly string[] = (() => {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCharCode(printable ? byte : next++);
  });
})();

export interface Learned {
  /** Token texts in byte characters by id: the given first tokens, the 256 bytes in the order of their characters, then
   * what the merges made. */
  readonly tokens: readonly string[];
  /** Pairs of token texts, most frequent first. */
  readonly merges: readonly (readonly [string, string])[];
}

/** Ids stay below this, so that a pair of them is one exact number. */
const PAIR = 2 ** 21;
const pairOf = (a: number, b: number) => a * PAIR + b;

/** Learns merges until there are `vocabSize` tokens or no pair is left that occurs `minCount` times. Equal counts are
 * decided by the smaller ids, so that the result depends on the counts alone.
 * @param first tokens that take the first ids, without taking part */
export function learnMerges(
  counts: ReadonlyMap<string, number>,
  vocabSize: number,
  first: readonly string[] = [],
  minCount = 2,
): Learned {
  const tokens = [...first, ...BYTE_CHARACTERS.toSorted((a, b) => (a < b ? -1 : 1))];
  const idOf = new Map(tokens.map((token, id) => [token, id]));
  const merges: (readonly [string, string])[] = [];
  const pairs = new PairCounts(counts, idOf);
  while (tokens.length < vocabSize) {
    const best = pairs.takeBest(minCount);
    if (best === null) break;
    const [a, b] = best;
    const joined = tokens[a]! + tokens[b]!;
    // Two ways to spell one token share its id.
    let id = idOf.get(joined);
    if (id === undefined) {
      id = tokens.push(joined) - 1;
      idOf.set(joined, id);
    }
    merges.push([tokens[a]!, tokens[b]!]);
    pairs.merge(a, b, id);
  }
  return { tokens, merges };
}

/** How often each pair of neighbours occurs, kept up to date while pairs are merged. */
class PairCounts {
  readonly #words: number[][] = [];
  readonly #weights: number[] = [];
  readonly #count = new Map<number, number>();
  /** Words that held the pair at some time. */
  readonly #where = new Map<number, Set<number>>();
  /** A heap of pairs by count; a stale entry is put back with its count when it comes up. */
  readonly #heap = new PairHeap();

  constructor(counts: ReadonlyMap<string, number>, idOf: ReadonlyMap<string, number>) {
    const byteIds = BYTE_CHARACTERS.map((character) => idOf.get(character)!);
    for (const [word, weight] of counts) {
      const index = this.#words.push(Array.from(Buffer.from(word), (byte) => byteIds[byte]!)) - 1;
      this.#weights.push(weight);
      const ids = this.#words[index]!;
      for (let i = 1; i < ids.length; i++) this.#add(pairOf(ids[i - 1]!, ids[i]!), index, weight);
    }
    for (const [pair, count] of this.#count) this.#heap.push(count, pair);
  }

  takeBest(minCount: number): [number, number] | null {
    for (;;) {
      const top = this.#heap.pop();
      if (top === null) return null;
      const count = this.#count.get(top.pair) ?? 0;
      if (count === top.count && count >= minCount) return [Math.floor(top.pair / PAIR), top.pair % PAIR];
      if (count !== top.count && count >= minCount) this.#heap.push(count, top.pair);
    }
  }

  merge(a: number, b: number, id: number): void {
    const pair = pairOf(a, b);
    const grown = new Set<number>();
    for (const index of this.#where.get(pair) ?? []) this.#mergeWord(index, a, b, id, grown);
    this.#where.delete(pair);
    this.#count.delete(pair);
    for (const key of grown) this.#heap.push(this.#count.get(key)!, key);
  }

  #mergeWord(index: number, a: number, b: number, id: number, grown: Set<number>): void {
    const ids = this.#words[index]!;
    const weight = this.#weights[index]!;
    const merged: number[] = [];
    for (let i = 0; i < ids.length; i++) {
      if (ids[i] !== a || ids[i + 1] !== b) {
        merged.push(ids[i]!);
        continue;
      }
      merged.push(id);
      i++;
    }
    if (merged.length === ids.length) return;
    for (let i = 1; i < ids.length; i++) this.#add(pairOf(ids[i - 1]!, ids[i]!), index, -weight);
    for (let i = 1; i < merged.length; i++) {
      const pair = pairOf(merged[i - 1]!, merged[i]!);
      this.#add(pair, index, weight);
      if (merged[i - 1] === id || merged[i] === id) grown.add(pair);
    }
    this.#words[index] = merged;
  }

  #add(pair: number, index: number, weight: number): void {
    this.#count.set(pair, (this.#count.get(pair) ?? 0) + weight);
    if (weight < 0) return;
    const where = this.#where.get(pair);
    if (where) where.add(index);
    else this.#where.set(pair, new Set([index]));
  }
}

interface HeapEntry {
  readonly count: number;
  readonly pair: number;
}

/** Highest count first, then the smallest pair. */
class PairHeap {
  readonly #entries: HeapEntry[] = [];

  push(count: number, pair: number): void {
    const entry = { count, pair };
    let at = this.#entries.push(entry) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(entry, this.#entries[parent]!)) break;
      this.#entries[at] = this.#entries[parent]!;
      at = parent;
    }
    this.#entries[at] = entry;
  }

  pop(): HeapEntry | null {
    const top = this.#entries[0];
    if (top === undefined) return null;
    const last = this.#entries.pop()!;
    const size = this.#entries.length;
    if (size === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && before(this.#entries[child + 1]!, this.#entries[child]!)) child++;
      if (!before(this.#entries[child]!, last)) break;
      this.#entries[at] = this.#entries[child]!;
      at = child;
    }
    this.#entries[at] = last;
    return top;
  }
}

function before(a: HeapEntry, b: HeapEntry): boolean {
  return a.count > b.count || (a.count === b.count && a.pair < b.pair);
}
