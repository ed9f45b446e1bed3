#!/usr/bin/env bash
# A user's first minute: install.sh TARBALL FOLDER installs the packed package into an empty folder (whose path may hold
# spaces) and trains a tiny model there. The CUDA backend is left out, since the checkout's own install has compiled it.
set -euo pipefail
tarball=$(realpath "$1")
folder=$2
mkdir -p "$folder"
cd "$folder"
npm init -y >/dev/null
FLASH_GSA_CUDA=0 npm install --no-audit --no-fund --foreground-scripts "$tarball"
for i in $(seq 1 60); do
  echo "Sentence $i: the quick brown fox jumps over the lazy dog while $((i * 7 % 13)) owls watch from tree $((i % 5))."
done >tiny.txt
cat >train.json <<'J'
{
  "model": { "model_type": "gsa", "hidden_size": 32, "num_hidden_layers": 1, "num_heads": 2, "num_slots": 8, "vocab_size": 300 },
  "data": { "train": ["tiny.txt"], "tokenizer": { "train": { "vocabSize": 300 } }, "seqLen": 32 },
  "batchSize": 2,
  "steps": 4,
  "output": "run"
}
J
npx flash-gsa train --config train.json
npx flash-gsa generate --model run --prompt 'The quick' --max-tokens 8 --json
node --input-type=module -e "
  import { Tensor, matmul } from 'flash-gsa';
  const a = Tensor.from([1, 2, 3, 4], [2, 2]);
  const values = [...matmul(a, a).toFloat32()];
  if (values.join() !== '7,10,15,22') throw new Error('matmul gave ' + values);
  console.log('the packed package works');
"
