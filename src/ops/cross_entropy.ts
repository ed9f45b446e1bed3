import { GsaError, checkOptions, expected } from '../native/errors.js';
import type { BackendName } from '../native/types.js';
import { DTYPES, type DType } from '../tensor/dtype.js';
import { exec } from '../tensor/exec.js';
import { record, recording } from '../tensor/recorder.js';
import { Tensor } from '../tensor/tensor.js';
import { checkNumber, checkTensor, emptyBeside, refuse, rowCount } from './check.js';
import { scale } from './elementwise.js';
import { asInt32 } from './embedding.js';
import { gemm } from './matmul.js';
import { sum } from './reduce.js';
import { shapeText } from '../tensor/shape.js';

export interface CrossEntropyOptions {
  /** Rows with this label have loss 0 and gradient 0; default -100. */
  ignoreIndex?: number;
  /** 'none': one loss per row; 'sum'; 'mean' over the rows that count (reads the labels on the host). Default 'mean'. */
  reduction?: 'none' | 'sum' | 'mean';
}

export const IGNORE_INDEX = -100;

function checkIgnore(op: string, value: number | undefined): number {
  return checkNumber(op, 'ignoreIndex', value ?? IGNORE_INDEX, 'an integer', Number.isInteger);
}

/** The labels, int32 in one dimension, for `rows` rows. The caller disposes them. */
function flatLabels(op: string, labels: unknown, rows: number, like: Tensor): Tensor {
  const { ids, own } = asInt32(op, 'labels', labels, like);
  try {
    if (ids.size !== rows) throw refuse(op, `${rows} labels`, 'labels', `shape ${shapeText(ids.shape)}`);
    return ids.view([rows]);
  } finally {
    if (own) ids.dispose();
  }
}

/** The number of labels that count. Waits for the device. @throws GsaError INVALID_ARGUMENT */
export function countLabels(labels: Tensor, ignoreIndex = IGNORE_INDEX): number {
  checkTensor('countLabels', 'labels', labels, { dtype: ['int32', 'int64'] });
  let count = 0;
  for (const label of labels.toHost() as Iterable<number | bigint>)
    if (Number(label) !== ignoreIndex) count++;
  return count;
}

/** −log softmax(logits)[label] by rows: logits [..., C], labels [...] int32 or int64, each in 0..C-1 or ignoreIndex.
 * @returns float32: [] for 'sum' and 'mean', the labels' shape for 'none'
 * @throws GsaError INVALID_ARGUMENT; 'mean' also when every label is ignored */
export function crossEntropy(logits: Tensor, labels: Tensor, options: CrossEntropyOptions = {}): Tensor {
  const op = 'crossEntropy';
  checkOptions(options, ['ignoreIndex', 'reduction'], op);
  const { reduction = 'mean' } = options;
  if (!['none', 'sum', 'mean'].includes(reduction))
    throw expected("'none', 'sum' or 'mean'", 'reduction', reduction, op);
  const ignoreIndex = checkIgnore(op, options.ignoreIndex);
  checkTensor(op, 'logits', logits);
  if (logits.shape.length < 1) throw refuse(op, 'at least 1 dimension', 'logits', 'shape []');
  if (reduction === 'none') return rowLosses(logits, labels, ignoreIndex);
  if (reduction === 'mean' && countLabels(labels, ignoreIndex) === 0)
    throw refuse(op, 'at least one label that is not ignored', 'labels', `only ${ignoreIndex}`);
  using losses = rowLosses(logits, labels, ignoreIndex);
  if (reduction === 'sum') return sum(losses);
  using total = sum(losses);
  return scale(total, 1 / countLabels(labels, ignoreIndex));
}

function rowLosses(logits: Tensor, labels: Tensor, ignoreIndex: number): Tensor {
  const rows = rowCount(logits.shape);
  const matrix = [rows, logits.shape.at(-1)!];
  using labels1 = flatLabels('crossEntropy', labels, rows, logits);
  const loss = emptyBeside(logits, labels.shape, 'float32');
  using lse = emptyBeside(logits, [rows], 'float32');
  using loss1 = loss.view([rows]);
  using logits2 = logits.view(matrix);
  exec(
    'cross_entropy_fwd',
    { logits: logits2, labels: labels1 },
    { loss: loss1, lse },
    { ignore_index: ignoreIndex },
  );
  record('crossEntropy', [logits], [loss], [logits, labels1, lse], ([dloss], [logits, labels, lse]) => {
    const dlogits = Tensor.emptyLike(logits!);
    exec(
      'cross_entropy_bwd',
      { dloss: dloss!.view([rows]), logits: logits!.view(matrix), labels, lse },
      { dlogits: dlogits.view(matrix) },
      { ignore_index: ignoreIndex },
    );
    return [dlogits];
  });
  return loss;
}

/** log softmax over the last dimension; not differentiable (use crossEntropy).
 * @throws GsaError INVALID_ARGUMENT; UNSUPPORTED inside Tape.run() when a gradient would be asked for */
export function logSoftmax(x: Tensor): Tensor {
  checkTensor('logSoftmax', 'x', x);
  if (recording([x]))
    throw new GsaError(
      'UNSUPPORTED',
      'Expected an input that needs no gradient but received one that does; use crossEntropy, or noGrad()',
      { op: 'logSoftmax' },
    );
  if (x.shape.length < 1) throw refuse('logSoftmax', 'at least 1 dimension', 'x', 'shape []');
  const matrix = [rowCount(x.shape), x.shape.at(-1)!];
  const y = Tensor.emptyLike(x);
  using x2 = x.view(matrix);
  using y2 = y.view(matrix);
  exec('log_softmax', { x: x2 }, { y: y2 }, {});
  return y;
}

