// Says which C++ files belong to the addon; binding.gyp runs it when gyp configures.
import { readdirSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Paths of all files below `root/folder`, relative to `root`, with forward slashes, sorted. */
export function filesBelow(root, folder) {
  const found = [];
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) found.push(...filesBelow(root, path));
    else if (entry.isFile()) found.push(path);
  }
  return found.toSorted();
}

/** native/addon/*.cc, native/cpu/(any depth)/*.cc and native/ops/(algorithm)/*_cpu*.cc. */
export function addonSources(root) {
  return filesBelow(root, 'native').filter(
    (path) =>
      /^native\/addon\/[^/]+\.cc$/.test(path) ||
      /^native\/cpu\/.+\.cc$/.test(path) ||
      /^native\/ops\/[^/]+\/[^/]+_cpu[^/]*\.cc$/.test(path),
  );
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  console.log(addonSources(process.cwd()).join('\n'));
}
