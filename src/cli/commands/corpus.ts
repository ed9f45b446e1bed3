import { Command } from 'commander';
import { withJson } from '../options.js';
import { Output } from '../output.js';
import { withSignals } from '../signals.js';

export function command(): Command {
  return withJson(
    new Command('corpus')
      .description('Fetch the text of the quickstart, public-domain speeches of 10.8 MB, to train on')
      .argument('<dir>', 'folder to put it into'),
  ).action(async (dir: string, options: { json?: boolean }) => {
    const { fetchCorpus } = await import('../../data/corpus.js');
    const output = new Output(options);
    const corpus = await withSignals(
      (name) => output.message(`${name}: leaving`),
      (signal) => fetchCorpus(dir, undefined, { signal }),
    );
    output.result(corpus, corpus.folder);
  });
}
