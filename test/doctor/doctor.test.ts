import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import { doctor, probeInChild, type DoctorReport } from '#src/doctor/doctor.js';
import { formatDoctor } from '#src/doctor/format.js';
import { probeBackend } from '#src/doctor/probe.js';
import { packageRoot } from '#src/native/load.js';

const folder = mkdtempSync(join(tmpdir(), 'flash-gsa-doctor-'));
test.after.always(() => rmSync(folder, { recursive: true, force: true }));

let scripts = 0;
/** A script that stands in for a backend's probe. */
function planted(code: string): string {
  const path = join(folder, `planted-${scripts++}.mjs`);
  writeFileSync(path, code);
  return path;
}

const OK = JSON.stringify({
  devices: [{ device: 'cpu', detail: 'X', steps: [{ step: 'copy', result: 'ok' }] }],
});

test('the CPU backend gives right answers to every probe', (t) => {
  const report = probeBackend('cpu');
  t.is(report.devices.length, 1);
  t.deepEqual(
    report.devices[0]!.steps.map(({ step, result, message }) => [step, result, message]),
    ['copy', 'add', 'matmul', 'gated slot attention'].map((step) => [step, 'ok', undefined]),
  );
});

for (const [what, code, status, message] of [
  ['a crash', "process.kill(process.pid, 'SIGSEGV'); setInterval(() => {}, 1e3);", 'crashed', /SIGSEGV/],
  ['an abort', 'console.error("assertion failed: x"); process.abort();', 'crashed', /SIGABRT/],
  ['an exit', 'console.error("no symbol foo"); process.exit(3);', 'crashed', /exited with 3.*no symbol foo/],
  ['silence', '', 'crashed', /no report/],
  ['noise instead of a report', 'console.log("hello");', 'crashed', /no report/],
  ['an endless loop', 'for (;;);', 'hung', /no answer after 0.5 s/],
  [
    'a wrong answer',
    `console.log(${JSON.stringify(OK.replace('"ok"', '"failed","message":"expected 1 but received 2"'))});`,
    'failed',
    /cpu: copy: expected 1 but received 2/,
  ],
  [
    'an op without code',
    `console.log(${JSON.stringify(OK.replace('"ok"', '"unsupported"'))});`,
    'partly',
    /copy/,
  ],
  ['no device', `console.log('{"devices":[],"message":"none"}');`, 'no device', /none/],
  ['right answers after noise', `console.log("banner"); console.log(${JSON.stringify(OK)});`, 'works', /^$/],
] as const)
  test(`a backend with ${what} is reported as "${status}"`, async (t) => {
    const found = await probeInChild('cpu', {
      probeScript: planted(code),
      timeoutMs: status === 'hung' ? 500 : 20_000,
    });
    t.is(found.status, status);
    t.regex(found.message, message);
  });

test('doctor sees a crash of the CPU backend, goes on, and says so', async (t) => {
  const report = await doctor({ probeScript: planted("process.kill(process.pid, 'SIGKILL');") });
  t.false(report.ok);
  t.is(report.backends[0]!.status, 'crashed');
  t.true(report.libraries.length > 0);
  t.regex(formatDoctor(report), /cpu +crashed .*SIGKILL[\s\S]*does not work/);
});

test('a CPU backend that finds no CPU is broken, not absent', async (t) => {
  const report = await doctor({ probeScript: planted(`console.log('{"devices":[]}');`) });
  t.is(report.backends[0]!.status, 'failed');
  t.false(report.ok);
});

test('doctor --json prints one report and exits with 0', async (t) => {
  const main = join(packageRoot(), 'dist', 'cli', 'main.js');
  const env = { ...process.env, FLASH_GSA_THREADS: '1' };
  const { stdout } = await promisify(execFile)(process.execPath, [main, 'doctor', '--json'], { env });
  const report = JSON.parse(stdout) as DoctorReport;
  t.true(report.ok);
  t.is(report.package.folder, packageRoot());
  t.is(report.backends.find((backend) => backend.name === 'cpu')!.status, 'works');
  t.is(report.backends[0]!.devices[0]!.units, 1);
  t.is(report.environment['FLASH_GSA_THREADS'], '1');
  t.true(report.built.cpu.built);
  t.deepEqual(
    report.libraries.map((library) => library.name),
    ['CUDA driver', 'NVML', 'cuBLASLt', 'NCCL', 'cuDNN'],
  );
  for (const { what, why, remedy } of report.missing)
    t.true(what !== '' && why !== '' && remedy !== '', what);
  for (const tool of report.tools ?? []) t.true(tool.found || tool.remedy !== undefined, tool.name);
});
