#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import { packageRoot } from '../native/load.js';
import { command as bench } from './commands/bench.js';
import { command as corpus } from './commands/corpus.js';
import { command as doctor } from './commands/doctor.js';
import { command as generate } from './commands/generate.js';
import { command as logits } from './commands/logits.js';
import { command as params } from './commands/params.js';
import { command as plot } from './commands/plot.js';
import { command as quickstart } from './commands/quickstart.js';
import { command as steps } from './commands/steps.js';
import { command as train } from './commands/train.js';
import { command as verify } from './commands/verify.js';
import { exitCodeOf } from './exit.js';
import { errorText, ignoreClosedPipes } from './output.js';

// A command's file imports its flags and nothing heavy; what it runs is imported when it runs, so that --help is quick.

function version(): string {
  return (JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { version: string })
    .version;
}

/** Makes a command, and those below it, throw instead of ending the process, so that main() alone decides. */
function throwing(command: Command): Command {
  command.exitOverride();
  command.commands.forEach(throwing);
  return command;
}

function program(): Command {
  const root = new Command('flash-gsa')
    .description('Train and run Gated Slot Attention language models')
    .version(version())
    .showHelpAfterError('(--help lists the options)');
  for (const make of [
    quickstart,
    corpus,
    train,
    generate,
    logits,
    plot,
    steps,
    params,
    verify,
    doctor,
    bench,
  ])
    root.addCommand(make().showHelpAfterError('(--help lists the options)'));
  return throwing(root);
}

async function main(): Promise<void> {
  ignoreClosedPipes();
  try {
    await program().parseAsync();
  } catch (error) {
    if (error instanceof CommanderError) {
      // commander has printed its message; --help and --version come here with code 0.
      process.exitCode = error.exitCode === 0 ? 0 : 2;
      return;
    }
    process.stderr.write(errorText(error) + '\n');
    process.exitCode ??= exitCodeOf(error);
  }
}

await main();