export interface LinearCrossEntropyOptions {
  ignoreIndex?: number;
  /** Rows whose logits exist at one time; default: see lossChunkRows(). */
  chunkRows?: number;
}

/** A CPU wants a chunk's logits in its caches. A GPU wants tall products, and for each chunk but the first it reads and
 * writes the weight's float32 gradient once more: few chunks, one where memory allows, and whole tiles of rows. */
const CHUNKS = {
  cpu: { bytes: 32 * 2 ** 20, tile: 1 },
  cuda: { bytes: 2 ** 30, tile: 256 },
} as const;

/** Rows of `classes` logits that linearCrossEntropy() makes at one time: of about 32 MiB on a CPU, 1 GiB on a GPU. */
export function lossChunkRows(rows: number, classes: number, dtype: DType, backend: BackendName): number {
  const { bytes, tile } = CHUNKS[backend];
  const most = Math.max(1, Math.floor(bytes / (DTYPES[dtype].bytes * classes)));
  return Math.min(rows, most > tile ? most - (most % tile) : most);
}

/** The sum over rows of crossEntropy(hidden weightᵀ, labels), without ever storing all logits: hidden [..., D], weight
 * [C, D], labels [...] int32 or int64. When a gradient will be asked for, it is computed here, chunk by chunk, while
 * the logits exist, and the backward only scales it.
 * @returns float32 of shape []
 * @throws GsaError INVALID_ARGUMENT */
export function linearCrossEntropy(
  hidden: Tensor,
  weight: Tensor,
  labels: Tensor,
  options: LinearCrossEntropyOptions = {},
): Tensor {
  const op = 'linearCrossEntropy';
  checkOptions(options, ['ignoreIndex', 'chunkRows'], op);
  const ignoreIndex = checkIgnore(op, options.ignoreIndex);
  checkTensor(op, 'weight', weight, { ndim: 2 });
  const [classes, width] = weight.shape as [number, number];
  checkTensor(op, 'hidden', hidden, { dtype: weight.dtype, device: weight.device });
  if (hidden.shape.at(-1) !== width)
    throw refuse(
      op,
      `a last dimension of ${width} (weight ${shapeText(weight.shape)})`,
      'hidden',
      shapeText(hidden.shape),
    );
  const rows = rowCount(hidden.shape);
  const chunkRows = checkNumber(
    op,
    'chunkRows',
    options.chunkRows ?? Math.max(1, lossChunkRows(rows, classes, weight.dtype, weight.device.backend)),
    'an integer above 0',
    (n) => Number.isInteger(n) && n > 0,
  );
  using labels1 = flatLabels(op, labels, rows, hidden);
  using hidden2 = hidden.view([rows, width]);
  const wants = [recording([hidden]), recording([weight])] as const;
  using losses = emptyBeside(hidden, [rows], 'float32');
  using dhidden = wants[0] ? Tensor.emptyLike(hidden) : null;
  using dhidden2 = dhidden?.view([rows, width]);
  // Summed over several chunks in float32: in bfloat16 every addition would round.
  const sumType = chunkRows < rows ? 'float32' : weight.dtype;
  using dweight = wants[1] ? weightSum(weight, rows, sumType) : null;
  for (let start = 0; start < rows; start += chunkRows) {
    const count = Math.min(chunkRows, rows - start);
    const part = { hidden2, labels1, losses, dhidden2, start, count };
    chunkLoss(part, weight, dweight, ignoreIndex);
  }
  const loss = emptyBeside(hidden, [], 'float32');
  exec('sum', { x: losses }, { y: loss }, {});
  using rounded = dweight && dweight.dtype !== weight.dtype ? dweight.to({ dtype: weight.dtype }) : null;
  const saved = [dhidden, rounded ?? dweight].filter((t) => t !== null);
  record(op, [hidden, weight], [loss], saved, ([dloss], saved) => {
    const grads = [...saved];
    return wants.map((wanted) => (wanted ? scale(grads.shift()!, dloss!) : null));
  });
  return loss;
}

/** Room for the gradient of the weight: not cleared where the first chunk of `rows` rows writes it. */
function weightSum(weight: Tensor, rows: number, dtype: DType): Tensor {
  const { shape, device } = weight;
  return rows > 0 ? Tensor.empty(shape, { device, dtype }) : Tensor.zeros(shape, { device, dtype });
}

interface ChunkOfRows {
  readonly hidden2: Tensor;
  readonly labels1: Tensor;
  readonly losses: Tensor;
  readonly dhidden2: Tensor | undefined;
  readonly start: number;
  readonly count: number;
}

function chunkLoss(part: ChunkOfRows, weight: Tensor, dweight: Tensor | null, ignoreIndex: number): void {
  const { start, count } = part;
  using hidden = part.hidden2.narrow(0, start, count);
  using labels = part.labels1.narrow(0, start, count);
  using loss = part.losses.narrow(0, start, count);
  using logits = gemm(hidden, weight, { transB: true });
  using lse = emptyBeside(hidden, [count], 'float32');
  const wanted = part.dhidden2 || dweight;
  const dlogits = wanted ? logits : null; // in place: nobody needs the logits any more
  exec('cross_entropy_fwd', { logits, labels }, { loss, lse, dlogits }, { ignore_index: ignoreIndex });
  if (!dlogits) return;
  using dhidden = part.dhidden2?.narrow(0, start, count);
  if (dhidden) gemm(dlogits, weight, { into: dhidden });
  if (dweight) gemm(dlogits, hidden, { transA: true, into: dweight, beta: start === 0 ? 0 : 1 });
}
