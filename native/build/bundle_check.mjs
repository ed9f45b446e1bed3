// `npm run bundle -- --check`: builds the last commit twice, from nothing, in two folders whose paths differ in length, and
// compares the archives. Takes two full builds, minutes each.
import { createHash } from 'node:crypto';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

function sha256(path) {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

/** The archive of `commit`, built in the new folder `folder`; `node_modules` are those of `root`. */
function buildIn(folder, { root, archive, date, commit, run }) {
  mkdirSync(folder, { recursive: true });
  const sources = join(folder, '..', 'sources.tar');
  run('git', ['-C', root, 'archive', '--format=tar', `--output=${sources}`, commit]);
  run('tar', ['-C', folder, '-xf', sources]);
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  run(process.execPath, [join(folder, 'native', 'build', 'bundle.mjs')], {
    cwd: folder,
    env: { ...process.env, SOURCE_DATE_EPOCH: date, SOURCE_COMMIT: commit },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  return join(folder, basename(archive));
}

/** The files of two archives that differ, as `diff` lists them. */
function difference(scratch, archives, run) {
  const folders = archives.map((archive, i) => {
    const folder = join(scratch, `unpacked-${i}`);
    mkdirSync(folder);
    run('tar', ['-C', folder, '-xf', archive]);
    return join(folder, readdirSync(folder)[0]);
  });
  try {
    run('diff', ['-rq', ...folders]);
    return 'the files are equal, their metadata are not';
  } catch (error) {
    return error.message;
  }
}

/** Leaves the archive at `archive` when both builds gave the same bytes.
 * @throws Error naming the files that differ */
export function checkReproducible(context) {
  const { archive, run } = context;
  const scratch = mkdtempSync(join(tmpdir(), 'flash-gsa-bundle-'));
  try {
    const archives = ['a/it', 'another/longer/folder'].map((path) => buildIn(join(scratch, path), context));
    const sums = archives.map(sha256);
    console.log(sums.join('\n'));
    if (sums[0] !== sums[1])
      throw new Error(`Expected equal archives but\n${difference(scratch, archives, run)}`);
    // Another file system, perhaps: copied beside the target first.
    cpSync(archives[0], `${archive}.partial`);
    renameSync(`${archive}.partial`, archive);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
