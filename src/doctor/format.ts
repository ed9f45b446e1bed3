import type { BackendFinding, DoctorReport } from './doctor.js';

const GIB = 2 ** 30;

function backendLines(backend: BackendFinding): string[] {
  const took = backend.milliseconds ? ` (${(backend.milliseconds / 1000).toFixed(1)} s)` : '';
  const message = backend.message ? `: ${backend.message}` : '';
  const lines = [`  ${backend.name.padEnd(6)}${backend.status}${took}${message}`];
  for (const device of backend.devices) {
    const unit = backend.name === 'cpu' ? 'threads' : 'multiprocessors';
    lines.push(
      `        ${device.device}: ${device.name}, ${device.units} ${unit}, ${(device.totalBytes / GIB).toFixed(1)} GiB; ${device.detail}`,
      `        ${device.steps.map(({ step, result }) => `${step} ${result}`).join(', ')}`,
    );
  }
  return lines;
}

/** The report for a person: what was built, what works, what was found, what is missing. */
export function formatDoctor(report: DoctorReport): string {
  const { package: p, machine: m, built, gpus } = report;
  const found = [...(report.tools ?? []), ...report.libraries];
  const gpuNames = gpus.names.length > 0 ? gpus.names.join('; ') : 'no NVIDIA GPU';
  const environment = Object.entries(report.environment);
  const missing = report.missing.map((item) => `  ${item.what}: ${item.why}\n      ${item.remedy}`);
  return [
    `flash-gsa ${p.version} in ${p.folder}`,
    `node ${p.node}, ${p.platform}; ${m.cpu}, ${m.cores} cores, ${(m.memoryBytes / GIB).toFixed(1)} GiB`,
    '',
    'built',
    ...Object.entries(built).map(
      ([name, part]) => `  ${name.padEnd(6)}${part.built ? '' : 'no: '}${part.detail}`,
    ),
    'backends, each tried in a process of its own',
    ...report.backends.flatMap(backendLines),
    'found',
    `  ${'GPUs'.padEnd(18)}${gpuNames}${gpus.driver ? `; driver ${gpus.driver}` : ''}`,
    ...found.map((f) => `  ${f.name.padEnd(18)}${f.found ? f.detail : `no (for ${f.neededFor})`}`),
    ...(report.tools ? [] : ['  this copy came without sources: nothing can or need be built']),
    ...(environment.length > 0
      ? ['environment', ...environment.map(([name, value]) => `  ${name}=${value}`)]
      : []),
    ...(missing.length > 0 ? ['missing', ...missing] : ['nothing that this machine could use is missing']),
    '',
    report.ok ? 'The CPU backend works.' : 'The CPU backend does not work: see above.',
  ].join('\n');
}
